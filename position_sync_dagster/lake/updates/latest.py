"""The newest row of each holding, kept up to date by reading only new files."""

from datetime import datetime
from threading import Lock

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.lake.schema.table_spec import TableSpec
from position_sync_dagster.lake.storage.frames import data_files
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.updates.ledger_files import LedgerFiles, last_added

HOLDING = ["account", "conid"]
"""The columns that name a holding."""

BY_TIME = ["timestamp", "update_id"]
"""The order of rows: the newest is the last, however the rows came in."""


ADDED = "ledger_version"
"""The order in which rows were added; null, which is before all others, in older releases."""


def newest_rows(rows: pl.LazyFrame, spec: TableSpec) -> pl.DataFrame:
    """Return the newest row of each holding, also where a clock was wrong.

    The greatest timestamp wins, so that rows may be written late. But where a row of the same
    holding was added later, by a writer whose clock had not reached that timestamp yet, the two
    clocks disagree. Then the order of writing decides, which no clock can change: the rows before
    that later one do not count.
    """
    # Two passes: the first reads a few columns, the second all columns of the few newest rows.
    tops = rows.group_by(HOLDING).agg(pl.col("timestamp").max(), _last=pl.col(ADDED).max())
    found = (
        rows.join(tops, on=[*HOLDING, "timestamp"], how="inner")
        .group_by(HOLDING)
        .agg(pl.all().sort_by(BY_TIME).last())
        .collect()
    )
    newest = found.select(list(spec.columns))
    since = _contradicted_since(rows, found)
    if since.is_empty():
        return newest
    later = rows.join(since.lazy(), on=HOLDING, how="inner").filter(
        pl.col(ADDED) >= pl.col("_since")
    )
    return pl.concat(
        [
            newest.join(since, on=HOLDING, how="anti"),
            newest_rows(later.select(list(spec.columns)), spec),
        ]
    )


def _contradicted_since(rows: pl.LazyFrame, newest: pl.DataFrame) -> pl.DataFrame:
    """Return the holdings whose newest timestamp a later writer contradicts, and since which row.

    Args:
        newest: The row with the greatest timestamp of each holding; `_last` is the order of the
            row that was added last.
    """
    added = pl.col(ADDED).fill_null(-1)
    overtaken = newest.filter(pl.col("_last") > added).select(
        *HOLDING, _top=added, _limit=pl.col("timestamp") - SKEW
    )
    if overtaken.is_empty():
        return overtaken
    return (
        rows.join(overtaken.lazy(), on=HOLDING, how="inner")
        .filter(pl.col(ADDED) > pl.col("_top"), pl.col("committed_at") < pl.col("_limit"))
        .group_by(HOLDING)
        .agg(_since=pl.col(ADDED).min())
        .collect()
    )


class LatestRows:
    """The newest rows of one ledger; the first read reads the table, later ones the new files.

    Args:
        table: The ledger.
        files: Its data files.
    """

    def __init__(self, table: Table, files: LedgerFiles) -> None:
        self._table = table
        self._files = files
        self._mutex = Lock()
        self._generation = 0
        self._seen: frozenset[str] = frozenset()
        self._added: int | None = None
        self._since: datetime | None = None
        self._through = 0
        self._latest = pl.DataFrame(schema=table.spec.polars)
        self._ordered: pl.DataFrame | None = None

    def read_since(self, since: datetime) -> tuple[pl.DataFrame, int]:
        """Return the newest rows of the holdings that have one since then.

        The first call reads only files that matter for these rows, later calls only new files. Use
        either this method or `read` of one object.

        Returns:
            The rows, and the greatest `ledger_version` of the rows that were looked at.
        """
        with self._mutex:
            if self._since is None or since < self._since:
                self._forget()
                self._since = since
            rows = self._table.snapshot(self._refresh)
            recent = rows.get_column("timestamp") >= since
            # Most calls find all rows recent; a filter would copy each of them.
            return rows if recent.all() else rows.filter(recent), self._through

    def _forget(self) -> None:
        self._seen, self._added, self._latest = frozenset(), None, self._latest.clear()

    def read(self) -> pl.DataFrame:
        """Return the newest row of each holding, in the order of account and conid."""
        with self._mutex:
            rows = self._table.snapshot(self._refresh)
            if self._ordered is not rows:
                rows = self._latest = self._ordered = rows.sort(HOLDING)
            return rows

    def _refresh(self, handle: DeltaTable) -> pl.DataFrame:
        # Rows are only ever added. So the newest of the rows in the files seen does not change,
        # and another read needs only the files that came since.
        generation = self._table.cache_key(handle)[0]
        if generation != self._generation:
            self._generation = generation
            self._forget()
        files = data_files(handle)
        present = frozenset(files.get_column("path")) if not files.is_empty() else frozenset()
        new = present - self._seen
        if new:
            if self._since is not None and not self._seen:
                rows = self._files.since(files, self._since)
            else:
                rows = self._files.scan(files.filter(pl.col("path").is_in(list(new))))
            if self._added is not None:
                # A merged file has rows that were seen, and that may have been contradicted.
                rows = rows.filter((pl.col(ADDED) > self._added) | pl.col(ADDED).is_null())
            self._latest = self._with(rows)
        self._seen, self._through = present, last_added(files)
        self._added = self._through or None
        return self._latest

    def _with(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Return the newest rows after rows were added; only their holdings are decided anew."""
        if self._latest.is_empty():
            return newest_rows(rows, self._table.spec)
        added = rows.collect()
        holdings = added.select(HOLDING).unique()
        concerned = self._latest.join(holdings, on=HOLDING, how="semi")
        newest = newest_rows(pl.concat([concerned, added]).lazy(), self._table.spec)
        return pl.concat([self._latest.join(holdings, on=HOLDING, how="anti"), newest])
