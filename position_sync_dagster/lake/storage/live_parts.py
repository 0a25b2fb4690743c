"""Many live rows lie in parts, so that a change of a few rows rewrites the parts of those alone.

Up to `PART_ROWS` live rows lie in the one part `0`. More lie in parts of about so many rows each.
"""

from datetime import datetime

import polars as pl

from position_sync_dagster.lake.schema.ids import new_ids
from position_sync_dagster.lake.schema.partitions import LIVE_PART

PART_ROWS = 1_000
"""Rows of a part: as many are written in about the time that the commit itself takes."""


def placed(live: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return live rows with their parts; rows that have one keep it while rows are many.

    Rows without a part of their own fill the smallest part that is there, then new ones.

    Args:
        live: All live rows after a change.
        now: Makes the names of new parts.
    """
    part = pl.col("part")
    if live.height <= PART_ROWS:
        return live.with_columns(part=pl.lit(LIVE_PART))
    loose = live.filter(part == LIVE_PART)
    if loose.is_empty():
        return live
    kept = live.filter(part != LIVE_PART)
    sizes = kept.group_by("part").len().sort("len", "part")
    room = 0
    if not sizes.is_empty():
        smallest, size = sizes.row(0)
        room = max(PART_ROWS - size, 0)
        kept = pl.concat([kept, loose.head(room).with_columns(part=pl.lit(smallest))])
    return pl.concat([kept, _in_new_parts(loose.slice(room), now)])


def placed_apart(added: pl.DataFrame, count: int, now: datetime) -> pl.DataFrame:
    """Return rows that are appended, in new parts if there are many rows then.

    Args:
        added: The rows.
        count: How many live rows there are then.
        now: Makes the names of new parts.
    """
    return added if count <= PART_ROWS else _in_new_parts(added, now)


def _in_new_parts(rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    names = [name for name in new_ids(now, -(-rows.height // PART_ROWS)) for _ in range(PART_ROWS)]
    return rows.with_columns(part=pl.Series(names[: rows.height], dtype=pl.String))


def changed_parts(
    before: pl.DataFrame, after: pl.DataFrame, decided: pl.DataFrame, unchanged: int
) -> list[str]:
    """Return the parts whose rows are not the same before and after, in the order of names.

    Without any part to name, or where there are few rows, the result is empty: all rows are to be
    written.

    Args:
        before: All live rows before a change.
        after: All live rows after it, as `placed` returned them.
        decided: The same before they were placed.
        unchanged: How many rows at the start of `decided` are rows of `before` as they were.
    """
    if max(before.height, after.height) <= PART_ROWS:
        return []
    parts = after.get_column("part")
    kept = parts.head(unchanged)
    if not kept.equals(decided.get_column("part").head(unchanged)):
        kept = kept.clear()  # some of them were placed elsewhere
    gone = _sizes(before.get_column("part")).join(_sizes(kept), on=["part", "count"], how="anti")
    return sorted(set(gone.get_column("part")) | set(parts.slice(len(kept)).unique()))


def _sizes(parts: pl.Series) -> pl.DataFrame:
    return parts.value_counts()
