"""A table whose rows change until they are finished: queue, registry, sessions and breaks.

Live rows lie in partitions of their own; each commit puts finished rows into new partitions (see
`lake/schema.py`). A change reads the live rows and replaces them, together with the parts that it
makes, in one overwrite whose predicate names partitions only. Of two changes at once that name the
same partition one runs again, also where no row lies in it. No change scans finished rows.

A live row that lacks a value it needs, which only another program writes, is *incomplete*: it is in
no snapshot, and each change leaves it as it is.

Live rows lie in the part `0`, unless a table gives each a part of its own. Changes of two parts do
not conflict if each names its part. Every other change names all live rows and conflicts with each
of them.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, Generic, NamedTuple

from deltalake import DeltaTable
from polars import DataFrame, Expr, col, concat, lit

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.lake.schema import LIVE, LIVE_PART, frame_of, is_ahead, new_ids
from position_sync_dagster.lake.storage import commits
from position_sync_dagster.lake.storage.commits import T, in_parts
from position_sync_dagster.lake.storage.data_files import (
    EVERY,
    data_files,
    files_in,
    in_bucket,
    last_of,
)
from position_sync_dagster.lake.storage.table import Table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """The decision of a step: the records that change, without those that stay as they are.

    Without records nothing changes.

    Attributes:
        result: The value for the caller.
        live: Live records that are new or have changed. Those of other keys stay as they are; a
            table without a key gets all its live records.
        finished: Records that are no longer live, by the bucket of their kind.
        reopened: The predicate of finished rows that this change replaces, as `retry` does: those
            of them that go on are in `live` or `finished`. None: no finished row changes.
    """

    result: T
    live: Collection[Any] = ()
    finished: Mapping[str, Collection[Any]] = field(default_factory=dict)
    reopened: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of the table: its live rows in memory, its finished rows on demand.

    The finished rows are read while the step runs that the snapshot is given to.
    """

    version: int
    live: DataFrame
    table: Table
    handle: DeltaTable

    def finished_files(self, chosen: Expr = EVERY) -> DataFrame:
        """Return the data files with finished rows that an expression over the log chooses."""
        return data_files(self.handle).filter(~in_bucket(LIVE), chosen)

    def finished(self, chosen: Expr = EVERY, columns: list[str] | None = None) -> DataFrame:
        """Read the finished rows, all their columns or some, of the data files that are chosen."""
        return self.table.read_rows(self.finished_files(chosen), columns)

    def newest_finished(self, bucket: str, only: Expr, limit: int) -> DataFrame:
        """Read the finished rows of a bucket that changed last (`updated_at`), at most `limit`.

        Files are read from the newest on, until those that are left have older rows.
        """
        # Without statistics, a file may have the newest ones: it comes first.
        last = "max.updated_at"
        files = self.finished_files(in_bucket(bucket))
        files = files.sort(last, descending=True, nulls_last=False)
        count = 1
        while True:
            rows = self.table.read_rows(files.head(count)).filter(only)
            newest = rows.top_k(limit, by="updated_at")
            if count >= files.height:
                return newest
            # No row of the files that are left changed later than this.
            oldest = lit(last_of(files[last][count]))
            if newest.filter(col.updated_at >= oldest).height == limit:
                return newest
            count *= 2

    def counts(self, now: datetime) -> DataFrame:
        """Count the finished rows, from the log alone.

        Returns:
            The name of each bucket, its number of rows, and the time at which one of them last
            changed (`updated_at`), apart from times that a clock ahead wrote.
        """
        changed_at = col("max.updated_at").filter(~is_ahead("max.updated_at", now))
        by_bucket = self.finished_files().group_by("partition.bucket")
        return by_bucket.agg(col.num_records.sum(), changed_at.max())


Step = Callable[[Snapshot], Change[T]]


class _LiveRows(NamedTuple):
    """Live rows, and apart from them those that lack a value that they need."""

    readable: DataFrame
    incomplete: DataFrame


