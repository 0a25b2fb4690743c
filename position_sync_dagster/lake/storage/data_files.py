"""The data files of a table, and which of them may hold a value, by the log alone.

For each file the log has the smallest and the greatest value of some columns (`min.NAME` and
`max.NAME`). It cuts times to milliseconds: the greatest time may be up to `_CUT` later.
"""

from datetime import datetime, timedelta
from typing import Any

import polars as pl
from deltalake import DeltaTable
from polars import DataFrame, Expr, col, lit


def data_files(handle: DeltaTable) -> DataFrame:
    """Return one row for each data file of the snapshot, from the log alone.

    Returns:
        path, size_bytes and num_records; of each partition column `partition.NAME`; of each
        indexed column `min.NAME`, `max.NAME` and `null_count.NAME`, null where the log has no
        statistics.
    """
    return DataFrame(handle.get_add_actions(flatten=True))


_CUT = timedelta(milliseconds=1)


def last_of(greatest: Any) -> Any:
    """Return the last value that the greatest one in the log's statistics may stand for."""
    if not isinstance(greatest, datetime):
        return greatest

    return greatest + _CUT


# Chooses every data file, or every row.
EVERY = lit(value=True)


def may_have(column: str, first: Any, last: Any = None) -> Expr:
    """Return which data files may hold a value from `first` to `last`, by the log's statistics.

    A file without statistics of the column may hold any value.

    Args:
        column: An indexed column.
        last: The greatest value; None: any.
    """
    greatest = col(f"max.{column}")
    if isinstance(first, datetime):
        greatest += _CUT
    overlaps = greatest >= lit(first)
    if last is not None:
        overlaps &= col(f"min.{column}") <= lit(last)
    return overlaps.fill_null(value=True)


def may_have_one_of(column: str, values: pl.Series) -> Expr:
    """Return which data files may hold one of the values, by the log's statistics.

    One of the values must lie between the smallest and the greatest of a file. It is not enough
    that the range of all of them overlaps the file: one old id among new ones would then select
    every file that was written in between.

    Args:
        column: An indexed column.
        values: The values, of the type of the column; with a null, each file may hold one.
    """
    if values.has_nulls():
        return EVERY
    greatest = col(f"max.{column}")
    if values.dtype == pl.Datetime:
        greatest += _CUT
    # One lies between the bounds if more values come before the greatest than before the smallest.
    ordered = lit(values.sort())
    behind = ordered.search_sorted(greatest, side="right")
    overlaps = behind > ordered.search_sorted(col(f"min.{column}"))
    # A null among the statistics sorts before all values.
    has_no_bound = col(f"min.{column}", f"max.{column}").is_null()
    return overlaps | pl.any_horizontal(has_no_bound)


def files_in(handle: DeltaTable, **partition: str) -> DataFrame:
    """Return one row for each data file of a partition.

    A file is never changed, and its path never used again: equal paths are equal rows.
    """
    wanted = (col(f"partition.{name}") == value for name, value in partition.items())
    return data_files(handle).filter(*wanted)


def in_bucket(bucket: str) -> Expr:
    """Return which data files have the rows of a bucket."""
    return col("partition.bucket") == bucket
