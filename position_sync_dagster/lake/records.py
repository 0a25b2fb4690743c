"""Facts that are stored once each: executions, events, changes of positions, causes of closes."""

from collections.abc import Collection, Iterable
from dataclasses import fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.closures import Closure, PositionChange
from position_sync_dagster.domain.statement import Execution, StatementEvent, current_executions
from position_sync_dagster.lake.schema.codec import frame_of
from position_sync_dagster.lake.schema.ids import literal
from position_sync_dagster.lake.schema.table_spec import columns_of
from position_sync_dagster.lake.storage.frames import append, scan
from position_sync_dagster.lake.storage.table import Table

Record = TypeVar("Record")


class RecordsTable(Generic[Record]):
    """A table to which records are only added; one that it has is not added again.

    Args:
        kind: The dataclass of its rows.
        apart: Columns in which two equal records may differ: who wrote them, and from which file.
    """

    def __init__(
        self, table: Table, kind: type[Record], apart: Collection[str] = ("run_id",)
    ) -> None:
        self.table = table
        self._kind = kind
        self._names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        self._same = [name for name in self._names if name not in apart]
        self._choices = {
            name: column.choices for name, column in columns_of(kind).items() if column.choices
        }

    def add(self, records: Iterable[Record], run_id: str | None = None) -> int:
        """Store the records that are not known yet, in one commit; return how many were new."""
        spec = self.table.spec
        named = ({name: getattr(one, name) for name in self._names} for one in records)
        rows = frame_of(spec, (row | {"run_id": run_id or row["run_id"]} for row in named)).unique(
            self._same, keep="first", maintain_order=True
        )
        if rows.is_empty():
            return 0

        def step(handle: DeltaTable) -> int:
            known = scan(handle, spec, columns=self._same)
            new = rows.join(known, on=self._same, how="anti", nulls_equal=True)
            if not new.is_empty():
                # Concurrent appends with equal ids conflict: each one sees what the other stored.
                mark = Transaction(spec.name, handle.version() + 1)
                info = {"action": "import", "run_id": run_id or ""}
                append(handle, new.sort(spec.order or self._names[0]), info, [mark])
            return new.height

        return self.table.transact(step)

    def records(self, since: datetime | date | None = None) -> list[Record]:
        """Return the rows as records, in the table's order; all of them, or those since a time."""
        order = self.table.spec.order or self._names[0]
        predicate = None if since is None else f"{order} >= {literal(since)}"
        rows = self.table.rows(predicate).sort(order, *self._same[:1])
        return [self._record(row) for row in rows.iter_rows(named=True)]

    def _record(self, row: dict[str, Any]) -> Record:
        values = {name: row[name] for name in self._names}
        for name, choices in self._choices.items():
            values[name] = None if values[name] is None else _member(choices, values[name])
        return self._kind(**values)


def _member(choices: type[StrEnum], text: str) -> StrEnum | str:
    """Return the member of an enum; the text itself where a later release added one."""
    return choices(text) if text in [one.value for one in choices] else text


class ExecutionsTable(RecordsTable[Execution]):
    """The table `executions`: a row of each source, and of each correction, of an execution."""

    def __init__(self, table: Table) -> None:
        super().__init__(table, Execution, ("run_id", "statement", "stated_at"))

    def read(self) -> pl.DataFrame:
        """Return the row that counts of each execution, oldest first."""
        kept = current_executions(self.records())
        names = {name: [getattr(one, name) for one in kept] for name in self._names}
        return frame_of(
            self.table.spec,
            (dict(zip(names, row, strict=True)) for row in zip(*names.values(), strict=True)),
        )


def events_table(table: Table) -> RecordsTable[StatementEvent]:
    """Return the table `statement_events`."""
    return RecordsTable(table, StatementEvent, ("run_id", "statement", "stated_at"))


def changes_table(table: Table) -> RecordsTable[PositionChange]:
    """Return the table `position_changes`: each change of a quantity, by its id once."""
    names = {field.name for field in fields(PositionChange)} - {"change_id"}
    return RecordsTable(table, PositionChange, names)


def closures_table(table: Table) -> RecordsTable[Closure]:
    """Return the table `closures`: the causes of closes, the provisional and the stated ones."""
    return RecordsTable(table, Closure, ("run_id", "judged_at"))
