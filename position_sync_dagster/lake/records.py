"""Facts that are stored once each: executions, events, changes of positions, and causes."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Generic

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.dividends import ExpectedDividend
from position_sync_dagster.domain.execution import FLEX, Execution
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.money.past import closes


def add_unknown(
    table: Table,
    rows: pl.DataFrame,
    same: list[str],
    commit_info: Mapping[str, str],
    guard: Callable[[], object] = lambda: None,
) -> int:
    """Append the rows that the table does not have, in one commit; return how many.

    Only files are read that may have one of the rows, by the log's statistics.

    Args:
        same: A row is known if a row of the table, or one before it, equals it in these columns. A
            row of a statement is stored again if otherwise a row that an older statement stated
            would count.
        guard: Called right before each attempt to commit; its error ends the attempts.
    """

    def step(handle: DeltaTable) -> int:
        files = storage.data_files(handle)
        is_stated = "stated_at" in rows.columns and "stated_at" not in same
        compared = same
        columns = same
        if is_stated:  # a statement may correct all but the id
            compared = same[:1]
            columns = [*same, "stated_at"]

        for column in compared:
            if column in table.spec.indexed and column in rows.columns:
                values = rows.get_column(column)
                files = files.filter(storage.may_have_one_of(column, values))

        present = table.read_rows(files, columns)
        unknown = rows.join(present, on=same, how="anti", nulls_equal=True, maintain_order="left")
        new = unknown.unique(same, keep="first", maintain_order=True)

        if is_stated:
            stored = pl.concat([present, new.select(present.columns)])
            again = _said_again(rows, stored, same)
            new = pl.concat([new, again])

        if not new.is_empty():
            guard()
            # Concurrent appends with equal ids conflict: each one sees what the other stored.
            mark = Transaction(table.spec.name, handle.version() + 1)
            storage.write(handle, new, commit_info, [mark])

        return new.height

    return table.transact(step)


def _said_again(rows: pl.DataFrame, stored: pl.DataFrame, same: list[str]) -> pl.DataFrame:
    """Return what the newest statements say, where an older one that said otherwise would count."""
    booking = pl.col("attributes").str.extract('"transactionID": "([^"]*)"')
    name = ["account", "conid", same[0], "_booking"]  # those of `current_executions`
    newest_time = pl.col("stated_at").max().over(name)
    is_newest = pl.col("stated_at") == newest_time

    def newest_of(statements: pl.DataFrame) -> pl.DataFrame:
        of_broker = statements.filter(pl.col("source") == FLEX)
        return of_broker.with_columns(_booking=booking).filter(is_newest)

    newest = newest_of(rows)
    different = newest_of(stored).join(newest, on=same, how="anti", nulls_equal=True)
    before = different.select(*name, _before="stated_at").unique()
    joined = newest.join(before, on=name, nulls_equal=True)
    again = joined.filter(pl.col("stated_at") > pl.col("_before"))
    return again.select(rows.columns)


class RecordsTable(Generic[schema.Record]):
    """A table to which records are only added; one that it has is not added again.

    Args:
        kind: The dataclass of its rows.
        apart: Columns in which two equal records may differ: who wrote them, and from which file.
    """

    def __init__(
        self, table: Table, kind: type[schema.Record], apart: Collection[str] = ("run_id",)
    ) -> None:
        self.table = table
        self._kind = kind
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        self._same = [name for name in names if name not in apart]

    def add(
        self,
        records: Iterable[schema.Record],
        run_id: str | None = None,
        guard: Callable[[], object] = lambda: None,
    ) -> int:
        """Store the records that are not known yet, in one commit; return how many were new.

        Args:
            guard: As in `add_unknown`.
        """
        spec = self.table.spec
        rows = schema.frame_of(spec, records)
        if run_id:
            rows = rows.with_columns(run_id=pl.lit(run_id))

        if rows.is_empty():
            return 0

        info = {"action": "import", "run_id": run_id or ""}
        in_order = rows.sort(spec.order, maintain_order=True)
        return add_unknown(self.table, in_order, self._same, info, guard)

    def rows(
        self,
        since: datetime | date | None = None,
        only: pl.Expr | None = None,
        columns: Collection[str] = (),
    ) -> pl.DataFrame:
        """Return rows, in no particular order; only files are read that may have one of them.

        Args:
            since: The earliest value of the column that orders the table; None: any.
            only: Chooses rows.
            columns: Names of columns, all by default.
        """
        spec = self.table.spec
        order = self.table.spec.order
        names = [*(columns or spec.columns)]
        chosen = storage.EVERY
        wanted = storage.EVERY if only is None else only
        if since is not None:
            first = schema.moment(since) if isinstance(since, datetime) else pl.lit(since)
            chosen = storage.may_have(order, since)
            wanted = wanted & (pl.col(order) >= first)

        return self.table.rows(wanted, chosen, names)

    def files(self, until: datetime | None = None) -> frozenset[str]:
        """Return the names of the files that may have a row of before a time; None: of all."""
        files = self.table.snapshot(storage.data_files)
        first = f"min.{self.table.spec.order}"
        if until is not None:
            is_before = pl.col(first) < pl.lit(until)
            files = files.filter(is_before.fill_null(value=True))
        return frozenset(files.get_column("path"))

    def records(
        self, since: datetime | date | None = None, only: pl.Expr | None = None
    ) -> list[schema.Record]:
        """Return rows as records, in the table's order; see `rows`."""
        rows = self.rows(since, only)
        in_order = rows.sort(self.table.spec.order, self._same[0])
        return schema.records_of(self._kind, in_order)


