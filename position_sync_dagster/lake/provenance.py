"""Where rows of the ledger come from: the rows of a run, a batch, a request or a holding."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

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
        is_indexed = column in self._table.spec.indexed
        chosen = storage.may_have(column, prefix, prefix + LAST) if is_indexed else storage.EVERY
        rows = self._table.rows(pl.col(column).str.starts_with(prefix), chosen, [column])
        return sorted(rows.get_column(column).unique())

    def with_id(self, column: str, value: str, *, limit: int) -> LastRows:
        """Return the last rows with this id and their batches, and count all.

        Those of a `run_id` are searched for in every file.
        """
        is_indexed = column in self._table.spec.indexed
        chosen = storage.may_have(column, value, value) if is_indexed else storage.EVERY
        return self._last(pl.col(column) == value, chosen, limit)

    def of_request(self, request: QueuedPosition, *, limit: int) -> LastRows:
        """Return the rows that were written for a request, and the older one that answers it.

        Searched are the files of the request's days, and those that may have its answer.

        Args:
            request: The request.
            limit: The maximum number of rows, and of batches, to return.
        """
        ids = pl.Series([request.update_id or request.request_id])
        a_day = timedelta(days=1)
        days = ((request.created_at - a_day).date(), (request.updated_at + a_day).date())
        wanted = pl.col("request_id") == request.request_id
        wanted |= pl.col("update_id") == ids.item()
        files = pl.col("partition.date").is_between(*days)
        return self._last(wanted, files | storage.may_have_one_of("update_id", ids), limit)

    def _last(self, wanted: pl.Expr, chosen: pl.Expr, limit: int) -> LastRows:
        def step(files: pl.DataFrame) -> LastRows:
            rows = self._table.scan_files(files.filter(chosen)).filter(wanted)
            batches = (
                rows.group_by("batch_id", version="ledger_version")
                .agg(rows=pl.len().cast(pl.Int64), committed_at=pl.col("committed_at").max())
                .sort("version", "batch_id")
                .collect()
            )
            newest = batches.tail(limit)
            written = rows.filter(pl.col("batch_id").is_in(newest.get_column("batch_id").implode()))
            return LastRows(
                count=int(batches.get_column("rows").sum()),
                batch_count=batches.height,
                batches=newest,
                rows=written.sort(IN_ORDER).tail(limit).collect(),
            )

        return self._table.read(step)

    def of_holding(
        self, account: str, conid: int, *, day: date | None, limit: int
    ) -> tuple[pl.DataFrame, bool]:
        """Return the newest rows of a holding in order of time, and whether there are more.

        Args:
            day: Only rows of this UTC date; None: the newest of all.
        """
        wanted = (pl.col("account") == account) & (pl.col("conid") == conid)
        on_day = storage.EVERY if day is None else pl.col("partition.date") == day
        rows = self._table.rows(wanted, on_day).sort(BY_TIME)
        return rows.tail(limit), rows.height > limit

    def of_holding_since(
        self, account: str, conid: int, *, since: datetime, limit: int
    ) -> tuple[pl.DataFrame, bool]:
        """Return the newest rows of a holding since a moment, and whether there are more."""
        wanted = (pl.col("account") == account) & (pl.col("conid") == conid)
        wanted &= pl.col("timestamp") >= moment(since)
        rows = self._table.rows(wanted, pl.col("partition.date") >= since.date()).sort(BY_TIME)
        return rows.tail(limit), rows.height > limit
