"""The transitions of requests: inserted, claimed, ended, released, rescued and retried; pure.

Each returns a `Change`. A caller may act on requests whose lease it holds, and on requests that it
only read while nobody else holds their lease.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto

import polars as pl
from polars import DataFrame, Expr, Int64, Series, String, col, concat, lit, when

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.domain.queue_request import (
    ACTIVE_PRIORITY,
    Answer,
    NextAttempt,
    Outcome,
    QueueRequest,
    QueueStatus,
    Reason,
    with_ended_attempt,
)
from position_sync_dagster.errors import LeaseLostError, RequestStateError
from position_sync_dagster.lake.schema import (
    LIVE_COLUMNS,
    NewIds,
    is_ahead,
    moment,
    moments,
    new_request_rows,
)
from position_sync_dagster.lake.storage.commits import in_parts
from position_sync_dagster.lake.storage.lifecycle_table import Change, Snapshot

PENDING = QueueStatus.PENDING.value
PROCESSING = QueueStatus.PROCESSING.value
SUCCESS = QueueStatus.SUCCESS.value
FAILED = QueueStatus.FAILED.value

NO_TIME = moment(None)

# Which live requests have attempts.
WAS_CLAIMED = (col.status == PROCESSING) | col.earlier_attempts.is_not_null()


def is_claimable(now: datetime, except_accounts: Collection[str] = ()) -> Expr:
    """Return which requests may be claimed: they are PENDING, and no back-off is left.

    One that a clock ahead began is over.

    Args:
        now: The time.
        except_accounts: Requests that name one of these accounts may not be claimed.
    """
    available_at = col.available_at
    is_over = (available_at <= moment(now)) | is_ahead("updated_at", now)
    has_waited = available_at.is_null() | is_over
    return (col.status == PENDING) & has_waited & is_of_others(except_accounts)


def lease_has_expired(now: datetime, except_accounts: Collection[str] = ()) -> Expr:
    """Return which requests are PROCESSING under a lease that has expired; see `is_claimable`.

    A lease that a clock ahead began would last too long: it has expired.
    """
    is_over = col.lease_expires_at <= moment(now)
    has_expired = is_over | is_ahead("claimed_at", now)
    return (col.status == PROCESSING) & has_expired & is_of_others(except_accounts)


def is_of_others(accounts: Collection[str]) -> Expr:
    """Return which requests name another account than these, or no account."""
    if not accounts:
        return lit(value=True)
    return ~col.account.is_in(sorted(accounts)).fill_null(value=False)


def as_pending(rows: DataFrame, now: datetime) -> DataFrame:
    """Return the rows as PENDING: without a lease, and claimable at once."""
    return rows.with_columns(
        lease_owner=lit(None, String),
        lease_token=lit(None, String),
        lease_expires_at=NO_TIME,
        status=lit(PENDING),
        updated_at=moment(now),
        available_at=NO_TIME,
        changed_at=NO_TIME,
        claimed_at=NO_TIME,
    )


def with_attempt_recorded(
    rows: DataFrame, outcome: Outcome, *, ended_at: Expr, error: Expr
) -> DataFrame:
    """Return requests with the attempt that ended among the earlier ones: another may follow."""
    attempts = rows.select(
        "earlier_attempts",
        "lease_owner",
        "claimed_at",
        ended_at=ended_at,
        error=error,
        outcome=lit(outcome.value),
    )
    texts = [with_ended_attempt(*attempt) for attempt in attempts.iter_rows()]
    return rows.with_columns(earlier_attempts=Series(texts, dtype=String))


# A pending request older than this is claimed as if it had priority 1, in seconds.
PROMOTE_AFTER_S = 60.0


def claim_order(now: datetime) -> list[Expr]:
    """Return the sort keys of claims: priority 1 first, then the oldest request.

    A request that has waited for `PROMOTE_AFTER_S` counts as priority 1, so that a steady
    flow of requests of priority 1 cannot starve the others; and so does one that a clock
    ahead made, since nobody knows how long it has waited.
    """
    long_ago = moment(now - timedelta(seconds=PROMOTE_AFTER_S))
    created_at = when(is_ahead("created_at", now)).then(long_ago).otherwise("created_at")
    promoted = pl.min_horizontal("priority", ACTIVE_PRIORITY)
    rank = when(created_at <= long_ago).then(promoted).otherwise("priority")
    return [rank, created_at, col.request_id]


def claim(
    snapshot: Snapshot,
    *,
    limit: int,
    owner: str,
    token: str,
    lease_s: float,
    except_accounts: Collection[str],
    clock: Clock,
) -> Change[DataFrame]:
    """Grant up to `limit` claimable requests under one lease.

    Args:
        snapshot: The live rows.
        limit: The most requests to grant.
        owner: The name of the worker.
        token: Drawn anew at each claim; every later step is checked against it.
        lease_s: The length of the lease, in seconds.
        except_accounts: As for `is_claimable`.
        clock: Returns the time.

    Returns:
        The granted rows, in claim order.
    """
    now = clock()
    live = snapshot.live
    order = claim_order(now)
    is_granted = live.get_column("lease_token") == token
    if is_granted.any():  # the answer to the commit was lost
        return Change(live.filter(is_granted).sort(order))

    # Step by step: to plan them as one query takes longer than they do.
    claimable = live.filter(is_claimable(now, except_accounts))
    granted = claimable.sort(order).head(limit)
    granted = granted.with_columns(
        status=lit(PROCESSING),
        updated_at=moment(now),
        claimed_at=moment(now),
        available_at=NO_TIME,
        lease_owner=lit(owner),
        lease_token=lit(token),
        lease_expires_at=moment(now + timedelta(seconds=lease_s)),
    )
    return Change(granted, None if granted.is_empty() else granted)


def succeed(
    done: DataFrame, now: datetime, *, answers: Mapping[str, Answer], new_ids: NewIds
) -> Change[None]:
    """Finish requests as SUCCESS with the rows that answer them; insert the follow-up requests."""
    in_order = [answers.get(request_id) for request_id in done.get_column("request_id")]
    update_ids = [answer.update_id if answer else None for answer in in_order]
    confirmed_at = [answer.confirmed_at if answer else None for answer in in_order]
    finished = _finish(
        done,
        SUCCESS,
        now,
        update_id=Series(update_ids, dtype=String),
        confirmed_at=moments(confirmed_at),
    )
    return Change(None, _follow_ups(done, now, new_ids), finished)


def fail(
    done: DataFrame,
    now: datetime,
    *,
    errors: Mapping[str, str],
    following: Callable[..., NextAttempt],
    new_ids: NewIds,
) -> Change[None]:
    """Return failed requests to PENDING for another attempt, or finish them as FAILED.

    Follow-up requests are inserted for those that are finished.

    Args:
        errors: Error message by request id.
        following: `next_attempt` with the rules of this queue.
    """
    attempts = [following(before, now=now) for before in done.get_column("attempts")]
    are_final = [attempt.status is QueueStatus.FAILED for attempt in attempts]
    is_final = Series(are_final, dtype=pl.Boolean)
    messages = [errors[request_id] for request_id in done.get_column("request_id")]

    after = done.with_columns(
        attempts=Series([attempt.attempts for attempt in attempts], dtype=Int64),
        available_at=moments(attempt.available_at for attempt in attempts),
        error_message=Series(messages, dtype=String),
    )
    finished = _finish(after.filter(is_final), FAILED, now)
    follow_ups = _follow_ups(done.filter(is_final), now, new_ids)

    to_retry = after.filter(~is_final)
    ended = with_attempt_recorded(
        to_retry, Outcome.FAILED, ended_at=moment(now), error=col.error_message
    )
    # `as_pending` makes them claimable at once: the back-off is put back.
    retried = as_pending(ended, now).with_columns(available_at=to_retry.get_column("available_at"))
    return Change(None, concat([retried, follow_ups]), finished)


def _follow_ups(done: DataFrame, now: datetime, new_ids: NewIds) -> DataFrame:
    """Return new requests for positions that changed while they were processed (see `insert`)."""
    changed = done.filter(col.changed_at.is_not_null())
    if changed.is_empty():
        return changed

    ids = new_ids(now, changed.height)
    requests = as_pending(changed, now)
    return requests.with_columns(
        request_id=Series(ids, dtype=String),
        attempts=lit(0, Int64),
        created_at=moment(now),
        error_message=lit(None, String),
        earlier_attempts=lit(None, String),
        reason=lit(Reason.CHANGED.value),
    )


def _finish(rows: DataFrame, status: str, now: datetime, **columns: Series) -> DataFrame:
    """Return requests in a final status, in its bucket and without a lease."""
    ended = lit(status)
    # The lease's owner and token remain, so that the row shows who finished it.
    return rows.with_columns(
        bucket=ended,
        status=ended,
        updated_at=moment(now),
        available_at=NO_TIME,
        changed_at=NO_TIME,
        lease_expires_at=NO_TIME,
        **columns,
    )


# The reasons of requests that a change of the holding may have: of a leg without a line each
# request is an OVERFLOW.
IS_CHANGE = frozenset({Reason.CHANGED, Reason.OVERFLOW})

# Account and conid; an account of None stands for any account.
Position = tuple[str | None, int]


def insert(
    snapshot: Snapshot, *, requests: Sequence[QueueRequest], now: datetime, new_ids: NewIds
) -> Change[list[str]]:
    """Add requests, at most one live request per (account, conid).

    When a position has a live request already, that request's id is the result, and its priority
    is raised if the new one is higher. A request with a reason of `IS_CHANGE` for a position that
    is PROCESSING sets `changed_at` of the live request. When the live request ends, a follow-up
    request is inserted, since the value in progress may be the old one.

    Returns:
        For each request, in order, the id of the live request of its position.
    """
    live = snapshot.live
    live_requests = _live_requests(live, requests)
    fresh: dict[Position, QueueRequest] = {}
    raised: dict[str, int] = {}
    changed_again = set()

    for request in requests:
        position = (request.account, request.conid)
        if position not in live_requests:
            first = fresh.setdefault(position, request)
            if request.priority < first.priority:
                fresh[position] = request
            continue

        request_id, status, priority = live_requests[position]
        if request.priority < raised.get(request_id, priority):
            raised[request_id] = request.priority
        if status == PROCESSING and request.reason in IS_CHANGE:
            changed_again.add(request_id)

    fresh_ids = new_ids(now, len(fresh))
    ids = {position: request_id for position, (request_id, *_) in live_requests.items()}
    ids |= zip(fresh, fresh_ids, strict=True)
    result = [ids[request.account, request.conid] for request in requests]
    if not (fresh or raised or changed_again):
        return Change(result)

    added = new_request_rows(fresh_ids, list(fresh.values()), now)
    touched = live.filter(col.request_id.is_in(raised.keys() | changed_again))
    rows = _with_news(touched, raised, changed_again, now)
    return Change(result, concat([rows, added]))


def _with_news(
    rows: DataFrame, raised: Mapping[str, int], changed_again: Collection[str], now: datetime
) -> DataFrame:
    """Return live requests with their raised priorities, and the time at which they changed."""
    raised_to = [raised.get(request_id) for request_id in rows.get_column("request_id")]
    priority = pl.coalesce(Series(raised_to, dtype=Int64), "priority")
    is_changed = col.request_id.is_in(changed_again)
    changed_at = when(is_changed).then(moment(now)).otherwise("changed_at")
    return rows.with_columns(priority=priority, changed_at=changed_at)


def _live_requests(
    live: DataFrame, requests: Sequence[QueueRequest]
) -> dict[Position, tuple[str, str, int]]:
    """Return id, status and priority of the live requests of the positions that are asked for."""
    conids = [request.conid for request in requests]
    rows = live.filter(col.conid.is_in(conids))
    positions = rows.select("account", "conid").iter_rows()
    states = rows.select("request_id", "status", "priority").iter_rows()
    return dict(zip(positions, states, strict=True))


class Action(Enum):
    """An action on requests that the caller claimed or read."""

    # Success or failure; allowed also for requests that were only read.
    MARK = auto()

    RELEASE = auto()

    # Success of claimed requests; allowed only under the caller's own lease.
    HOLD = auto()


def check_leases(
    rows: DataFrame, ids: Sequence[str], tokens: Mapping[str, str], action: Action, now: datetime
) -> list[str]:
    """Check that the caller may act on requests, in the order of their ids.

    Args:
        rows: The rows of those requests that are live.
        ids: The ids of all the requests.
        tokens: The lease tokens of the caller's claims, by request.

    Returns:
        The ids of the requests that are not live.

    Raises:
        LeaseLostError: A lease has expired, or another worker holds it.
        RequestStateError: A request is not PROCESSING.
    """
    leases = {
        request_id: lease
        for request_id, *lease in rows.select(
            "request_id", "status", "lease_token", "lease_expires_at"
        ).iter_rows()
    }
    for request_id in ids:
        if request_id not in leases:
            continue
        status, token, expires_at = leases[request_id]
        is_leased = status == PROCESSING and expires_at > now

        if request_id in tokens:  # the caller claimed it; else it only read it
            if not is_leased or token != tokens[request_id]:
                raise lease_lost(request_id)
        elif is_leased or (status == PROCESSING and action is Action.HOLD):
            raise lease_lost(request_id)
        elif status == PENDING and action is not Action.MARK:
            raise RequestStateError(
                f"The request {request_id} is PENDING.",
                remedy="Claim it first; only a claimed request has a lease.",
            )

    return [request_id for request_id in ids if request_id not in leases]


def lease_lost(request_id: str) -> LeaseLostError:
    """Return the error of a lease that the caller no longer holds."""
    return LeaseLostError(
        f"The lease on request {request_id} has expired, or another worker holds it.",
        remedy="Stop the work on it: the request was, or will be, claimed by another worker.",
    )


def release(claimed: DataFrame, now: datetime, *, reason: str) -> Change[None]:
    """Return requests to PENDING at once, without using up an attempt."""
    why = lit(reason or None, String)
    ended = with_attempt_recorded(claimed, Outcome.RELEASED, ended_at=moment(now), error=why)
    return Change(None, as_pending(ended, now))


def rescue(snapshot: Snapshot, *, now: datetime) -> Change[list[str]]:
    """Return requests with an expired lease to PENDING, without using up an attempt.

    Returns:
        Their ids.
    """
    rows = snapshot.live.filter(lease_has_expired(now))
    ids = rows.get_column("request_id").sort().to_list()
    if not ids:
        return Change(ids)
    ended = with_attempt_recorded(
        rows,
        Outcome.EXPIRED,
        ended_at=col.lease_expires_at,
        error=lit(None, String),
    )
    return Change(ids, as_pending(ended, now))


def retry(
    live: DataFrame, failed: DataFrame, siblings: DataFrame, *, now: datetime
) -> Change[list[str]]:
    """Return FAILED requests to PENDING with all their attempts.

    A request whose position has a live request already remains FAILED.

    Args:
        failed: The FAILED rows to retry, in the order of the caller's ids.
        siblings: All rows of the parts in which they are stored, since a part is rewritten whole.

    Returns:
        For each failed row the id of the live request of its position.
    """
    holders = concat([live, failed]).select(*KEY, holder="request_id")
    holders = holders.unique(KEY, keep="first", maintain_order=True)
    ids = failed.join(holders, on=KEY, how="left", nulls_equal=True, maintain_order="left")
    result = ids.get_column("holder").to_list()

    retried = ids.filter(col.request_id == col.holder).get_column("request_id")
    if retried.is_empty():
        return Change(result)

    # A row of another program may have no id; it stays.
    is_retried = col.request_id.is_in(retried.implode()).fill_null(value=False)
    ended = with_attempt_recorded(
        failed.filter(is_retried),
        Outcome.FAILED,
        ended_at=col.updated_at,
        error=col.error_message,
    )
    pending = as_pending(ended, now)
    pending = pending.with_columns(*LIVE_COLUMNS, attempts=lit(0, Int64))
    parts = in_parts(FAILED, siblings.get_column("part").unique())
    return Change(result, pending, siblings.filter(~is_retried), parts)
