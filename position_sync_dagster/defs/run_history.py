"""The recent runs of a job in Dagster's storage, as plain values for a decision."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from position_sync_dagster.sync.decisions.job_runs import JobRun, RunState

DRAIN_JOB = "drain_positions"

STREAM_JOB = "stream_positions"

CLOSE_JOB = "close_day"
IMPORT_JOB = "import_statements"
DERIVE_JOB = "derive_positions"

LOGINS = dg.DynamicPartitionsDefinition(name="logins")
"""The partitions of `stream_positions`, where a gateways file names several logins.

They are dynamic: the supervisor adds and removes them as the file says, without a reload.
"""

REFRESHED = "position_sync/refreshed"
"""The tag of a run that does nothing but refresh the logins that it names."""

REASON = "position_sync/reason"
"""The tag with the reason for which a sensor requested the run."""

RELEASED = "position_sync/given_back"
"""The tag with the number of requests that a drain released without a value."""

DRAINED = "position_sync/drained"
"""The tag of a drain run whose rows are written, whatever became of what is derived from them."""

REGISTRY_VERSION = "position_sync/registry_version"
"""The tag with the version of `active_strategies` that a run recorded."""

FAILURE_REASON = "dagster/failure_reason"
"""Dagster's tag with the reason why a run failed."""

OWN_FAULTS = frozenset({"STEP_FAILURE", "RUN_EXCEPTION", "JOB_INITIALIZATION_FAILURE"})
"""Reasons caused by the run itself; an interrupted or killed run carries another one, or none."""

_STATES = {
    dg.DagsterRunStatus.STARTING: RunState.STARTING,
    dg.DagsterRunStatus.STARTED: RunState.RUNNING,
    dg.DagsterRunStatus.CANCELING: RunState.CANCELING,
    dg.DagsterRunStatus.SUCCESS: RunState.ENDED,
    dg.DagsterRunStatus.FAILURE: RunState.FAILED,
    dg.DagsterRunStatus.CANCELED: RunState.CANCELED,
}


def recent_runs(
    instance: dg.DagsterInstance, job_name: str, *, limit: int, login: str | None = None
) -> Sequence[JobRun]:
    """Return the newest runs of a job, newest first.

    Args:
        instance: Where the runs are.
        job_name: The job.
        limit: The highest number of runs.
        login: Only runs of the partition of this login.
    """
    tags = {} if login is None else {PARTITION_NAME_TAG: login}
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name, tags=tags), limit=limit)
    return [_run_of(record) for record in records]


def _run_of(record: dg.RunRecord) -> JobRun:
    run = record.dagster_run
    state = _STATES.get(run.status, RunState.WAITING)
    launched = record.update_timestamp if state is RunState.STARTING else record.create_timestamp
    return JobRun(
        run_id=run.run_id,
        state=state,
        since=_utc(record.start_time) or launched,
        ended_at=_utc(record.end_time),
        own_fault=run.tags.get(FAILURE_REASON) in OWN_FAULTS and DRAINED not in run.tags,
        refreshed=run.tags.get(REFRESHED),
        released=int(run.tags.get(RELEASED, 0)),
        registry_version=int(run.tags[REGISTRY_VERSION]) if REGISTRY_VERSION in run.tags else None,
    )


def _utc(timestamp: float | None) -> datetime | None:
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
