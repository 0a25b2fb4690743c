"""The trades that the broker stated, each stored once."""

from collections.abc import Iterable
from dataclasses import fields

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.statement import Execution
from position_sync_dagster.lake.schema.codec import frame_of
from position_sync_dagster.lake.schema.tables import EXECUTIONS
from position_sync_dagster.lake.storage.frames import append, scan
from position_sync_dagster.lake.storage.table import Table

WRITER = "executions"
"""The application id in the Delta transaction of every append. Concurrent appends with equal ids
conflict, so that each one sees what the other stored."""

_FIELDS = tuple(field.name for field in fields(Execution))


class ExecutionsTable:
    """The table `executions`: one row per execution."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def add(self, executions: Iterable[Execution], run_id: str | None = None) -> int:
        """Store the executions that are not known yet, in one commit; return how many were new."""
        named = ({name: getattr(one, name) for name in _FIELDS} for one in executions)
        rows = frame_of(EXECUTIONS, (row | {"run_id": run_id} for row in named)).unique(
            "execution_id", keep="first", maintain_order=True
        )
        if rows.is_empty():
            return 0

        def step(handle: DeltaTable) -> int:
            known = scan(handle, EXECUTIONS, columns=["execution_id"])
            new = rows.join(known, on="execution_id", how="anti").sort("time", "execution_id")
            if not new.is_empty():
                info = {"action": "import", "run_id": run_id or ""}
                append(handle, new, info, [Transaction(WRITER, handle.version() + 1)])
            return new.height

        return self.table.transact(step)

    def read(self) -> pl.DataFrame:
        """Return all executions, oldest first."""
        return self.table.rows().sort("time", "execution_id")
