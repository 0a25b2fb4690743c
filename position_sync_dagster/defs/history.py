"""What Dagster knows of a job's runs, as plain values to decide over."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import dagster as dg


class RunState(StrEnum):
    """Where a run stands, as far as a decision cares."""

    WAITING = "WAITING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    CANCELING = "CANCELING"
    ENDED = "ENDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


LIVING = frozenset({RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.CANCELING})
"""The states in which Dagster believes that a run lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """A run of a job as Dagster tells it.

    Attributes:
        since: When it was created or, once it began, when it began.
        ended_at: None while it lives.
        own_fault: It failed by its own error, not by being interrupted, killed or given up.
        given_back: Requests that it claimed and gave back without a single row written.
        registry_version: Delta version of `active_strategies` that it recorded.
    """

    run_id: str
    state: RunState
    since: datetime
    ended_at: datetime | None = None
    own_fault: bool = False
    given_back: int = 0
    registry_version: int | None = None


REASON = "position_sync/reason"
"""The tag by which a run says why a sensor asked for it."""

GIVEN_BACK = "position_sync/given_back"
"""The tag by which a drain says how many of its requests the broker's word does not answer."""

REGISTRY_VERSION = "position_sync/registry_version"
"""The tag by which a run says which version of `active_strategies` it recorded."""

FAILURE_REASON = "dagster/failure_reason"
"""The tag by which Dagster says why a run failed."""

OWN_FAULTS = frozenset({"STEP_FAILURE", "RUN_EXCEPTION", "JOB_INITIALIZATION_FAILURE"})
"""Reasons that lie in the run itself; an interrupted or killed run carries another, or none."""

_STATES = {
    dg.DagsterRunStatus.STARTING: RunState.STARTING,
    dg.DagsterRunStatus.STARTED: RunState.RUNNING,
    dg.DagsterRunStatus.CANCELING: RunState.CANCELING,
    dg.DagsterRunStatus.SUCCESS: RunState.ENDED,
    dg.DagsterRunStatus.FAILURE: RunState.FAILED,
    dg.DagsterRunStatus.CANCELED: RunState.CANCELED,
}


def recent_runs(instance: dg.DagsterInstance, job_name: str, *, limit: int) -> Sequence[JobRun]:
    """Give the newest runs of a job, newest first."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=limit)
    return [_run_of(record) for record in records]


def _run_of(record: dg.RunRecord) -> JobRun:
    run = record.dagster_run
    state = _STATES.get(run.status, RunState.WAITING)
    launched = record.update_timestamp if state is RunState.STARTING else record.create_timestamp
    return JobRun(
        run_id=run.run_id,
        state=state,
        since=_moment(record.start_time) or launched,
        ended_at=_moment(record.end_time),
        own_fault=run.tags.get(FAILURE_REASON) in OWN_FAULTS,
        given_back=int(run.tags.get(GIVEN_BACK, 0)),
        registry_version=int(run.tags[REGISTRY_VERSION]) if REGISTRY_VERSION in run.tags else None,
    )


def _moment(timestamp: float | None) -> datetime | None:
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
