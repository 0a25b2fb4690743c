"""Rows at intervals: the newest row of each holding in each part of a span of time."""

from datetime import datetime, timedelta

import polars as pl

from position_sync_dagster.lake.updates.latest import HOLDING

SAMPLED = [
    *HOLDING,
    "timestamp",
    "update_id",
    "symbol",
    "sec_type",
    "currency",
    "position",
    "unrealized_pnl",
    "daily_pnl",
]
"""The columns that a sample has: few, because a day has many rows."""

SHORTEST = timedelta(seconds=1)


def sample(rows: pl.LazyFrame, last: datetime, slots: int) -> pl.DataFrame:
    """Return the newest row per holding in each of `slots` equal parts up to `last`."""
    found = rows.collect()
    first = found.get_column("timestamp").min()
    if not isinstance(first, datetime):
        return found.with_columns(slot=pl.col("timestamp"))
    length = max((last - first) / slots, SHORTEST) // timedelta(microseconds=1)
    before_last = (pl.lit(last) - pl.col("timestamp")).dt.total_microseconds() // length
    ends = pl.lit(last).dt.cast_time_unit("us") - pl.duration(microseconds=before_last * length)
    return (
        found.with_columns(slot=ends)
        .sort("timestamp", "update_id")
        .unique(["slot", *HOLDING], keep="last")
        .sort("slot", *HOLDING)
    )
