"""Reads of the ledger by provenance: by id, by run and by holding; pruned by the log's statistics.

A value never reaches a predicate: files are chosen by dates and by the statistics in the log, and
Polars compares the columns.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.lake.storage.table import Table, data_files, may_have
from position_sync_dagster.lake.updates.latest import BY_TIME, LedgerFiles

LAST = "\N{TILDE}"
"""Sorts after every character of an id."""

IN_ORDER = ["ledger_version", "committed_at", "timestamp", "update_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRows:
    """The last rows that were found, with their batches.

    Attributes:
        count, batch_count: The number of all rows and of all batches.
        batches: The last batches: `batch_id`, `version`, `rows`, `committed_at`.
        rows: The last rows.
    """

    count: int
    batch_count: int
    batches: pl.DataFrame
    rows: pl.DataFrame


class LedgerProvenance:
    """Finds rows of the ledger by where they come from."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._files = LedgerFiles(table)

    def ids_beginning_with(self, column: str, prefix: str) -> list[str]:
        """Return the distinct ids of a column that begin with a prefix, in order.

        The statistics of files narrow `update_id` and `batch_id`; `run_id` is read from every file.
        """
        begins, indexed = pl.col(column).str.starts_with(prefix), self._table.spec.indexed
        chosen = (
            may_have(column, prefix, prefix + LAST) if column in indexed else pl.lit(value=True)
        )
        rows = self._where(begins, chosen, [column])
        return sorted(rows.get_column(column).unique())

    def with_id(self, column: str, value: str) -> pl.DataFrame:
        """Return the rows with this `update_id` or `batch_id`, in the order of writing."""
        return self._where(pl.col(column) == value, may_have(column, value, value))

    def of_request(self, request_id: str, ids: Collection[str], since: date) -> pl.DataFrame:
        """Return the rows that answer a request.

        Args:
            ids: Ids from the time of the request; files with ids near them are searched first.
            since: No row is older; if the first search finds none, files since then are searched.
        """
        begins = [one[:13] for one in ids]  # the milliseconds of the id
        wanted = pl.col("request_id") == request_id
        near = self._where(wanted, may_have("update_id", min(begins), max(begins) + LAST))
        return self._where(wanted, pl.col("partition.date") >= since) if near.is_empty() else near

    def of_run(self, run_id: str, *, limit: int) -> LastRows:
        """Return the last rows and batches of a run and count all; reads a column of every file.

        Args:
            run_id: The run.
            limit: The maximum number of rows, and of batches, to return.
        """

        def step(handle: DeltaTable) -> LastRows:
            rows = self._files.scan(data_files(handle)).filter(pl.col("run_id") == run_id)
            batches = batches_of(rows).collect()
            newest = batches.tail(limit)
            written = rows.filter(pl.col("batch_id").is_in(newest.get_column("batch_id").implode()))
            return LastRows(
                count=int(batches.get_column("rows").sum()),
                batch_count=batches.height,
                batches=newest,
                rows=written.sort(IN_ORDER).tail(limit).collect(),
            )

        return self._table.snapshot(step)

    def of_holding(
        self, account: str, conid: int, *, day: date | None, limit: int
    ) -> tuple[pl.DataFrame, bool]:
        """Return the newest rows of a holding in order of time, and whether there are more.

        Args:
            day: Only rows of this UTC date; None: the newest, day by day until there are enough.
        """
        wanted = (pl.col("account") == account) & (pl.col("conid") == conid)

        def step(handle: DeltaTable) -> tuple[pl.DataFrame, bool]:
            files = data_files(handle)
            frames = [self._table.spec.empty]
            for one in files.get_column("partition.date").unique().sort(descending=True):
                if day is not None and one != day:
                    continue
                rows = self._files.scan(files.filter(pl.col("partition.date") == one)).filter(
                    wanted
                )
                frames.append(rows.collect())
                if sum(frame.height for frame in frames) > limit:
                    break
            found = pl.concat(frames).sort(BY_TIME)
            return found.tail(limit), found.height > limit

        return self._table.snapshot(step)

    def _where(
        self,
        wanted: pl.Expr,
        chosen: pl.Expr,
        columns: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """Return the wanted rows of the chosen files, in the order of writing."""

        def step(handle: DeltaTable) -> pl.DataFrame:
            rows = self._files.scan(data_files(handle).filter(chosen)).filter(wanted)
            return (rows.sort(IN_ORDER) if columns is None else rows.select(columns)).collect()

        return self._table.snapshot(step)


def batches_of(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row per batch: its id, version, number of rows and time of commit."""
    return (
        rows.group_by("batch_id", version="ledger_version")
        .agg(rows=pl.len().cast(pl.Int64), committed_at=pl.col("committed_at").max())
        .sort("version", "batch_id")
    )
