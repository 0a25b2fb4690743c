"""The life of a request: inserted, claimed, pending again, finished; and who may act on it; pure.

A caller may act on requests whose lease it holds, and on requests that it only read, without a
claim, while nobody else holds their lease. `position_queue.py` reads the requests, and commits what
is decided here: a `Change` has the live requests that are new or changed, and those that finish.

A time that lies ahead of now by more than clocks differ was written by a clock that was wrong
(`is_ahead`). Nobody waits for it: a back-off or a lease that began then is over.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from random import Random
from typing import Any

import polars as pl
from polars import DataFrame, Expr, col, when

from position_sync_dagster.domain.queue_request import (
    ACTIVE_PRIORITY,
    Outcome,
    QueuedPosition,
    QueueRequest,
    QueueStatus,
    Reason,
    RetryPolicy,
    next_attempt,
    with_ended_attempt,
)
from position_sync_dagster.errors import LeaseLostError, RequestStateError
from position_sync_dagster.lake.schema import NewIds, fields_of, is_ahead, moment, records_of
from position_sync_dagster.lake.storage.commits import in_parts
from position_sync_dagster.lake.storage.lifecycle_table import Change

PENDING = QueueStatus.PENDING.value
PROCESSING = QueueStatus.PROCESSING.value
SUCCESS = QueueStatus.SUCCESS.value
FAILED = QueueStatus.FAILED.value

# Returns the rows of a frame as requests.
requests_of = partial(records_of, QueuedPosition)

# Which live requests have attempts.
WAS_CLAIMED = (col.status == PROCESSING) | col.earlier_attempts.is_not_null()


def is_claimable(now: datetime, except_accounts: Collection[str] = ()) -> Expr:
    """Return which requests may be claimed: they are PENDING, and no back-off is left.

    Args:
        now: The time.
        except_accounts: Requests that name one of these accounts may not be claimed.
    """
    available_at = col.available_at
    is_over = (available_at <= moment(now)) | is_ahead("updated_at", now)
    has_waited = available_at.is_null() | is_over
    return (col.status == PENDING) & has_waited & is_of_others(except_accounts)


def lease_has_expired(now: datetime, except_accounts: Collection[str] = ()) -> Expr:
    """Return which requests are PROCESSING under a lease that has expired.

    Args:
        now: The time.
        except_accounts: Requests that name one of these accounts do not count.
    """
    is_over = col.lease_expires_at <= moment(now)
    has_expired = is_over | is_ahead("claimed_at", now)
    return (col.status == PROCESSING) & has_expired & is_of_others(except_accounts)


def is_of_others(accounts: Collection[str]) -> Expr:
    """Return which requests name another account than these, or no account."""
    return ~col.account.is_in(sorted(accounts)).fill_null(value=False)


def tried_again(
    request: QueuedPosition,
    now: datetime,
    outcome: Outcome,
    *,
    ended_at: datetime | None,
    error: str | None,
    available_at: datetime | None = None,
) -> QueuedPosition:
    """Return a request as PENDING, without a lease, its last attempt among the earlier ones.

    Args:
        outcome: How that attempt ended; `ended_at` and `error` say when and why.
        available_at: The end of its back-off; None: it may be claimed at once.
    """
    attempts = with_ended_attempt(
        request.earlier_attempts,
        request.lease_owner,
        request.claimed_at,
        ended_at,
        error,
        outcome,
    )
    return replace(
        request,
        status=QueueStatus.PENDING,
        updated_at=now,
        available_at=available_at,
        claimed_at=None,
        lease_owner=None,
        lease_token=None,
        lease_expires_at=None,
        changed_at=None,  # the next attempt values the position as it is then
        earlier_attempts=attempts,
    )


# A pending request older than this is claimed as if it had priority 1, in seconds.
PROMOTE_AFTER_S = 60.0


def claim_order(now: datetime) -> list[Expr]:
    """Return the sort keys of claims: priority 1 first, then the oldest request.

    A request that has waited for `PROMOTE_AFTER_S` counts as priority 1, so that a steady
    flow of requests of priority 1 cannot starve the others; and so does one that a clock
    ahead made, since nobody knows how long it has waited. Of equal ones the ids decide.
    """
    long_ago = moment(now - timedelta(seconds=PROMOTE_AFTER_S))
    created_at = when(is_ahead("created_at", now)).then(long_ago).otherwise("created_at")
    promoted = pl.min_horizontal("priority", ACTIVE_PRIORITY)
    rank = when(created_at <= long_ago).then(promoted).otherwise("priority")
    return [rank, created_at, col.request_id]


def first_claimable(
    live: DataFrame, now: datetime, limit: int, except_accounts: Collection[str]
) -> list[QueuedPosition]:
    """Return the requests that a claim gets now, in order, at most `limit`."""
    # Step by step: to plan the steps as one lazy query takes longer than to run them.
    claimable = live.filter(is_claimable(now, except_accounts))
    return requests_of(claimable.sort(claim_order(now)).head(limit))


def claimed(
    request: QueuedPosition, now: datetime, owner: str, token: str, lease_s: float
) -> QueuedPosition:
    """Return a request as PROCESSING under a new lease."""
    return replace(
        request,
        status=QueueStatus.PROCESSING,
        updated_at=now,
        claimed_at=now,
        available_at=None,
        lease_owner=owner,
        lease_token=token,
        lease_expires_at=now + timedelta(seconds=lease_s),
    )


def succeed_requests(
    done: Sequence[QueuedPosition],
    now: datetime,
    answers: Mapping[str, Mapping[str, Any]],
    new_ids: NewIds,
) -> Change[None]:
    """Finish requests as SUCCESS; one whose position changed meanwhile is followed by a new one.

    Args:
        done: The requests, which the caller may end.
        now: The time.
        answers: By request id the columns of an `Answer`, as far as it is known.
        new_ids: Makes the ids of new requests.
    """
    ended = [
        as_finished(request, QueueStatus.SUCCESS, now, **answers.get(request.request_id, {}))
        for request in done
    ]
    return Change(None, follow_ups(done, now, new_ids), {SUCCESS: ended})


def fail_requests(
    done: Sequence[QueuedPosition],
    now: datetime,
    errors: Mapping[str, str],
    *,
    policy: RetryPolicy,
    random: Random,
    new_ids: NewIds,
) -> Change[None]:
    """Use up an attempt of requests that failed: PENDING after a back-off, or FAILED with the last.

    One that is FAILED, and whose position changed meanwhile, is followed by a new request.

    Args:
        done: The requests, which the caller may end.
        now: The time.
        errors: Why each failed, by request id.
        policy: How many attempts a request has, and their delays.
        random: Draws the jitter of the delays.
        new_ids: Makes the ids of new requests.
    """
    final, retried = [], []
    for request in done:
        error = errors[request.request_id]
        failed = replace(request, attempts=request.attempts + 1, error_message=error)
        again_at = next_attempt(failed.attempts, now=now, policy=policy, random=random)
        if again_at is None:
            final.append(failed)
        else:
            retried.append(
                tried_again(
                    failed, now, Outcome.FAILED, ended_at=now, error=error, available_at=again_at
                )
            )

    ended = [as_finished(request, QueueStatus.FAILED, now) for request in final]
    return Change(None, [*retried, *follow_ups(final, now, new_ids)], {FAILED: ended})


def release_requests(claims: Sequence[QueuedPosition], now: datetime, why: str) -> Change[None]:
    """Return claimed requests to PENDING at once; no attempt is used up."""
    pending = [
        tried_again(request, now, Outcome.RELEASED, ended_at=now, error=why or None)
        for request in claims
    ]
    return Change(None, pending)


def rescue_requests(live: DataFrame, now: datetime) -> Change[list[str]]:
    """Return requests with an expired lease to PENDING at once, and return their ids.

    No attempt is used up: the worker died, the request is not at fault.
    """
    pending = [
        tried_again(request, now, Outcome.EXPIRED, ended_at=request.lease_expires_at, error=None)
        for request in requests_of(live.filter(lease_has_expired(now)))
    ]
    return Change(sorted(request.request_id for request in pending), pending)


def follow_ups(
    done: Sequence[QueuedPosition], now: datetime, new_ids: NewIds
) -> list[QueuedPosition]:
    """Return new requests for positions that changed while they were processed.

    Their requests end, and the value that was written may be that from before the change.
    """
    changed = [
        QueueRequest(
            request.conid, request.symbol, request.priority, request.account, Reason.CHANGED
        )
        for request in done
        if request.changed_at is not None
    ]
    return new_requests(changed, now, new_ids)


def new_requests(
    requests: Collection[QueueRequest], now: datetime, new_ids: NewIds
) -> list[QueuedPosition]:
    """Return the stored form of new requests."""
    return [
        QueuedPosition(
            request_id=request_id,
            status=QueueStatus.PENDING,
            created_at=now,
            updated_at=now,
            **fields_of(request),
        )
        for request_id, request in zip(new_ids(now, len(requests)), requests, strict=True)
    ]


def as_finished(
    request: QueuedPosition, status: QueueStatus, now: datetime, **columns: Any
) -> QueuedPosition:
    """Return a request in a final status, without a lease."""
    # The lease's owner and token remain, so that the row shows who finished it.
    return replace(
        request,
        status=status,
        updated_at=now,
        available_at=None,
        changed_at=None,  # a new request follows (`follow_ups`)
        lease_expires_at=None,
        **columns,
    )


# The reasons of requests that a change of the holding may have: of a leg without a line each
# request is an OVERFLOW.
IS_CHANGE = frozenset({Reason.CHANGED, Reason.OVERFLOW})

# Account and conid; an account of None stands for any account.
Position = tuple[str | None, int]


def insert_requests(
    live: DataFrame, requests: Sequence[QueueRequest], now: datetime, new_ids: NewIds
) -> Change[list[str]]:
    """Add requests, at most one live request per (account, conid).

    When a position has a live request already, that request's id is the result, and its priority
    is raised if the new one is higher. A request with a reason of `IS_CHANGE` for a position that
    is PROCESSING sets `changed_at` of the live request. When the live request ends, a follow-up
    request is inserted, since the value in progress may be the old one.

    Returns:
        For each request, in order, the id of the live request of its position.
    """
    conids = [request.conid for request in requests]
    before = {
        (request.account, request.conid): request
        for request in requests_of(live.filter(col.conid.is_in(conids)))
    }
    after = dict(before)
    # For positions without a live request: the first one, or a later one of a higher priority.
    fresh: dict[Position, QueueRequest] = {}

    for request in requests:
        position = (request.account, request.conid)
        present = after.get(position)
        if present is None:
            first = fresh.setdefault(position, request)
            if request.priority < first.priority:
                fresh[position] = request
            continue

        is_news = present.status is QueueStatus.PROCESSING and request.reason in IS_CHANGE
        if is_news or request.priority < present.priority:
            after[position] = replace(
                present,
                priority=min(request.priority, present.priority),
                changed_at=now if is_news else present.changed_at,
            )

    after |= zip(fresh, new_requests(fresh.values(), now, new_ids), strict=True)
    result = [after[request.account, request.conid].request_id for request in requests]
    changed = [
        request for position, request in after.items() if request is not before.get(position)
    ]
    return Change(result, changed)


class Action(Enum):
    """An action on requests that the caller claimed or read.

    MARK: success or failure; allowed also for requests that were only read.
    RELEASE: back to PENDING; of requests that are claimed.
    HOLD: success of claimed requests; allowed only under the caller's own lease.
    """

    MARK = auto()
    RELEASE = auto()
    HOLD = auto()


def check_lease(request: QueuedPosition, token: str | None, action: Action, now: datetime) -> None:
    """Check that the caller may act on a live request.

    Args:
        token: The lease token of the caller's claim; None if it only read the request.

    Raises:
        LeaseLostError: The lease has expired, or another worker holds it.
        RequestStateError: The request is PENDING: it may only be marked (`Action.MARK`).
    """
    expires_at = request.lease_expires_at
    is_claimed = request.status is QueueStatus.PROCESSING
    is_leased = is_claimed and expires_at is not None and expires_at > now

    # Without a token the caller only read the request: nobody may hold it. An expired lease is
    # nobody's, and bars HOLD alone.
    if token is not None:
        if not is_leased or request.lease_token != token:
            raise lease_lost(request.request_id)
    elif is_leased or (is_claimed and action is Action.HOLD):
        raise lease_lost(request.request_id)
    elif not is_claimed and action is not Action.MARK:
        raise RequestStateError(
            f"The request {request.request_id} is PENDING.",
            remedy="Claim it first; only a claimed request has a lease.",
        )


def lease_lost(request_id: str) -> LeaseLostError:
    """Return the error of a lease that the caller no longer holds."""
    return LeaseLostError(
        f"The lease on request {request_id} has expired, or another worker holds it.",
        remedy="Stop the work on it: the request was, or will be, claimed by another worker.",
    )


def retry_requests(
    live: DataFrame, stored: DataFrame, ids: Sequence[str], *, now: datetime
) -> Change[list[str]]:
    """Return FAILED requests to PENDING with all their attempts.

    A request whose position has a live request already remains FAILED.

    Args:
        stored: All rows of the parts in which the requests are stored, since a part is rewritten
            whole.
        ids: The requests.

    Returns:
        For each of them the id of the live request of its position.
    """
    requests = requests_of(stored)
    by_id = {request.request_id: request for request in requests}
    # The id of the live request of each position that has one.
    holders = dict(
        zip(live.select("account", "conid").iter_rows(), live["request_id"], strict=True)
    )

    result = []
    retried = {}
    for request_id in ids:
        failed = by_id[request_id]
        # Where there is none, the request becomes it.
        holder = holders.setdefault((failed.account, failed.conid), request_id)
        result.append(holder)
        if holder == request_id:
            retried[request_id] = tried_again(
                replace(failed, attempts=0),
                now,
                Outcome.FAILED,
                ended_at=failed.updated_at,
                error=failed.error_message,
            )

    if not retried:
        return Change(result)

    # A row of another program may have no id; it stays.
    kept = [request for request in requests if request.request_id not in retried]
    parts = in_parts(FAILED, stored["part"].unique())
    return Change(result, retried.values(), {FAILED: kept}, parts)
