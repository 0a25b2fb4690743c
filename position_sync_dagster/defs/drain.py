"""The drain: a job over the registry, the queue, the ledger and derived tables, and its sensor."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from position_sync_dagster import last_work
from position_sync_dagster.defs import runs
from position_sync_dagster.defs.libraries import tables, threads
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import drain_plan
from position_sync_dagster.sync.drain_plan import unavailable_reason
from position_sync_dagster.sync.supervision import IN_PROGRESS, JobRun, RunState, consecutive

MAX_RUNTIME_S = 90
"""Maximum duration of a run, in seconds; a longer one crashed. A drain uses at most half of it."""

RUNS_SEEN = 8

drain_positions = dg.define_asset_job(
    runs.DRAIN_JOB,
    selection=dg.AssetSelection.assets(*(step.value for step in drain_plan.Step)).without_checks(),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_runtime": str(MAX_RUNTIME_S), "dagster/max_retries": "0"},
    description="Update the registry, the queue, the values of positions without a line, and the "
    "derived tables.",
)


@dg.sensor(
    job_name=runs.DRAIN_JOB,
    minimum_interval_seconds=runs.SHORTEST_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks every 5 s and only reads. It requests a drain when requests wait, about "
    "once a minute while the stream runs, and a refresh when one is due and no stream is alive.",
)
@runs.fails_once
def drain_queue(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Request one run over the assets that have work, or skip with the reason and counts.

    With several logins, the refresh is a run of its own.
    """
    settings = POSITION_SYNC.read_settings()
    lake = runs.cached_lake(settings)
    plan = drain_plan.plan_drain(
        observe(runs.cached_instance(context), lake, settings, now=datetime.now(UTC)),
        drain_plan.DrainCursor.from_text(context.cursor),
        refresh_interval_s=settings.refresh_interval_s,
    )
    requests = []
    if plan.steps:
        requests.append(_request(plan.steps, plan.tag))
    if plan.refreshes:
        names = " ".join(plan.refreshes)
        requests.append(
            _request([drain_plan.Step.REFRESH], drain_plan.REFRESH_IS_DUE, {runs.REFRESHED: names})
        )
    last_work.note(last_work.SENSORS)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else plan.reason,
        cursor=plan.cursor.to_text(),
    )


def _request(
    steps: Sequence[drain_plan.Step], reason: str, tags: Mapping[str, str] | None = None
) -> dg.RunRequest:
    return dg.RunRequest(
        asset_selection=[dg.AssetKey(step.value) for step in steps],
        asset_check_keys=[],
        tags={runs.REASON: reason, **(tags or {})},
    )


def observe(
    instance: dg.DagsterInstance, lake: "tables.Lake", settings: Settings, *, now: datetime
) -> drain_plan.Workload:
    """Read the inputs of the decision; changes nothing."""
    newest = runs.recent_runs(instance, runs.DRAIN_JOB, limit=RUNS_SEEN)
    drains = [run for run in newest if run.refreshed is None]
    # Side by side: in an object store each table takes a request, and one that changed takes more.
    looked = threads.begin(lake.queue.sync.overview)
    versions = threads.begin(lake.registry.table.version)
    logins = _logins(instance, lake, settings, now)
    ended = [run for run in drains if run.state not in IN_PROGRESS]
    unsuccessful_runs = consecutive(_is_unsuccessful(run) for run in ended)
    several = len(logins) > 1
    backlog = looked.result()
    blocked = [name for state, names in logins if several and state.unavailable for name in names]
    if blocked:  # what was read need not be read again
        backlog = lake.queue.sync.overview(blocked)
    return drain_plan.Workload(
        now=now,
        pending=backlog.counts[QueueStatus.PENDING],
        claimable=backlog.claimable + backlog.expired,
        oldest_pending_at=backlog.oldest_pending_at,
        logins=tuple(state for state, _accounts in logins),
        drain_in_progress=_in_progress(drains, now),
        refresh_in_progress=_in_progress([run for run in newest if run.refreshed], now) is not None,
        unsuccessful_runs=unsuccessful_runs,
        last_unsuccessful_at=ended[0].ended_at if unsuccessful_runs else None,
        released=ended[0].released if unsuccessful_runs else 0,
        registry_version=versions.result(),
        recorded_version=next(
            (run.registry_version for run in drains if run.registry_version is not None), None
        ),
        strategies_mark=_fingerprint(settings.strategies_file),
    )


def _logins(
    instance: dg.DagsterInstance, lake: "tables.Lake", settings: Settings, now: datetime
) -> list[tuple[drain_plan.LoginState, Sequence[str]]]:
    """Return the state of each login, and its accounts if a file names them."""
    names = [login.gateway_id for login in settings.logins]
    sessions = lake.sessions.current_of(names)
    streams = runs.runs_in_progress(instance, runs.STREAM_JOB)
    owned = {name for name, session in sessions.items() if session.is_alive(now)}
    # What an owner says counts, so that the table is read for logins without one only.
    confirmed = lake.broker_positions.newest_confirmations(set(names) - owned, now)
    return [
        (
            drain_plan.LoginState(
                name=(name := login.gateway_id),
                session=sessions.get(name),
                stream_in_progress=bool(
                    streams if settings.gateways_file is None else streams.get(name)
                ),
                # The same rule as in the drain.
                unavailable=unavailable_reason(sessions.get(name), confirmed.get(name), login, now),
            ),
            login.accounts or (),
        )
        for login in settings.logins
    ]


def _is_unsuccessful(run: JobRun) -> bool:
    return run.released > 0 or (run.state is RunState.FAILED and run.own_fault)


def _in_progress(drains: Sequence[JobRun], now: datetime) -> str | None:
    for run in drains:
        if run.state in IN_PROGRESS and now - run.since < timedelta(seconds=MAX_RUNTIME_S):
            return run.run_id
    return None


def _fingerprint(path: Path | None) -> str | None:
    """Return a fingerprint of the file's last save; None without a file."""
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_mtime_ns}:{stat.st_size}"
