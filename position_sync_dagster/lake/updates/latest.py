"""The newest row of each holding, kept up to date by reading only new files."""

from threading import Lock

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.lake.schema.tables import TableSpec
from position_sync_dagster.lake.storage.frames import data_files
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.updates.ledger_files import LedgerFiles

HOLDING = ["account", "conid"]
"""The columns that name a holding."""

BY_TIME = ["timestamp", "update_id"]
"""The order of rows: the newest is the last, however the rows came in."""


def newest_rows(rows: pl.LazyFrame, spec: TableSpec) -> pl.LazyFrame:
    """Return the newest row of each holding."""
    # Two passes: the first reads three columns, the second all columns of the few newest rows.
    times = rows.group_by(HOLDING).agg(pl.col("timestamp").max())
    return (
        rows.join(times, on=[*HOLDING, "timestamp"], how="semi")
        .group_by(HOLDING)
        .agg(pl.all().sort_by(BY_TIME).last())
        .select(list(spec.columns))
    )


class LatestRows:
    """The newest rows of one ledger; the first read reads the table, later ones the new files."""

    def __init__(self, table: Table, files: LedgerFiles) -> None:
        self._table = table
        self._files = files
        self._mutex = Lock()
        self._generation = 0
        self._seen: frozenset[str] = frozenset()
        self._latest = pl.DataFrame(schema=table.spec.polars)

    def read(self) -> pl.DataFrame:
        """Return the newest row of each holding, in the order of account and conid."""
        with self._mutex:
            return self._table.snapshot(self._refresh)

    def _refresh(self, handle: DeltaTable) -> pl.DataFrame:
        # Rows are only ever added. So the newest of the rows in the files seen does not change,
        # and another read needs only the files that came since.
        generation = self._table.cache_key(handle)[0]
        if generation != self._generation:
            self._generation, self._seen = generation, frozenset()
            self._latest = self._latest.clear()
        files = data_files(handle)
        present = frozenset(files.get_column("path")) if not files.is_empty() else frozenset()
        new = present - self._seen
        if new:
            rows = self._files.scan(files.filter(pl.col("path").is_in(list(new))))
            joined = pl.concat([self._latest.lazy(), rows])
            self._latest = newest_rows(joined, self._table.spec).collect().sort(HOLDING)
        self._seen = present
        return self._latest
