"""The record of a run: one row of the table `runs`."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from position_sync_dagster.domain.column import Column


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
    """

    run_id: Annotated[str, Column("The Dagster run, as in the rows that it wrote.")]
    step: Annotated[str, Column("The step of the run, named like the table or the work.")]
    job: Annotated[str | None, Column("The Dagster job; null in a record rebuilt from rows.")]
    result: Annotated[RunResult, Column("RUNNING, SUCCESS, FAILED, STOPPED or LOST (killed).")]
    reason: Annotated[
        str | None,
        Column("Why it failed or stopped, or what it left undone; null when all is done."),
    ] = None
    started_at: Annotated[
        datetime,
        Column("When the step began (UTC); in a record rebuilt from rows, its first commit."),
    ]
    ended_at: Annotated[
        datetime | None,
        Column("When the step ended (UTC); null while it runs and where nobody knows."),
    ] = None
    recorded_at: Annotated[
        datetime, Column("When this record was written (UTC); the newest of a step counts.")
    ]
    recorded_by: Annotated[
        RecordedBy, Column("RUN (the run itself), or AUDIT (rebuilt from the rows that it wrote).")
    ] = RecordedBy.RUN
    gateway_id: Annotated[str | None, Column('"host:port" of the gateway; null if unknown.')] = None
    session_id: Annotated[
        str | None, Column("The session of gateway_sessions of a stream; null for other runs.")
    ] = None
    host: Annotated[str | None, Column("The machine on which it ran; null if unknown.")] = None
    partitions: Annotated[
        str | None,
        Column("First and last day of a run over days, as 2026-01-02...2026-01-09; else null."),
    ] = None
    table_name: Annotated[
        str | None, Column("The table to which the rows, commits and versions belong.")
    ] = None
    rows: Annotated[
        int | None, Column("Rows written to that table, or that a derived one has then.")
    ] = None
    commits: Annotated[int | None, Column("Commits that hold them; null if unknown.")] = None
    version_from: Annotated[
        int | None,
        Column(
            "Version of the table before the first of the commits. The rows of the run have "
            "version_from < ledger_version <= version_to and its run_id."
        ),
    ] = None
    version_to: Annotated[int | None, Column("Version of the table after the last commit.")] = None
    first_batch_id: Annotated[
        str | None, Column("batch_id of its first commit; batch ids sort by time.")
    ] = None
    last_batch_id: Annotated[str | None, Column("batch_id of its last commit.")] = None
    claimed: Annotated[int | None, Column("Requests claimed by a drain.")] = None
    succeeded: Annotated[int | None, Column("Requests that ended with a value.")] = None
    failed: Annotated[int | None, Column("Requests that failed.")] = None
    released: Annotated[int | None, Column("Requests returned without a value.")] = None
    enqueued: Annotated[int | None, Column("Requests put into the queue.")] = None

    @property
    def is_running(self) -> bool:
        """Whether the step has not recorded its end yet."""
        return self.result is RunResult.RUNNING
