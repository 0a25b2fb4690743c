"""The drain: a job over the assets of the queue's path, and the sensor that requests it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.defs.run_history import DRAIN_JOB, REASON, STREAM_JOB, recent_runs
from position_sync_dagster.defs.tick_cache import cached_instance, cached_lake
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.sync.decisions.availability import unavailable_reason
from position_sync_dagster.sync.decisions.drain_plan import (
    DrainCursor,
    Step,
    Workload,
    plan_drain,
)
from position_sync_dagster.sync.decisions.job_runs import IN_PROGRESS, JobRun, RunState, consecutive

if TYPE_CHECKING:
    from position_sync_dagster.domain.gateway_session import GatewaySession
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

MAX_RUNTIME_S = 90
"""A drain limits itself to half of this; a run that lasts longer was left behind by a crash."""

RUNS_SEEN = 6

drain_positions = dg.define_asset_job(
    DRAIN_JOB,
    selection=dg.AssetSelection.assets(*(step.value for step in Step)).without_checks(),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_runtime": str(MAX_RUNTIME_S), "dagster/max_retries": "0"},
    description="Bring up to date the registry, the queue, the values of what holds no line, and "
    "what is derived from them.",
)


@dg.sensor(
    job_name=DRAIN_JOB,
    minimum_interval_seconds=4,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Every 5 s: request a drain when requests wait, and a refresh when one is due and "
    "no stream is alive. It only reads. (The daemon checks every 5 s; an interval of 5 would miss "
    "every second check.)",
)
def drain_queue(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Request one run over the assets that have work, or skip with the numbers that explain it."""
    settings = POSITION_SYNC.read_settings()
    lake = cached_lake(settings)
    plan = plan_drain(
        observe(cached_instance(context), lake, settings, now=datetime.now(UTC)),
        DrainCursor.from_text(context.cursor),
        refresh_interval_s=settings.refresh_interval_s,
    )
    if not plan.steps:
        return dg.SensorResult(skip_reason=plan.reason, cursor=plan.cursor.to_text())
    request = dg.RunRequest(
        asset_selection=[dg.AssetKey(step.value) for step in plan.steps],
        asset_check_keys=[],
        tags={REASON: plan.reason},
    )
    return dg.SensorResult(run_requests=[request], cursor=plan.cursor.to_text())


def observe(
    instance: dg.DagsterInstance, lake: "Lake", settings: "Settings", *, now: datetime
) -> Workload:
    """Read everything that the decision needs; nothing is changed."""
    drains = recent_runs(instance, DRAIN_JOB, limit=RUNS_SEEN)
    streams = recent_runs(instance, STREAM_JOB, limit=1)
    ended = [run for run in drains if run.state not in IN_PROGRESS]
    unsuccessful_runs = consecutive(_is_unsuccessful(run) for run in ended)
    session = lake.sessions.sync.current(settings.gateway_id)
    backlog = lake.queue.sync.overview()
    claimable = backlog.claimable + backlog.expired
    return Workload(
        now=now,
        pending=backlog.counts[QueueStatus.PENDING],
        claimable=claimable,
        oldest_pending_at=backlog.oldest_pending_at,
        unavailable=_unavailable(lake, settings, session, now) if claimable else None,
        session=session,
        stream_in_progress=any(run.state in IN_PROGRESS for run in streams),
        drain_in_progress=_in_progress(drains, now),
        unsuccessful_runs=unsuccessful_runs,
        last_unsuccessful_at=ended[0].ended_at if unsuccessful_runs else None,
        released=ended[0].released if unsuccessful_runs else 0,
        registry_version=lake.registry.table.version(),
        recorded_version=next(
            (run.registry_version for run in drains if run.registry_version is not None), None
        ),
        strategies_mark=_fingerprint(settings.strategies_file),
    )


def _unavailable(
    lake: "Lake", settings: "Settings", session: "GatewaySession | None", now: datetime
) -> str | None:
    """Return why a drain could not read values now, by the rule that the drain itself uses."""
    confirmed_at = lake.broker_positions.sync.newest_confirmation(settings.gateway_id, now)
    return unavailable_reason(session, confirmed_at, settings, now)


def _is_unsuccessful(run: JobRun) -> bool:
    return run.released > 0 or (run.state is RunState.FAILED and run.own_fault)


def _in_progress(drains: Sequence[JobRun], now: datetime) -> str | None:
    for run in drains:
        if run.state in IN_PROGRESS and now - run.since < timedelta(seconds=MAX_RUNTIME_S):
            return run.run_id
    return None


def _fingerprint(path: Path | None) -> str | None:
    """Return a text that changes when the file is saved; None without a file."""
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_mtime_ns}:{stat.st_size}"
