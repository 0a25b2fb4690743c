"""Leases on requests: which requests are claimed first, and how a lease is granted or renewed."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import polars as pl

from position_sync_dagster.domain.request import ACTIVE_PRIORITY
from position_sync_dagster.lake.queue.transitions.request_rows import (
    PROCESSING,
    has_id,
    is_claimable,
    is_in_future,
)
from position_sync_dagster.lake.schema.codec import moment
from position_sync_dagster.lake.storage.lifecycle_table import Change

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
