"""A table whose rows change until they are finished: queue, registry, sessions and breaks.

Live rows lie in partitions of their own; each commit puts finished rows into new partitions (see
`lake/schema.py`). A change reads the live rows and replaces them, together with the parts that it
makes, in one overwrite whose predicate names partitions only; a change that only adds rows may
append instead. All changes share one application transaction, so that two changes always conflict
and one of them runs again. No change scans finished rows.

Live rows lie in the part `0`, unless a table gives each a part of its own. Changes of two parts do
not conflict if each names its part. Every other change names all live rows and conflicts with each
of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.lake.schema import LIVE, new_part
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.table import Table

T = TypeVar("T")

# The application transaction of every change: without it two appends would not conflict.
CHANGE_TRANSACTION = "change"


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """The decision of a step: the rows that change, without those that stay as they are.

    Attributes:
        result: The value for the caller.
        live: Live rows that are new or have changed; None changes nothing.
        finished: Rows that are no longer live, with their new `bucket`; None if there are none.
        reopened: The predicate of finished rows to replace, which are in `live` or `finished`.
        replaced: The live rows of the snapshot that `live` and `finished` replace: a mask, or True
            for all of them and False for none.
    """

    result: T
    live: pl.DataFrame | None = None
    finished: pl.DataFrame | None = None
    reopened: str | None = None
    replaced: pl.Series | bool = True

    def kept(self, before: pl.DataFrame) -> pl.DataFrame:
        """Return the live rows of the snapshot that stay as they are."""
        if isinstance(self.replaced, bool):
            return before.clear() if self.replaced else before
        return before.filter(~self.replaced)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of the table: its live rows in memory, its finished rows on demand.

    Attributes:
        finished: Reads finished rows, all their columns or some: those in the data files that an
            expression over the log's statistics chooses.
    """

    version: int
    live: pl.DataFrame
    finished: Callable[[pl.Expr, list[str] | None], pl.DataFrame]


Step = Callable[[Snapshot], Change[T]]


class LifecycleTable:
    """A `Table` whose rows are split into live and finished ones."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self.table = table
        self._clock = clock
        self._live: tuple[tuple[int, int], pl.DataFrame] | None = None

    def initialize(self) -> None:
        """Create, check or migrate the table."""
        self.table.initialize()

    def change(self, step: Step[T], info: Mapping[str, str], part: str = "") -> T:
        """Run a step on the newest live rows and commit its decision, all or nothing.

        Args:
            step: Decides; it runs again if another change was committed first.
            info: What the log says of the commit.
            part: The step sees and replaces the live rows of this part alone, if it has any: a
                change of another part does not conflict, and one of all live rows does.
        """
        return self.table.transact(lambda handle: self._commit(handle, step, info, part))

    def snapshot(self) -> Snapshot:
        """Read the newest live rows."""
        return self.table.snapshot(self._snapshot)

    def finished(
        self, chosen: pl.Expr = storage.EVERY, columns: list[str] | None = None
    ) -> pl.DataFrame:
        """Read the finished rows of the data files that are chosen; see `Snapshot`."""
        return self.table.snapshot(lambda handle: self._finished(handle, chosen, columns))

    def newest_finished(self, bucket: str, only: pl.Expr, limit: int) -> pl.DataFrame:
        """Read the finished rows of a bucket that changed last (`updated_at`), at most `limit`.

        Files are read from the newest on, until those that are left have older rows.
        """
        last = "max.updated_at"

        def step(handle: DeltaTable) -> pl.DataFrame:
            files = storage.files_in(handle, bucket=bucket).sort(
                last, descending=True, nulls_last=False
            )
            count = 1
            while True:
                rows = self.table.read_rows(files.head(count)).filter(only)
                newest = rows.top_k(limit, by="updated_at")
                if count >= files.height:
                    return newest
                oldest = pl.lit(storage.last_of(files[last][count]))
                if newest.filter(pl.col("updated_at") >= oldest).height == limit:
                    return newest
                count *= 2

        return self.table.snapshot(step)

    def counted_snapshot(self) -> tuple[Snapshot, pl.DataFrame]:
        """Read the live rows; count the finished ones from the log's file statistics.

        Returns:
            The live rows; and the name of each bucket, its number of rows, and the time at which
            one of them last changed (`updated_at`).
        """
        return self.table.snapshot(lambda handle: (self._snapshot(handle), _counts(handle)))

    def _snapshot(self, handle: DeltaTable) -> Snapshot:
        key = self.table.cache_key(handle)
        if self._live is None or self._live[0] != key:
            self._live = (key, self._live_rows(handle))
        return Snapshot(handle.version(), self._live[1], partial(self._finished, handle))

    def _live_rows(self, handle: DeltaTable, **part: str) -> pl.DataFrame:
        return self.table.read_rows(storage.files_in(handle, bucket=LIVE, **part))

    def _finished(
        self, handle: DeltaTable, chosen: pl.Expr, columns: list[str] | None
    ) -> pl.DataFrame:
        files = storage.data_files(handle).filter(~storage.in_bucket(LIVE), chosen)
        return self.table.read_rows(files, columns)

    def _commit(self, handle: DeltaTable, step: Step[T], info: Mapping[str, str], part: str) -> T:
        in_part = storage.files_in(handle, bucket=LIVE, part=part) if part else pl.DataFrame()
        if in_part.is_empty():
            snapshot = self._snapshot(handle)
            replaced = f"bucket = '{LIVE}'"
            transactions = [Transaction(CHANGE_TRANSACTION, handle.version() + 1)]
        else:
            rows = self._live_rows(handle, part=part)
            snapshot = Snapshot(handle.version(), rows, partial(self._finished, handle))
            replaced = storage.in_parts(LIVE, [part])
            transactions = []

        change = step(snapshot)
        if change.live is None:
            return change.result

        unchanged = change.kept(snapshot.live)
        live = pl.concat([unchanged, change.live], rechunk=True)
        if _should_append(change, unchanged, snapshot.live):
            storage.write(handle, change.live, info, transactions)
        else:
            frame, terms = self._with_finished(live, change)
            predicate = " OR ".join([replaced, *terms])
            storage.write(handle, frame, info, transactions, predicate)

        if transactions:
            self._live = (self.table.cache_key(handle), live)
        return change.result

    def _with_finished(
        self, live: pl.DataFrame, change: Change[T]
    ) -> tuple[pl.DataFrame, list[str]]:
        """Return live and finished rows, and the predicates of the finished ones."""
        terms = [] if change.reopened is None else [change.reopened]
        finished = change.finished
        if finished is None or finished.is_empty():
            return live, terms

        new = new_part(self._clock())
        buckets = sorted(finished.get_column("bucket").unique())
        terms += [storage.in_parts(bucket, [new]) for bucket in buckets]
        in_new_part = finished.with_columns(part=pl.lit(new))
        return pl.concat([live, in_new_part]), terms


def _should_append(change: Change[T], unchanged: pl.DataFrame, before: pl.DataFrame) -> bool:
    """Return whether new rows are appended: it costs a quarter less than an overwrite.

    They must at least double the live rows, so that these stay in few files.
    """
    if change.live is None or change.finished is not None or unchanged.height < before.height:
        return False
    return change.live.height >= max(before.height, 1)


def _counts(handle: DeltaTable) -> pl.DataFrame:
    """Return the buckets of finished rows, as `counted_snapshot` does, from the log alone."""
    finished = storage.data_files(handle).filter(~storage.in_bucket(LIVE))
    by_bucket = finished.group_by("partition.bucket")
    return by_bucket.agg(pl.col("num_records").sum(), pl.col("max.updated_at").max())
