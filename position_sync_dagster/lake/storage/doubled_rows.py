"""Rows that a table has twice: found by the statistics in the log, and removed.

A table is made of files that follow each other along the table's `order`. Rows that were merged
twice are in files that overlap in it. So the log says where to look, and only the keys of rows
there are read, however long the history is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.lake.schema.table_spec import TableSpec
from position_sync_dagster.lake.schema.tables import PARTITION_COLUMNS
from position_sync_dagster.lake.storage.frames import data_files, overwrite, rows_between, scan
from position_sync_dagster.lake.storage.table import Table

PART = PARTITION_COLUMNS[1]
"""The partition that says only which commit wrote the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubledRows:
    """Rows with a key that another row of the table has too.

    Attributes:
        surplus: How many rows there are besides one of each key.
        examples: The first of these keys, in words.
    """

    surplus: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the finding as part of a sentence."""
        return f"{self.surplus:,} rows are there more than once, such as {self.examples[0]}"


NONE_DOUBLED = DoubledRows()


def find_doubled(table: Table) -> DoubledRows:
    """Find the rows of a table that are there more than once; blocks.

    Rows with one key in files that do not overlap were written twice by somebody, and not doubled
    by a merge; they are not found.
    """
    return table.snapshot(lambda handle: _find(handle, table.spec))


def remove_doubled(table: Table) -> int:
    """Remove rows that are the same as another one in every column; return how many.

    One of each is kept. Rows of one key that differ are all kept: which one is right cannot be
    known.

    Raises:
        CommitContentionError: Others changed the rows each time; start again.
    """
    ranges = table.snapshot(lambda handle: list(_overlaps(handle, table.spec)))
    return sum(table.transact(partial(_remove, table.spec, where)) for where in ranges)


def _find(handle: DeltaTable, spec: TableSpec) -> DoubledRows:
    key = list(spec.key) or _compared(spec)
    surplus, examples = 0, list[str]()
    for predicate in _overlaps(handle, spec):
        rows = scan(handle, spec, predicate, key)
        doubled = rows.group_by(key, maintain_order=True).len().filter(pl.col("len") > 1)
        surplus += int((doubled.get_column("len") - 1).sum())
        named = (row for row in doubled.select(key[:4]).head(3).iter_rows(named=True))
        examples += [", ".join(f"{name} {value}" for name, value in row.items()) for row in named]
    return DoubledRows(surplus=surplus, examples=tuple(examples[:3]))


def _remove(spec: TableSpec, where: str, handle: DeltaTable) -> int:
    rows = scan(handle, spec, where)
    single = rows.unique(_compared(spec), keep="first", maintain_order=True)
    if single.height < rows.height:
        overwrite(handle, single, where, {"action": "remove doubled rows"})
    return rows.height - single.height


def _compared(spec: TableSpec) -> list[str]:
    return [name for name in spec.columns if name != PART or PART not in spec.partition_by]


def _overlaps(handle: DeltaTable, spec: TableSpec) -> Iterator[str]:
    """Return a predicate for each range along `order` in which files of a partition overlap."""
    files = data_files(handle)
    statistics = [f"{name}.{spec.order}" for name in ("min", "max", "null_count")]
    if spec.order is None or not set(statistics) <= set(files.columns):
        return
    names = [name for name in spec.partition_by if name != PART]
    partitions = files.group_by([f"partition.{name}" for name in names] or pl.lit(0))
    for values, same in partitions:
        partition = dict(zip(names, values, strict=False))
        ranges = same.select(statistics[:2]).drop_nulls().sort(statistics[:2])
        for first, last in _shared(ranges.iter_rows()):
            yield rows_between(spec, partition, first, last)
        if same.filter(pl.col(statistics[2]) > 0).height > 1:
            yield rows_between(spec, partition, None, None)


def _shared(ranges: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return what two or more ranges have in common, as ranges that do not overlap.

    >>> _shared([(1, 5), (4, 8), (6, 7), (9, 9), (9, 9)])
    [(4, 5), (6, 7), (9, 9)]

    Args:
        ranges: In order.
    """
    found: list[tuple[Any, Any]] = []
    through = None
    for first, last in ranges:
        if through is not None and first <= through:
            shared = (first, min(last, through))
            if found and shared[0] <= found[-1][1]:
                shared = (found[-1][0], max(found.pop()[1], shared[1]))
            found.append(shared)
        through = last if through is None else max(through, last)
    return found
