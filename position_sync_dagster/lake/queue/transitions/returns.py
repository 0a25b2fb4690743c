"""Requests that become PENDING again: released, rescued, or retried by a person."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import polars as pl

from position_sync_dagster.lake.queue.transitions.request_rows import (
    as_pending,
    has_id,
    lease_has_expired,
)
from position_sync_dagster.lake.schema.partitions import LIVE_COLUMNS, PartRange
from position_sync_dagster.lake.storage.lifecycle_table import Change

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
