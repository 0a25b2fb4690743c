"""The data files of the ledger: chosen by the statistics in the log, and read directly."""

from collections import OrderedDict
from datetime import datetime, timedelta
from threading import Lock

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.lake.storage.frames import FILE, data_files, scan_files, uri_of
from position_sync_dagster.lake.storage.table import Table

KEPT_BYTES, KEPT_FILES = 64 * 1024, 256
"""Files up to this size that were read from an object store are kept in memory, the last so many:
one process reads the newest files for several purposes, and a file never changes."""


class LedgerFiles:
    """Reads the rows of chosen data files of one ledger."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._kept: OrderedDict[str, pl.DataFrame] = OrderedDict()
        self._mutex = Lock()

    def scan(self, files: pl.DataFrame) -> pl.LazyFrame:
        """Return the rows of these files, which are rows of `data_files`."""
        spec, parts = self._table.spec, list[pl.LazyFrame]()
        if self._table.is_remote and not files.is_empty():
            small = pl.col("size_bytes") <= KEPT_BYTES
            parts = [rows.lazy() for rows in self._rows_of(files.filter(small))]
            files = files.filter(~small)
        if not files.is_empty():
            parts.append(scan_files(self._table.path, spec, self._table.options, files))
        if not parts:
            return pl.LazyFrame(schema=spec.polars)
        rows = pl.concat([part.select(list(spec.stored)) for part in parts])
        return rows.with_columns(date=pl.col("timestamp").dt.date()).select(list(spec.polars))

    def _rows_of(self, files: pl.DataFrame) -> list[pl.DataFrame]:
        """Return the rows of each small file: of those that were read lately without a request."""
        paths = files.get_column("path").to_list()
        with self._mutex:
            missing = files.filter(~pl.col("path").is_in(list(self._kept)))
            read = self._table.read_files(missing)
            of_file = read.partition_by(FILE, as_dict=True, include_key=False)
            for path in missing.get_column("path"):
                rows = of_file.get((uri_of(self._table.path, path),))
                self._kept[path] = read.clear().drop(FILE) if rows is None else rows
            found = [self._kept[path] for path in paths]
            for path in paths:
                self._kept.move_to_end(path)
            while len(self._kept) > KEPT_FILES:
                self._kept.popitem(last=False)
        return found

    def stored_ids(self, files: pl.DataFrame, column: str, ids: pl.Series) -> set[str]:
        """Return which of the ids a column holds; reads only the files that may hold one."""
        candidates = _candidates(files, column, ids)
        if candidates.is_empty():
            return set()
        rows = self.scan(candidates).select(column)
        found = rows.filter(pl.col(column).is_in(ids.unique().implode())).collect()
        return set(found.get_column(column).to_list())

    def between(self, handle: DeltaTable, first: datetime, last: datetime) -> pl.LazyFrame:
        """Return the rows of all files that may hold one with a timestamp in this range.

        Args:
            first: The start, with a time zone.
            last: The end, with a time zone.
        """
        files = data_files(handle)
        if files.is_empty():
            return self.scan(files)
        first -= timedelta(milliseconds=1)  # the log's statistics are cut to milliseconds
        in_range = pl.col("partition.date").is_between(first.date(), last.date())
        in_range &= pl.col("min.timestamp").is_null() | (pl.col("min.timestamp") <= last)
        in_range &= pl.col("max.timestamp").is_null() | (pl.col("max.timestamp") >= first)
        return self.scan(files.filter(in_range))

    def added_after(self, files: pl.DataFrame, version: int) -> pl.LazyFrame:
        """Return the rows that commits after a version added.

        The log has no statistics of the version while no row has one.
        """
        if "max.ledger_version" in files.columns:
            files = files.filter(pl.col("max.ledger_version") > version)
        return self.scan(files).filter(pl.col("ledger_version") > version)

    def has(self, files: pl.DataFrame, ids: pl.Series, version: int) -> bool:
        """Return whether the commit of a version added rows with all of these ids."""
        smallest, greatest = "min.ledger_version", "max.ledger_version"
        if not {smallest, greatest} <= set(files.columns):
            return False
        around = files.filter(pl.lit(version).is_between(pl.col(smallest), pl.col(greatest)))
        added = self.scan(around).filter(pl.col("ledger_version") == version).select("update_id")
        return bool(ids.is_in(added.collect().get_column("update_id").implode()).all())


def last_added(files: pl.DataFrame) -> int:
    """Return the greatest `ledger_version` of the files, from the log alone; 0 where none is."""
    if files.is_empty() or "max.ledger_version" not in files.columns:
        return 0
    last = files.get_column("max.ledger_version").max()
    return last if isinstance(last, int) else 0


def _candidates(files: pl.DataFrame, column: str, ids: pl.Series) -> pl.DataFrame:
    """Return the files that may hold one of the ids, by the log's statistics of the column.

    One of the ids must lie between the smallest and the greatest id of a file. It is not enough
    that the range of all ids overlaps the file: one old id among new ones would then select every
    file that was written in between.
    """
    if files.is_empty() or ids.is_empty():
        return files.clear()
    smallest, greatest = files.get_column(f"min.{column}"), files.get_column(f"max.{column}")
    if not greatest.has_nulls() and str(greatest.max()) < str(ids.min()):
        return files.clear()  # ids grow with the time, so that most rows of a stream are new
    ordered = ids.sort()
    hits = ordered.search_sorted(greatest, side="right") > ordered.search_sorted(
        smallest, side="left"
    )
    return files.filter(hits | smallest.is_null() | greatest.is_null())
