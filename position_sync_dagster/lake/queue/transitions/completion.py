"""The end of an attempt: success, failure with another attempt, or final failure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

import polars as pl

from position_sync_dagster.domain.request import Answer, Reason
from position_sync_dagster.domain.retry import RetryPolicy, next_attempt
from position_sync_dagster.lake.queue.transitions.request_rows import (
    FAILED,
    PROCESSING,
    SUCCESS,
    as_pending,
    has_id,
    without_lease,
)
from position_sync_dagster.lake.schema.codec import moment
from position_sync_dagster.lake.schema.ids import NewIds
from position_sync_dagster.lake.schema.partitions import bucket_column
from position_sync_dagster.lake.storage.lifecycle_table import Change


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
