"""The transitions of requests: inserted, claimed, ended, released, rescued and retried; pure.

Each takes the live rows and returns a `Change`. A caller may act on requests whose lease it holds,
and on requests that it only read while nobody else holds their lease.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from random import Random
from typing import TypeVar

import polars as pl

from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.request import (
    ACTIVE_PRIORITY,
    Answer,
    QueueRequest,
    QueueStatus,
    Reason,
)
from position_sync_dagster.domain.retry import RetryPolicy, next_attempt
from position_sync_dagster.errors import LeaseLostError, RequestStateError
from position_sync_dagster.lake.schema.codec import moment, new_request_rows, request_rows
from position_sync_dagster.lake.schema.ids import NewIds
from position_sync_dagster.lake.schema.partitions import LIVE_COLUMNS, PartRange, bucket_column
from position_sync_dagster.lake.storage.lifecycle_table import Change

PENDING, PROCESSING = QueueStatus.PENDING.value, QueueStatus.PROCESSING.value
SUCCESS, FAILED = QueueStatus.SUCCESS.value, QueueStatus.FAILED.value


_NEEDED = ("request_id", "conid", "symbol", "priority", "created_at", "updated_at")
_REASONS = [reason.value for reason in Reason]
_STATUSES = [status.value for status in QueueStatus]


def is_request() -> pl.Expr:
    """Return which rows are requests, as this program writes them.

    Other Delta writers may have left rows without an id, a conid or a known status: these are
    neither claimed nor counted, and stay as they are.
    """
    known = pl.col("reason").is_in(_REASONS) & pl.col("status").is_in(_STATUSES)
    return pl.all_horizontal(pl.col(*_NEEDED).is_not_null(), known.fill_null(value=False))


def is_claimable(now: datetime, except_accounts: Collection[str] = ()) -> pl.Expr:
    """Return which rows are requests that may be claimed: PENDING, and no back-off is left.

    Args:
        now: The time.
        except_accounts: Requests that name one of these accounts may not be claimed.
    """
    waited = pl.col("available_at").is_null() | (pl.col("available_at") <= moment(now))
    found = (pl.col("status") == PENDING) & (waited | is_in_future("updated_at", now))
    return found & is_request() & is_of_others(except_accounts)


def lease_has_expired(now: datetime, except_accounts: Collection[str] = ()) -> pl.Expr:
    """Return which requests are PROCESSING under a lease that has expired; see `is_claimable`."""
    expired = pl.col("lease_expires_at") <= moment(now)
    found = (pl.col("status") == PROCESSING) & (expired | is_in_future("updated_at", now))
    return found & is_request() & is_of_others(except_accounts)


def is_of_others(accounts: Collection[str]) -> pl.Expr:
    """Return which requests name none of some accounts."""
    if not accounts:
        return pl.lit(value=True)
    return ~pl.col("account").is_in(sorted(accounts)).fill_null(value=False)


def is_in_future(column: str, now: datetime) -> pl.Expr:
    """Return which rows have a time that only a wrong clock can have written."""
    return pl.col(column) > moment(now + SKEW)


def has_id(rows: pl.DataFrame, ids: Iterable[str]) -> pl.Series:
    """Return which rows have one of the ids."""
    return rows.get_column("request_id").is_in(list(ids)).fill_null(value=False)


def without_lease(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows without owner, token and end of a lease."""
    return rows.with_columns(
        lease_owner=pl.lit(None, pl.String),
        lease_token=pl.lit(None, pl.String),
        lease_expires_at=moment(None),
    )


