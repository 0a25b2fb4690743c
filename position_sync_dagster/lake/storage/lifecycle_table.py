"""A table of rows that live, change and end: the queue, the registry, sessions and breaks.

Live rows lie in the partition `bucket = 'live'`, ended ones in partitions of their own per commit
(`bucket`, `part`). A change reads the live part and replaces it, together with the parts that it
makes, in one overwrite whose predicate names partitions only; a change that only adds may append
instead. All changes share one application transaction. So two changes always conflict and one of
them plans again; no change ever scans what has ended; and no value reaches a predicate.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.lake.storage.ids import new_part
from position_sync_dagster.lake.storage.maintenance import tidy
from position_sync_dagster.lake.storage.partitions import (
    IS_LIVE,
    LIVE,
    in_part,
    is_finished,
)
from position_sync_dagster.lake.storage.table import Table, actions, append, overwrite, scan

T = TypeVar("T")

WRITER = "change"
"""The application transaction of every change: without it two appends would not meet."""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What a step decided.

    Attributes:
        result: What the caller gets.
        live: The whole live part afterwards; None leaves everything as it is.
        ended: Rows that leave it, with `bucket` naming where to; None for none.
        reopened: (bucket, part) of ended rows that are in `live` or `ended` now.
        added: How many rows at the end of `live` are new, if that is all that changes.
    """

    result: T
    live: pl.DataFrame | None = None
    ended: pl.DataFrame | None = None
    reopened: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    added: int = 0


class View:
    """One snapshot: its live rows, and a look at the ended ones."""

    def __init__(
        self, version: int, live: pl.DataFrame, ended: Callable[[str], pl.DataFrame]
    ) -> None:
        self.version = version
        self.live = live
        self._ended = ended

    def ended(self, predicate: str = "true") -> pl.DataFrame:
        """Read ended rows that match a predicate of constants and checked literals."""
        return self._ended(predicate)


Step = Callable[[View], Change[T]]


@dataclass(frozen=True, slots=True)
class Figures:
    """One snapshot: its live rows, and how many ended ones lie in each bucket."""

    view: View
    ended: Mapping[str, int]


class LifecycleTable:
    """A `Table` partitioned by bucket and part."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self.table = table
        self._clock = clock
        self._cached: tuple[tuple[int, int], pl.DataFrame] | None = None
        self._counted: tuple[tuple[int, int], dict[str, int]] | None = None

    def initialize(self) -> None:
        """Create, check or migrate the table."""
        self.table.initialize()

    def change(self, step: Step[T], note: Mapping[str, str]) -> T:
        """Run a step on the newest live rows and commit what it decided, all or nothing."""
        result = self.table.transact(lambda handle: self._commit(handle, step, note))
        tidy(self.table)
        return result

    def view(self) -> View:
        """Read the newest live rows."""
        return self.table.snapshot(self._view)

    def ended(self, predicate: str, columns: list[str] | None = None) -> pl.DataFrame:
        """Read ended rows."""
        return self.table.rows(is_finished(predicate), columns)

    def figures(self) -> Figures:
        """Read the live rows and count the ended ones, from the log's file statistics."""
        return self.table.snapshot(self._figures)

    def _figures(self, handle: DeltaTable) -> Figures:
        view, counted = self._view(handle), self._counted
        stamp = self.table.stamp(handle)
        if counted is None or counted[0] != stamp:
            counted = self._counted = (stamp, _ended_counts(handle))
        return Figures(view, counted[1])

    def _view(self, handle: DeltaTable) -> View:
        stamp = self.table.stamp(handle)
        cached = self._cached
        if cached is None or cached[0] != stamp:
            cached = (stamp, scan(handle, self.table.spec, IS_LIVE))
            self._cached = cached
        return View(
            handle.version(),
            cached[1],
            lambda where: scan(handle, self.table.spec, is_finished(where)),
        )

    def _commit(self, handle: DeltaTable, step: Step[T], note: Mapping[str, str]) -> T:
        change = step(self._view(handle))
        if change.live is None:
            return change.result
        marks = [Transaction(WRITER, handle.version() + 1)]
        if 2 * change.added >= change.live.height > 0:
            # Cheaper by a quarter, and at least as many rows as lie there keep the files few.
            append(handle, change.live.tail(change.added), note, marks)
        else:
            frame, predicate = self._replacement(change.live, change.ended, change.reopened)
            overwrite(handle, frame, predicate, note, marks)
        self._cached = (self.table.stamp(handle), change.live)
        return change.result

    def _replacement(
        self,
        live: pl.DataFrame,
        ended: pl.DataFrame | None,
        reopened: frozenset[tuple[str, str]],
    ) -> tuple[pl.DataFrame, str]:
        terms = [IS_LIVE]
        terms += [in_part(bucket, part) for bucket, part in sorted(reopened)]
        if ended is None or ended.is_empty():
            return live, " OR ".join(terms)
        part = new_part(self._clock())
        buckets = sorted(ended.get_column("bucket").unique())
        terms += [in_part(bucket, part) for bucket in buckets]
        moved = ended.with_columns(part=pl.lit(part))
        return pl.concat([live, moved]), " OR ".join(terms)


def _ended_counts(handle: DeltaTable) -> dict[str, int]:
    files = actions(handle)
    if files.is_empty():
        return {}
    counted = (
        files.filter(pl.col("partition.bucket") != LIVE)
        .group_by("partition.bucket")
        .agg(pl.col("num_records").sum())
    )
    return dict(counted.iter_rows())
