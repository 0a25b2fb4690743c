"""Rows of the ledger, read from the files that may hold them, and the newest row of each holding.

Files are chosen by the statistics in the log, and read directly. The newest rows are kept up to
date by reading only what was added.

`ledger_version` is the version of the ledger that added a row. `clock_resets` of a row counts how
often, until then, a writer's clock was behind a time that the ledger had already: only among rows
with the same number do their times say which one is newer.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import polars as pl
from deltalake import DeltaTable
from polars import DataFrame, LazyFrame, Series, col, concat

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import WAITED_OUT
from position_sync_dagster.domain.holding import KEY
from position_sync_dagster.lake.storage.commits import T
from position_sync_dagster.lake.storage.data_files import data_files, may_have, may_have_one_of
from position_sync_dagster.lake.storage.table import Table


def stored_ids(table: Table, files: DataFrame, column: str, ids: pl.Series) -> set[str]:
    """Return which of the ids a column holds; reads only the files that may hold one."""
    files = files.filter(may_have_one_of(column, ids))
    if files.is_empty():
        return set()

    is_wanted = col(column).is_in(ids.unique().implode())
    stored = table.scan_files(files).select(column).filter(is_wanted)
    return set(stored.collect()[column])


def read_between(
    table: Table, first: datetime, last: datetime, step: Callable[[LazyFrame], T]
) -> T:
    """Read from the rows with `first` <= timestamp <= `last`, in the files that may hold one.

    Args:
        table: The table, with a partition for each UTC date.
        first: The start; one without a time zone is local time.
        last: The end, likewise.
        step: Reads the rows that it is given; it may run more than once.
    """
    first = first.astimezone(UTC)
    last = last.astimezone(UTC)
    is_of_days = col("partition.date").is_between(first.date(), last.date())
    is_within = col.timestamp.is_between(first, last)
    return table.read(
        lambda files: step(table.scan_files(files).filter(is_within)),
        is_of_days & may_have("timestamp", first, last),
    )


def added_after(table: Table, files: DataFrame, version: int) -> LazyFrame:
    """Return the rows that commits after a version added."""
    files = files.filter(col("max.ledger_version") > version)
    return table.scan_files(files).filter(col.ledger_version > version)


def added_by(table: Table, files: DataFrame, version: int) -> LazyFrame:
    """Return the rows that the commit of a version added."""
    around = files.filter(may_have("ledger_version", version, version))
    return table.scan_files(around).filter(col.ledger_version == version)


def last_added(files: DataFrame) -> int:
    """Return the greatest `ledger_version` of the files, from the log alone; 0 where none is."""
    return _greatest(files["max.ledger_version"])


def _greatest(versions: Series) -> int:
    """Return the greatest version; 0 where none is known."""
    greatest = versions.max()
    return greatest if isinstance(greatest, int) else 0


# The order of rows by their times, whatever the order in which they were written.
BY_TIME = ["timestamp", "update_id"]


def clock_resets(files: DataFrame, now: datetime) -> int:
    """Return the `clock_resets` of rows that are added now, from the log alone.

    One reset more than the rows before have, if one of them has a later time than now: then a clock
    was ahead when it was written, or was set back since. Of rows from before earlier resets the
    times say nothing. A small step back (`WAITED_OUT`) is none: clocks here wait it out.

    Args:
        files: The data files of the ledger.
        now: The time by the clock of the writer.
    """
    resets = files["max.clock_resets"].fill_null(0)
    count: Any = resets.max() or 0
    newest: Any = files.filter(resets == count)["max.timestamp"].max()
    was_ahead = newest is not None and now < newest - WAITED_OUT
    return int(count + was_ahead)


# When rows were committed; rows of older releases count from their timestamp.
COMMITTED = pl.coalesce("committed_at", "timestamp")


def newest_rows(rows: LazyFrame) -> DataFrame:
    """Return the newest row of each holding.

    It is the one with the greatest timestamp, since rows may be written late; but a row from before
    a reset of a clock is older than each row from after it.
    """
    # Two passes: the first reads a few columns and returns the newest time of each holding, the
    # second all columns of the rows that have it. Two of one holding with equal times are rare, and
    # the id decides; sorting each holding by id would cost ten times the rest.
    counted = rows.with_columns(col.clock_resets.fill_null(0))
    latest = counted.group_by(*KEY, "clock_resets").agg(col.timestamp.max())
    tops = latest.collect().sort("clock_resets").unique(KEY, keep="last")
    of_tops = counted.join(tops.lazy(), on=[*KEY, "clock_resets", "timestamp"])
    newest = of_tops.collect()
    if newest.height > tops.height:
        newest = newest.sort("update_id").unique(KEY, keep="last")
    return newest


def newest_version(rows: DataFrame) -> int:
    """Return the greatest `ledger_version` of rows; 0 where none has one."""
    return _greatest(rows["ledger_version"])


class LatestRows:
    """The newest rows of one ledger.

    The first read begins with the known rows, those of another table: the newest rows that an
    earlier version of the ledger had, as `latest_positions` keeps them. Without them it reads the
    whole ledger. Later reads read what was added since.

    Args:
        table: The ledger.
        known: The table with the known rows; None: there are none.
    """

    def __init__(self, table: Table, known: Table | None = None) -> None:
        self._table = table
        self._known = known
        self._mutex = Lock()
        # What was read: the generation of the table, the greatest `ledger_version`, and the rows.
        self._generation = 0
        self._through = 0
        self._rows = table.spec.empty

    def read_through(self) -> tuple[DataFrame, int]:
        """Return the newest row of each holding that the known rows have or that came since.

        Returns:
            The rows, in the order of account and conid, and the greatest `ledger_version` that was
            looked at.
        """
        with self._mutex:
            # The known rows are read first, so that the ledger is the newer of the two.
            known = None if self._through else self._known_rows()
            self._table.snapshot(lambda handle: self._refresh(handle, known))
            return self._rows, self._through

    def _known_rows(self) -> DataFrame | None:
        """Return the known rows; None if there are none, or they cannot be read."""
        try:
            if self._known is None or not self._known.exists():
                return None

            rows = self._known.rows().with_columns(date=col.timestamp.dt.date())
            return rows.select(*self._table.spec.columns)
        except errors.LakeError:
            return None  # the ledger has them too

    def _refresh(self, handle: DeltaTable, known: DataFrame | None) -> None:
        """Read what was added since the last read; at first, and after rows were taken back, all.

        Args:
            handle: The ledger.
            known: The known rows, with which a first read begins; None: without them.
        """
        # Rows are only added: of those that were read the newest stays the newest, and the next
        # read needs only the rows that came since. A merge writes old rows into new files: it adds
        # none.
        files = data_files(handle)
        generation = self._table.cache_key(handle)[0]
        last = last_added(files)
        # The generation grows when the table may have been created again or restored. A smaller
        # version: somebody took rows back, such as with `DeltaTable.restore`.
        if generation != self._generation or last < self._through:
            self._generation = generation
            self._through = 0

        if not self._through:
            self._rows = newest_rows(self._first_rows(files, known)).sort(KEY)
        elif last > self._through:
            self._take(added_after(self._table, files, self._through).collect())
        self._through = last

    def _first_rows(self, files: DataFrame, known: DataFrame | None) -> LazyFrame:
        """Return as few rows as possible that include the newest row of each holding.

        The known rows may lack holdings that were closed long ago; then these are left out.

        Each commit has a greater version than those before it. Only rows that were added after
        the known ones can be newer than they are, whatever the clocks said. The known ones are not
        used if the ledger no longer has the last of them: somebody took rows back.
        """
        through = 0 if known is None else newest_version(known)
        if known is None or not through:
            return self._table.scan_files(files)

        last_ids = known.filter(col.ledger_version == through)["update_id"]
        # After a repair the versions continue from an earlier one, with other rows.
        added = added_by(self._table, files, through).select("update_id").collect()
        present_ids = added["update_id"].implode()
        if not last_ids.is_in(present_ids).all():
            return self._table.scan_files(files)

        return concat([known.lazy(), added_after(self._table, files, through)])

    def _take(self, added: DataFrame) -> None:
        """Determine the newest row of each holding that has a new row."""
        # By contract: two joins by holding would cost twice as much at 20,000 holdings.
        conids = added["conid"].unique()
        is_touched = self._rows["conid"].is_in(conids.implode())
        touched = concat([self._rows.filter(is_touched), added])
        newest = newest_rows(touched.lazy())

        untouched = self._rows.filter(~is_touched)
        self._rows = concat([untouched, newest]).sort(KEY)