class ExecutionsTable(RecordsTable[Execution]):
    """The table `executions`: a row of each source, and of each correction, of an execution."""

    def __init__(self, table: Table) -> None:
        super().__init__(table, Execution, ("run_id", "statement", "stated_at"))

    def read(self) -> pl.DataFrame:
        """Return, for each execution, the row that counts; oldest first."""
        current = closes.current_executions(self.records())
        return schema.frame_of(self.table.spec, current)


def events_table(table: Table) -> RecordsTable[closes.StatementEvent]:
    """Return the table `statement_events`."""
    return RecordsTable(table, closes.StatementEvent, ("run_id", "statement", "stated_at"))


def changes_table(table: Table) -> RecordsTable[PositionChange]:
    """Return the table `position_changes`, which has each change of a quantity once, by its id."""
    names = {field.name for field in fields(PositionChange)} - {"change_id"}
    return RecordsTable(table, PositionChange, names)


class DividendsTable(RecordsTable[ExpectedDividend]):
    """The table `dividends`: what was expected of underlyings, and since when."""

    def __init__(self, table: Table) -> None:
        super().__init__(table, ExpectedDividend)

    def current(self) -> list[ExpectedDividend]:
        """Return the dividends that were seen last of each underlying and source, next first."""
        newest = pl.col("seen_at").max().over("conid", "source")
        current = self.table.rows().filter(pl.col("seen_at") == newest)
        in_order = current.sort("conid", "source", "ex_date")
        return schema.records_of(ExpectedDividend, in_order)


class RiskScenariosTable:
    """The table `risk_scenarios`: what each strategy would lose, at each time it was computed."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def record(self, rows: Iterable[Mapping[str, object]]) -> int:
        """Store the rows of one time, each once, in one commit; return how many were new."""
        frame = schema.frame_of(self.table.spec, rows)
        if frame.is_empty():
            return 0
        return add_unknown(self.table, frame, list(self.table.spec.key), {"action": "record"})

    def latest(self) -> pl.DataFrame:
        """Return the rows of the newest time."""
        rows = self.table.rows()
        return rows.filter(pl.col("made_at") == pl.col("made_at").max())


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAt:
    """The last look of this process at all closes that may be judged.

    Attributes:
        since: When the first close was seen that is to be looked at again.
        until: The end of the days whose facts were complete.
        files: The files that may have facts of these days.
    """

    since: datetime
    until: datetime
    files: frozenset[str]


class ClosuresTable(RecordsTable[closes.Closure]):
    """The table `closures`: the causes of closes, the provisional and the stated ones.

    A cause that counted before may count again: it is stored with the time of each judgement.

    Attributes:
        looked: Kept here, since each look at the closes of weeks costs what they are.
    """

    def __init__(self, table: Table) -> None:
        super().__init__(table, closes.Closure)
        self.looked: LookedAt | None = None

    def current_rows(
        self,
        only: pl.Expr | None = None,
        since: datetime | None = None,
        columns: Collection[str] = tuple(schema.CLOSURES.columns),
    ) -> pl.DataFrame:
        """Return, for each close, the causes that count: those judged last.

        Args:
            only: Chooses rows; the others do not count.
            since: The earliest time at which closes were judged; None: any.
            columns: Names of columns. With `closed_at` the oldest come first.
        """
        names = {"change_id", "judged_at", "cause", *columns}
        rows = self.rows(since, only, sorted(names))
        last = pl.col("judged_at").max().over("change_id")
        counted = rows.filter(pl.col("judged_at").eq_missing(last))
        if "closed_at" in columns:
            counted = counted.sort("closed_at", "change_id", "cause")
        return counted.select(list(columns))

    def current(
        self, only: pl.Expr | None = None, since: datetime | None = None
    ) -> list[closes.Closure]:
        """Return the rows of `current_rows` as records."""
        return schema.records_of(closes.Closure, self.current_rows(only, since))
