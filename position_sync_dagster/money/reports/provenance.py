"""Rows of the ledger by where they come from: a run, a batch, a request, a holding."""

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.queue_request import QueuedPosition
from position_sync_dagster.lake.ledger_rows import BY_TIME
from position_sync_dagster.lake.schema import LAST, moment
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.table import Table

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

    def ids_beginning_with(self, column: str, prefix: str) -> list[str]:
        """Return the distinct ids of a column that begin with a prefix, in order.

        The statistics of files narrow `update_id` and `batch_id`; `run_id` is read from every file.
        """
        begins_so = pl.col(column).str.starts_with(prefix)
        files = self._files(column, prefix, prefix + LAST)
        rows = self._table.rows(begins_so, files, [column])
        return sorted(rows.get_column(column).unique())

    def with_id(self, column: str, value: str, *, limit: int) -> LastRows:
        """Return the last rows with this id and their batches, and count all.

        Those of a `run_id` are searched for in every file.
        """
        return self._last(pl.col(column) == value, self._files(column, value, value), limit)

    def _files(self, column: str, first: str, last: str) -> pl.Expr:
        """Return which files may have an id between two; without statistics any may."""
        if column in self._table.spec.indexed:
            return storage.may_have(column, first, last)
        return storage.EVERY

    def of_request(self, request: QueuedPosition, *, limit: int) -> LastRows:
        """Return the rows that were written for a request, and the older one that answers it.

        Searched are the files of the request's days, and those that may have its answer.

        Args:
            request: The request.
            limit: The maximum number of rows, and of batches, to return.
        """
        answer = request.update_id or request.request_id
        is_of_request = pl.col("request_id") == request.request_id
        is_answer = pl.col("update_id") == answer

        first = (request.created_at - A_DAY).date()
        last = (request.updated_at + A_DAY).date()
        is_of_days = pl.col("partition.date").is_between(first, last)
        may_have_answer = storage.may_have_one_of("update_id", pl.Series([answer]))
        return self._last(is_of_request | is_answer, is_of_days | may_have_answer, limit)

    def _last(self, wanted: pl.Expr, chosen: pl.Expr, limit: int) -> LastRows:
        def step(files: pl.DataFrame) -> LastRows:
            rows = self._table.scan_files(files.filter(chosen)).filter(wanted)
            by_batch = rows.group_by("batch_id", version="ledger_version")
            counts = pl.len().cast(pl.Int64)
            counted = by_batch.agg(rows=counts, committed_at=pl.col("committed_at").max())
            batches = counted.sort("version", "batch_id").collect()

            newest = batches.tail(limit)
            is_of_newest = pl.col("batch_id").is_in(newest.get_column("batch_id").implode())
            written = rows.filter(is_of_newest).sort(IN_ORDER)
            row_count = int(batches.get_column("rows").sum())
            return LastRows(
                count=row_count,
                batch_count=batches.height,
                batches=newest,
                rows=written.tail(limit).collect(),
            )

        return self._table.read(step)

    def of_holding(
        self,
        account: str,
        conid: int,
        *,
        day: date | None = None,
        since: datetime | None = None,
        limit: int,
    ) -> tuple[pl.DataFrame, bool]:
        """Return the newest rows of a holding in order of time, and whether there are more.

        Args:
            day: Only rows of this UTC date; None: of any.
            since: Only rows from this moment on; None: from the first.
            limit: Maximum number of rows.
        """
        only = (pl.col("account") == account) & (pl.col("conid") == conid)
        on_days = storage.EVERY
        if day is not None:
            on_days = pl.col("partition.date") == day
        if since is not None:
            on_days = pl.col("partition.date") >= since.date()
            only &= pl.col("timestamp") >= moment(since)

        rows = self._table.rows(only, on_days).sort(BY_TIME)
        return rows.tail(limit), rows.height > limit
