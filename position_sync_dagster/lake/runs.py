"""The table `runs`: a record of each run, so that the audit trail outlives Dagster's storage."""

from collections.abc import Iterable
from datetime import date
from typing import Any

import polars as pl

from position_sync_dagster.domain.run_record import RecordedBy, RunRecord, RunResult
from position_sync_dagster.lake.schema.codec import frame_of
from position_sync_dagster.lake.schema.ids import id_literals, is_id
from position_sync_dagster.lake.schema.tables import RUNS
from position_sync_dagster.lake.storage.frames import append
from position_sync_dagster.lake.storage.maintenance import compact_if_needed
from position_sync_dagster.lake.storage.table import Table

_FIELDS = tuple(RunRecord.__dataclass_fields__)


class RunsTable:
    """The table `runs`: one row per record of a step of a run; the newest record counts.

    Records are only appended, so no run waits for the commit of another. A run that is killed
    leaves the records that it wrote, and a repair adds its own.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def record(self, records: Iterable[RunRecord]) -> None:
        """Append records in one commit, which conflicts with no other commit.

        Raises:
            LakeError: The table cannot be used.
        """
        rows = _rows(records)
        if rows.is_empty():
            return
        self.table.transact(lambda handle: append(handle, rows, {"action": "record"}))
        compact_if_needed(self.table)

    def get(self, run_id: str) -> list[RunRecord]:
        """Return the newest record of each step of a run, in the order of their start."""
        if not is_id(run_id):
            return []
        return _newest(self.table.rows(f"run_id = {id_literals([run_id])}"))

    def beginning_with(self, prefix: str) -> list[RunRecord]:
        """Return the newest record of each step of the runs whose id begins with a prefix."""
        if not is_id(prefix):
            return []
        end = prefix + "\N{TILDE}"  # sorts after every character of an id
        found = self.table.rows(f"run_id >= {id_literals([prefix])} AND run_id <= '{end}'")
        return _newest(found)

    def since(self, first: date) -> list[RunRecord]:
        """Return the newest record of each step that began on this UTC date or later."""
        return _newest(self.table.rows(f"date >= '{first.isoformat()}'"))


def _rows(records: Iterable[RunRecord]) -> pl.DataFrame:
    listed = ({name: getattr(one, name) for name in _FIELDS} for one in records)
    return frame_of(RUNS, listed).with_columns(date=pl.col("started_at").dt.date())


def _newest(frame: pl.DataFrame) -> list[RunRecord]:
    newest = (
        frame.with_columns(_ended=pl.col("result") != RunResult.RUNNING.value)
        .sort("recorded_at", "_ended")
        .unique(["run_id", "step"], keep="last", maintain_order=True)
        .sort("started_at", "run_id", "step")
    )
    return [_record_of(row) for row in newest.select(_FIELDS).iter_rows(named=True)]


def _record_of(row: dict[str, Any]) -> RunRecord:
    return RunRecord(
        **row | {"result": RunResult(row["result"]), "recorded_by": RecordedBy(row["recorded_by"])}
    )
