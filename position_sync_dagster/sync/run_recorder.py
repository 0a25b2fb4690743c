"""The recorder of a run: it writes what one step of a run was into the table `runs`."""

import logging
import socket
from dataclasses import replace
from typing import Any, Self

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.run_record import RunRecord, RunResult
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.runs import SyncRuns
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.sync.run_reports import StreamReport

logger = logging.getLogger(__name__)

STREAM_JOB = "stream_positions"
STREAM_STEP = "stream_legs"

RECORD_EVERY_S = 900.0
"""How often the stream records what it did so far: a killed one is known up to then, and
`position-sync audit verify` reads the rest from its rows. Each record is one commit."""


class RunRecorder:
    """Records one step of one run.

    A record that cannot be written never ends the run: the rows are there, and name the run. The
    failure is logged, and `position-sync audit verify` makes up for it.

    Args:
        run_id: None outside Dagster: then nothing is written.

    Example:
        recorder = RunRecorder(lake.runs.sync, run_id=run_id, job="drain_positions", step="drain")
        with recorder:
            recorder.note(rows=12)
    """

    def __init__(
        self,
        runs: SyncRuns,
        *,
        run_id: str | None,
        job: str | None,
        step: str,
        gateway_id: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._runs = runs
        self._clock = clock
        now = clock()
        self._record = RunRecord(
            run_id=run_id or "",
            step=step,
            job=job,
            result=RunResult.RUNNING,
            started_at=now,
            recorded_at=now,
            gateway_id=gateway_id,
            host=socket.gethostname(),
        )

    def note(self, **columns: Any) -> None:
        """Set columns of the record; they are written with the next record."""
        self._record = replace(self._record, **columns)

    def write(self) -> None:
        """Write the record as it is now; without a run there is nothing to record."""
        if not self._record.run_id:
            return
        self._record = replace(self._record, recorded_at=self._clock())
        try:
            self._runs.record([self._record])
        except LakeError as error:
            logger.warning(
                "run %s is not recorded in %s; `position-sync audit verify --repair` rebuilds it "
                "from its rows: %s",
                self._record.run_id,
                self._runs.table.path,
                error,
            )

    def end(self, result: RunResult, reason: str | None = None) -> None:
        """Write the last record of the step."""
        self.note(result=result, reason=reason or self._record.reason, ended_at=self._clock())
        self.write()

    def __enter__(self) -> Self:
        """Begin a block whose end is recorded, however it ends but by a kill."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Record the end of the block."""
        self._end_by(error)

    async def __aenter__(self) -> Self:
        """Begin a block as `__enter__` does."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Record the end of the block, in a thread of the lake."""
        await offload(self._end_by, error)

    def _end_by(self, error: BaseException | None) -> None:
        if error is None:
            self.end(RunResult.SUCCESS)
            return
        failed = isinstance(error, Exception)
        reason = str(error) or type(error).__name__
        self.end(RunResult.FAILED if failed else RunResult.STOPPED, reason)


def stream_columns(total: StreamReport) -> dict[str, Any]:
    """Return the columns that a stream's totals fill."""
    return {
        "table_name": "position_updates",
        "reason": total.detail,
        "rows": total.rows,
        "commits": total.commits,
        "version_from": total.version_from,
        "version_to": total.version_to,
        "first_batch_id": total.first_batch_id,
        "last_batch_id": total.last_batch_id,
        "enqueued": total.enqueued,
    }
