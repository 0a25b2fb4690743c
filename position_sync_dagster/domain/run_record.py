"""The record of a run: one row of the table `runs`."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RunResult(StrEnum):
    """The result of a run.

    LOST: it was killed and recorded no end, as its rows or its Dagster run show.
    """

    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    LOST = "LOST"


class RecordedBy(StrEnum):
    """Who wrote the record: the run itself, or `position-sync audit verify` from its rows."""

    RUN = "RUN"
    AUDIT = "AUDIT"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The record of one step of a run. A later record of the same step replaces an earlier one.

    None is unknown or does not apply; zero is zero.

    Attributes:
        run_id: The Dagster run, as in the rows that it wrote.
        step: The step of the run, named like the table or the work.
        job: The Dagster job; null in a record rebuilt from rows.
        result: RUNNING, SUCCESS, FAILED, STOPPED or LOST (killed).
        reason: Why it failed or stopped, or what it left undone; null when all is done.
        started_at: When the step began (UTC); in a record rebuilt from rows, its first commit.
        ended_at: When the step ended (UTC); null while it runs and where nobody knows.
        recorded_at: When this record was written (UTC); the newest of a step counts.
        recorded_by: RUN (the run itself), or AUDIT (rebuilt from the rows that it wrote).
        gateway_id: "host:port" of the gateway; null if unknown.
        session_id: The session of gateway_sessions of a stream; null for other runs.
        host: The machine on which it ran; null if unknown.
        partitions: First and last day of a run over days, as 2026-01-02...2026-01-09; else null.
        table_name: The table to which the rows, commits and versions belong.
        rows: Rows written to that table, or that a derived one has then.
        commits: Commits that hold them; null if unknown.
        version_from: Version of the table before the first of the commits. The rows of the run have
            version_from < ledger_version <= version_to and its run_id.
        version_to: Version of the table after the last commit.
        first_batch_id: batch_id of its first commit; batch ids sort by time.
        last_batch_id: batch_id of its last commit.
        claimed: Requests claimed by a drain.
        succeeded: Requests that ended with a value.
        failed: Requests that failed.
        released: Requests returned without a value.
        enqueued: Requests put into the queue.
    """

    run_id: str
    step: str
    job: str | None
    result: RunResult
    reason: str | None = None
    started_at: datetime
    ended_at: datetime | None = None
    recorded_at: datetime
    recorded_by: RecordedBy = RecordedBy.RUN
    gateway_id: str | None = None
    session_id: str | None = None
    host: str | None = None
    partitions: str | None = None
    table_name: str | None = None
    rows: int | None = None
    commits: int | None = None
    version_from: int | None = None
    version_to: int | None = None
    first_batch_id: str | None = None
    last_batch_id: str | None = None
    claimed: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    released: int | None = None
    enqueued: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether the step has not recorded its end yet."""
        return self.result is RunResult.RUNNING