def as_pending(rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return the rows as PENDING: without a lease, and claimable at once."""
    return without_lease(rows).with_columns(
        status=pl.lit(PENDING), updated_at=moment(now), available_at=moment(None)
    )


_ROW = "row"


def claim_order(now: datetime, promote_after_s: float) -> list[pl.Expr]:
    """Return the sort keys of claims: priority 1 first, then the oldest request.

    A request that has waited for `promote_after_s` counts as priority 1. So a steady flow of
    requests of priority 1 cannot starve the others.
    """
    undated = is_in_future("created_at", now)
    old = undated | (pl.col("created_at") <= moment(now - timedelta(seconds=promote_after_s)))
    rank = pl.when(old).then(pl.min_horizontal("priority", ACTIVE_PRIORITY)).otherwise("priority")
    age = pl.when(undated).then(moment(None)).otherwise("created_at")  # nulls come first
    return [rank, age, pl.col("request_id")]


def claim(
    live: pl.DataFrame,
    limit: int,
    *,
    now: datetime,
    owner: str,
    token: str,
    lease_s: float,
    promote_after_s: float,
    except_accounts: Collection[str] = (),
) -> Change[pl.DataFrame]:
    """Grant up to `limit` claimable requests under one lease, none of some accounts.

    Returns:
        The granted rows, in the order of claims.
    """
    waiting = live.lazy().with_row_index(_ROW).filter(is_claimable(now, except_accounts))
    # The columns of the order alone: the other rows are not sorted whole.
    chosen = waiting.sort(claim_order(now, promote_after_s)).head(limit).select(_ROW).collect()
    rows = chosen.get_column(_ROW)
    if rows.is_empty():
        return Change(live.clear())
    granted = live[rows].with_columns(
        status=pl.lit(PROCESSING),
        updated_at=moment(now),
        available_at=moment(None),
        lease_owner=pl.lit(owner, pl.String),
        lease_token=pl.lit(token),
        lease_expires_at=moment(now + timedelta(seconds=lease_s)),
    )
    others = live.filter(~has_id(live, granted.get_column("request_id")))
    return Change(granted, pl.concat([others, granted]), unchanged=others.height)


def renew(live: pl.DataFrame, ids: Sequence[str], *, now: datetime, lease_s: float) -> Change[None]:
    """Move the end of requests' leases to `lease_s` seconds from now."""
    marked = has_id(live, ids)
    others = live.filter(~marked)
    renewed = live.filter(marked).with_columns(
        updated_at=moment(now), lease_expires_at=moment(now + timedelta(seconds=lease_s))
    )
    return Change(None, pl.concat([others, renewed]), unchanged=others.height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How one request failed."""

    error_message: str
    retryable: bool = True


def succeed(
    live: pl.DataFrame,
    ids: Sequence[str],
    *,
    answers: Mapping[str, Answer],
    now: datetime,
    new_ids: NewIds,
) -> Change[None]:
    """Finish requests as SUCCESS with the rows that answer them; insert the follow-up requests."""
    marked = has_id(live, ids)
    done = live.filter(marked)
    others = live.filter(~marked)
    rest = pl.concat([others, _follow_ups(done, now, new_ids)])
    finished = _answered(_finish(done, SUCCESS, now), answers)
    return Change(None, rest, finished, unchanged=others.height)


def fail(
    live: pl.DataFrame,
    failures: Mapping[str, Failure],
    *,
    now: datetime,
    policy: RetryPolicy,
    random: Random,
    new_ids: NewIds,
) -> Change[None]:
    """Return failed requests to PENDING for another attempt, or finish them as FAILED.

    Follow-up requests are inserted for those that are finished.

    Args:
        failures: By request id.
    """
    marked = has_id(live, failures)
    before, others = live.filter(marked), live.filter(~marked)
    after = _with_outcomes(before, failures, now=now, policy=policy, random=random)
    is_final = pl.col("status") == FAILED
    retried = without_lease(after.filter(~is_final)).with_columns(updated_at=moment(now))
    finished = _finish(after.filter(is_final), FAILED, now)
    finished_ids = finished.get_column("request_id").implode()
    follow_ups = _follow_ups(before.filter(pl.col("request_id").is_in(finished_ids)), now, new_ids)
    rest = pl.concat([others, retried, follow_ups])
    return Change(None, rest, finished, unchanged=others.height)


def _with_outcomes(
    rows: pl.DataFrame,
    failures: Mapping[str, Failure],
    *,
    now: datetime,
    policy: RetryPolicy,
    random: Random,
) -> pl.DataFrame:
    """Return failed rows with their next status, attempts, back-off and error message."""
    outcomes = []
    for request_id, attempts in rows.select("request_id", "attempts").iter_rows():
        failure = failures[request_id]
        following = next_attempt(
            attempts, retryable=failure.retryable, now=now, policy=policy, random=random
        )
        outcomes.append(
            (
                request_id,
                following.status.value,
                following.attempts,
                following.available_at,
                failure.error_message,
            )
        )
    changed = pl.DataFrame(
        outcomes,
        schema={
            "request_id": pl.String,
            "status": pl.String,
            "attempts": pl.Int64,
            "available_at": pl.Datetime("us", "UTC"),
            "error_message": pl.String,
        },
        orient="row",
    )
    return (
        rows.drop("status", "attempts", "available_at", "error_message")
        .join(changed, on="request_id", how="left")
        .select(rows.columns)
    )


def _follow_ups(done: pl.DataFrame, now: datetime, new_ids: NewIds) -> pl.DataFrame:
    """Return new requests for positions that changed while they were processed (see `insert`)."""
    changed = done.filter((pl.col("status") == PROCESSING) & pl.col("available_at").is_not_null())
    if changed.is_empty():
        return changed
    return as_pending(changed, now).with_columns(
        request_id=pl.Series(new_ids(now, changed.height), dtype=pl.String),
        attempts=pl.lit(0, pl.Int64),
        created_at=moment(now),
        error_message=pl.lit(None, pl.String),
        reason=pl.lit(Reason.CHANGED.value),
    )


def _answered(rows: pl.DataFrame, answers: Mapping[str, Answer]) -> pl.DataFrame:
    known = [answers.get(request_id) for request_id in rows.get_column("request_id").to_list()]
    return rows.with_columns(
        pl.Series(
            "update_id", [answer.update_id if answer else None for answer in known], pl.String
        ),
        pl.Series(
            "confirmed_at",
            [answer.confirmed_at if answer else None for answer in known],
            pl.Datetime("us", "UTC"),
        ),
    )


def _finish(rows: pl.DataFrame, status: str, now: datetime) -> pl.DataFrame:
    # The lease's owner and token remain, so that the row shows who finished it.
    return rows.with_columns(
        bucket_column(status),
        status=pl.lit(status),
        updated_at=moment(now),
        available_at=moment(None),
        lease_expires_at=moment(None),
    )


POSITION = ["account", "conid"]
"""The columns that name a position; the account may be null."""


def insert(
    live: pl.DataFrame, requests: Sequence[QueueRequest], *, now: datetime, new_ids: NewIds
) -> Change[list[str]]:
    """Add requests, at most one live request per (account, conid).

    When a position has a live request already, that request's id is the result, and its priority
    is raised if the new one is higher. A request with the reason CHANGED for a position that is
    PROCESSING sets `available_at` of the live request. Its end then inserts a new request, since
    the value in progress may be the old one.

    Returns:
        For each request, in order, the id of the live request of its position.
    """
    now_live = (
        live.filter(is_request())
        .select(*POSITION, "request_id", "status", _before="priority")
        .unique(POSITION, keep="last", maintain_order=True)
    )
    asked = request_rows(requests).join(
        now_live, on=POSITION, how="left", nulls_equal=True, maintain_order="left"
    )
    is_new = pl.col("request_id").is_null()
    first_urgent = pl.all().get(pl.col("priority").arg_min())
    fresh = asked.filter(is_new).group_by(POSITION, maintain_order=True).agg(first_urgent)
    added = new_request_rows(new_ids(now, fresh.height), fresh, now)
    is_raised = pl.col("priority") < pl.col("_before")
    is_changed = (pl.col("status") == PROCESSING) & (pl.col("reason") == Reason.CHANGED.value)
    again = (
        asked.filter(~is_new)
        .group_by("request_id")
        .agg(_raised=pl.col("priority").filter(is_raised).min(), _changed=is_changed.any())
        .filter(pl.col("_raised").is_not_null() | "_changed")
    )
    result = asked.get_column("request_id")
    if not added.is_empty():
        ids = asked.select(POSITION).join(
            added, on=POSITION, how="left", nulls_equal=True, maintain_order="left"
        )
        result = result.fill_null(ids.get_column("request_id"))
    answer = result.to_list()
    if added.is_empty() and again.is_empty():
        return Change(answer)
    if again.is_empty():
        return Change(answer, pl.concat([live, added], how="diagonal"), unchanged=live.height)
    marked = has_id(live, again.get_column("request_id"))
    others = live.filter(~marked)
    touched = (
        live.filter(marked)
        .join(again, on="request_id", how="left", maintain_order="left")
        .with_columns(
            priority=pl.coalesce("_raised", "priority"),
            available_at=pl.when("_changed").then(moment(now)).otherwise("available_at"),
        )
        .drop("_raised", "_changed")
    )
    after = pl.concat([others, touched, added], how="diagonal")
    return Change(answer, after, unchanged=others.height)


class Action(Enum):
    """An action on requests that the caller claimed or read."""

    MARK = auto()
    """Success or failure; allowed also for requests that were only read."""

    RELEASE = auto()
    RENEW = auto()


def check_leases(
    live: pl.DataFrame,
    ids: Iterable[str],
    tokens: Mapping[str, str],
    *,
    action: Action,
    now: datetime,
) -> list[str]:
    """Check that the caller may act on each live request.

    Args:
        tokens: The lease tokens of the caller's claims, by request.

    Returns:
        The ids that are not live; the caller decides what they mean.

    Raises:
        LeaseLostError: A lease has expired, or another worker holds it.
        RequestStateError: A request is not PROCESSING.
    """
    wanted = list(ids)
    found = {
        request_id: (status, token, expires_at)
        for request_id, status, token, expires_at in live.filter(has_id(live, wanted))
        .select("request_id", "status", "lease_token", "lease_expires_at")
        .rows()
    }
    for request_id in wanted:
        if request_id not in found:
            continue
        status, token, expires_at = found[request_id]
        held = status == PROCESSING and expires_at > now
        if request_id in tokens:
            if not held or token != tokens[request_id]:
                raise lease_lost(request_id)
        elif held or (status == PROCESSING and action is Action.RENEW):
            raise lease_lost(request_id)
        elif status == PENDING and action is not Action.MARK:
            raise RequestStateError(
                f"The request {request_id} is PENDING.",
                remedy="Claim it first; only a claimed request has a lease.",
            )
    return [request_id for request_id in wanted if request_id not in found]


def lease_lost(request_id: str) -> LeaseLostError:
    """Return the error of a lease that the caller no longer holds."""
    return LeaseLostError(
        f"The lease on request {request_id} has expired, or another worker holds it.",
        remedy="Stop the work on it: the request was, or will be, claimed by another worker.",
    )


T = TypeVar("T")


def release(live: pl.DataFrame, ids: Sequence[str], *, now: datetime) -> Change[None]:
    """Return requests to PENDING at once, without using up an attempt."""
    return _with_pending(None, live, has_id(live, ids), now)


def rescue(live: pl.DataFrame, *, now: datetime) -> Change[list[str]]:
    """Return requests with an expired lease to PENDING, without using up an attempt.

    Returns:
        Their ids.
    """
    expired = live.select(lease_has_expired(now)).to_series()
    ids = live.filter(expired).get_column("request_id").sort().to_list()
    return _with_pending(ids, live, expired, now) if ids else Change(ids)


def retry(
    live: pl.DataFrame,
    failed: pl.DataFrame,
    siblings: pl.DataFrame,
    parts: tuple[PartRange, ...],
    *,
    now: datetime,
) -> Change[list[str]]:
    """Return FAILED requests to PENDING with all their attempts.

    A request whose position has a live request already remains FAILED.

    Args:
        failed: The FAILED rows to retry, in the order of the caller's ids.
        siblings: All rows of the parts in which they are stored, since a part is rewritten whole.
        parts: These parts.

    Returns:
        For each failed row the id of the live request of its position.
    """
    position = ("account", "conid", "request_id")
    live_ids = {
        (account, conid): request_id
        for account, conid, request_id in live.select(position).iter_rows()
    }
    result: list[str] = []
    retried: list[str] = []
    for account, conid, request_id in failed.select(position).iter_rows():
        if (account, conid) not in live_ids:
            live_ids[account, conid] = request_id
            retried.append(request_id)
        result.append(live_ids[account, conid])
    if not retried:
        return Change(result)
    is_retried = pl.col("request_id").is_in(retried)
    pending = as_pending(failed.filter(is_retried), now).with_columns(
        *LIVE_COLUMNS, attempts=pl.lit(0, pl.Int64)
    )
    return Change(
        result,
        pl.concat([live, pending]),
        siblings.filter(~is_retried),
        parts,
        unchanged=live.height,
    )


def _with_pending(result: T, live: pl.DataFrame, returned: pl.Series, now: datetime) -> Change[T]:
    others = live.filter(~returned)
    after = pl.concat([others, as_pending(live.filter(returned), now)])
    return Change(result, after, unchanged=others.height)