class LifecycleTable:
    """A `Table` whose rows are split into live and finished ones.

    `_newest` has the live rows that were read or written last, behind the key (generation and
    version) of the table that has them: the generation grows when the table was replaced.
    """

    def __init__(self, table: Table, clock: Clock) -> None:
        self.table = table
        self._clock = clock
        self._newest = ((-1, -1), _LiveRows(table.spec.empty, table.spec.empty))

    def change(self, step: Step[T], info: Mapping[str, str], part: str = "") -> T:
        """Run a step on the newest live rows and commit its decision, all or nothing.

        Args:
            step: Decides; it runs again if another change was committed first.
            info: What the log says of the commit.
            part: The step sees and replaces the live rows of this part alone, if it has any: a
                change of another part does not conflict, and one of all live rows does.
        """
        return self.table.transact(lambda handle: self._commit(handle, step, info, part))

    def read(self, step: Callable[[Snapshot], T]) -> T:
        """Read from the newest version; `step` may run more than once."""
        return self.table.snapshot(lambda handle: step(self._snapshot(handle)))

    def snapshot(self) -> Snapshot:
        """Read the newest live rows."""
        return self.table.snapshot(self._snapshot)

    def finished(
        self, chosen: Expr = EVERY, columns: list[str] | None = None, only: Expr = EVERY
    ) -> DataFrame:
        """Read the finished rows that `only` chooses, of the data files that are chosen."""
        return self.table.rows(only, ~in_bucket(LIVE) & chosen, columns)

    def _snapshot(self, handle: DeltaTable) -> Snapshot:
        # Without the incomplete rows: a change adds them again as they are.
        live = self._all_live(handle).readable
        return Snapshot(handle.version(), live, self.table, handle)

    def _all_live(self, handle: DeltaTable) -> _LiveRows:
        """Return all live rows, from memory if they are those of this version.

        A warning is logged when there are more incomplete ones than before.
        """
        key = self.table.cache_key(handle)
        before, rows = self._newest
        if before != key:
            incomplete_before = rows.incomplete.height
            rows = self._read_live(files_in(handle, bucket=LIVE))
            self._newest = (key, rows)
            if rows.incomplete.height > incomplete_before:
                logger.warning(
                    "%d rows of %s lack a value that they need, and are left out and kept: correct "
                    "them where they were written",
                    rows.incomplete.height,
                    self.table.path,
                )
        return rows

    def _read_live(self, files: DataFrame) -> _LiveRows:
        """Read live rows, and apart from them what is in no snapshot and yet kept."""
        rows = self.table.scan_stored(files).collect()
        is_readable = self.table.spec.readable
        return _LiveRows(rows.filter(is_readable), rows.filter(~is_readable))

    def _commit(self, handle: DeltaTable, step: Step[T], info: Mapping[str, str], part: str) -> T:
        """Run a step on live rows, and write what it decides in one commit.

        Args:
            handle: The newest version, on which it is decided.
            step: Decides.
            info: What the log says of the commit.
            part: The one part of the live rows that the step sees; empty: all of them.
        """
        in_part = files_in(handle, bucket=LIVE, part=part) if part else DataFrame()
        # Also where the part has no rows: an older release may have put them into another one.
        is_whole = in_part.is_empty()
        before = self._all_live(handle) if is_whole else self._read_live(in_part)

        generation, version = self.table.cache_key(handle)
        change = step(Snapshot(version, before.readable, self.table, handle))
        finished = {bucket: records for bucket, records in change.finished.items() if records}
        if not (change.live or finished):
            return change.result

        [new] = new_ids(self._clock(), 1)  # the part of the finished rows
        changed = self._rows(change.live, LIVE, part or LIVE_PART)
        ended = [self._rows(records, bucket, new) for bucket, records in finished.items()]
        kept = self._unchanged(before.readable, chain(change.live, *finished.values()))

        terms = [f"bucket = '{LIVE}'" if is_whole else in_parts(LIVE, [part])]
        # Delta writes no row that the predicate does not choose.
        terms.extend(in_parts(bucket, [new]) for bucket in finished)
        if change.reopened is not None:
            terms.append(change.reopened)
        predicate = " OR ".join(terms)
        rows = concat([kept, changed, *ended, before.incomplete])
        commits.write(handle, rows, info, predicate=predicate)

        if is_whole:
            live = concat([kept, changed], rechunk=True)
            self._newest = ((generation, version + 1), _LiveRows(live, before.incomplete))
        return change.result

    def _rows(self, records: Collection[Any], bucket: str, part: str) -> DataFrame:
        """Return the rows of records in a part of a bucket."""
        count = len(records)
        return frame_of(self.table.spec, records, bucket=[bucket] * count, part=[part] * count)

    def _unchanged(self, rows: DataFrame, records: Iterable[Any]) -> DataFrame:
        """Return the live rows that a change leaves as they are: those of other keys.

        A table without a key, the registry's, has none: its steps return all live records.
        """
        if not self.table.spec.key:
            return rows.clear()

        [key] = self.table.spec.key
        return rows.filter(~col(key).is_in([getattr(record, key) for record in records]))
