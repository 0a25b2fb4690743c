"""Facts that are stored once each, such as changes of quantities."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime
from typing import Generic

import polars as pl
from deltalake import DeltaTable
from polars import DataFrame, Expr, lit

from position_sync_dagster.lake.schema import Record, frame_of, moment, records_of
from position_sync_dagster.lake.storage import commits
from position_sync_dagster.lake.storage.data_files import (
    EVERY,
    data_files,
    may_have,
    may_have_one_of,
)
from position_sync_dagster.lake.storage.table import Table


def add_unknown(
    table: Table,
    rows: DataFrame,
    same: list[str],
    commit_info: Mapping[str, str],
    guard: Callable[[], object] = lambda: None,
) -> int:
    """Append the rows that the table does not have, in one commit; return how many.

    Only files are read that may have one of the rows, by the log's statistics.

    Args:
        same: Columns of the rows: one is known if a row of the table, or one before it, equals it
            in these.
        guard: Called right before each attempt to commit; its error ends the attempts.
    """

    def step(handle: DeltaTable) -> int:
        # It runs again, from the newest files, when another writer was first.
        files = data_files(handle)
        for column in same:
            if column in table.spec.indexed:
                files = files.filter(may_have_one_of(column, rows[column]))

        present = table.read_rows(files, same)
        unknown = rows.join(present, on=same, how="anti", nulls_equal=True, maintain_order="left")
        new = unknown.unique(same, keep="first", maintain_order=True)

        if not new.is_empty():
            guard()
            commits.write(handle, new, commit_info, writer=table.spec.name)

        return new.height

    return table.transact(step)


class RecordsTable(Generic[Record]):
    """A table to which records are only added; one that it has is not added again.

    Args:
        kind: The dataclass of its rows.
        apart: Columns in which two equal records may differ: who wrote them, and from which file.
        same: Instead, the columns in which two equal records are equal.
    """

    def __init__(
        self,
        table: Table,
        kind: type[Record],
        apart: Collection[str] = ("run_id",),
        same: Collection[str] = (),
    ) -> None:
        self.table = table
        self._kind = kind
        # The columns in which two records are equal that are one.
        self._same = [*same] or [name for name in table.spec.columns if name not in apart]

    def add(
        self,
        records: Iterable[Record],
        run_id: str | None = None,
        guard: Callable[[], object] = lambda: None,
    ) -> int:
        """Store the records that are not known yet, in one commit; return how many were new.

        Args:
            guard: Called right before each attempt to commit; its error ends the attempts.
        """
        spec = self.table.spec
        rows = frame_of(spec, records)
        if run_id:
            rows = rows.with_columns(run_id=lit(run_id))

        if rows.is_empty():
            return 0

        info = {"action": "import", "run_id": run_id or ""}
        in_order = rows.sort(spec.order, maintain_order=True)
        return add_unknown(self.table, in_order, self._same, info, guard)

    def rows(
        self,
        since: datetime | date | None = None,
        only: Expr = EVERY,
        columns: Collection[str] = (),
    ) -> DataFrame:
        """Return rows, in no particular order; only files are read that may have one of them.

        Args:
            since: The earliest value of the column that orders the table; None: any.
            only: Chooses rows.
            columns: Names of columns, all by default.
        """
        order = self.table.spec.order
        chosen = EVERY
        if since is not None:
            first = moment(since) if isinstance(since, datetime) else lit(since)
            chosen = may_have(order, since)
            only &= pl.col(order) >= first

        return self.table.rows(only, chosen, list(columns))

    def records(self, since: datetime | date | None = None, only: Expr = EVERY) -> list[Record]:
        """Return rows as records, in the table's order.

        Args:
            since: The earliest value of the column that orders the table; None: any.
            only: Chooses rows.
        """
        rows = self.rows(since, only)
        # Of rows with equal times, by the first column of their content.
        in_order = rows.sort(self.table.spec.order, self._same[0])
        return records_of(self._kind, in_order)
