"""The drain, which values queued positions, and the job that derives tables, with their sensors."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain

import dagster as dg

from position_sync_dagster import last_work
from position_sync_dagster.defs import runs
from position_sync_dagster.defs.assets.closures import EXPLAINED_CHECK
from position_sync_dagster.defs.checks.evaluation import KEYS
from position_sync_dagster.defs.libraries import tables, threads
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.domain.clock import SKEW, elapsed
from position_sync_dagster.domain.update import QueueStatus
from position_sync_dagster.lake.object_store import is_remote
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import drain_plan
from position_sync_dagster.sync.supervision import IN_PROGRESS, JobRun, RunState, consecutive
from position_sync_dagster.yaml_file import saved_state

MAX_RUNTIME_S = 90
"""Maximum duration of a run, in seconds; a longer one crashed. A drain uses at most half of it."""

STAYING_MAX_RUNTIME_S = 500
"""The same for a run that may stay (`defs/staying.py`). It counts as in progress until nothing has
changed its record for `MAX_RUNTIME_S`."""

MAX_RUNTIME = "dagster/max_runtime"

RUNS_SEEN, MOST_SEEN = 8, 80
"""Number of newest runs that are read, and the number if most of them only refresh logins: a tick
requests at most one of these, and a drain that stays lasts for some seventy ticks."""

drain_positions = dg.define_asset_job(
    runs.DRAIN_JOB,
    selection=dg.AssetSelection.assets(*(step.value for step in drain_plan.Step)).without_checks(),
    executor_def=dg.in_process_executor,
    tags={MAX_RUNTIME: str(MAX_RUNTIME_S), "dagster/max_retries": "0"},
    description="Update the registry, the queue, the values of positions without a line, and the "
    "derived tables.",
)


@runs.sensor(job_name=runs.DRAIN_JOB)
def drain_queue(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Request one run over the assets that have work, or skip with the reason and counts.

    It looks every 5 s and only reads. It requests a drain when requests wait, about once a minute
    while the stream runs, and a refresh when one is due and no stream is alive: with several
    logins as a run of its own. In an object store the run of a drain stays for some minutes, and
    drains again.
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
        tags = {}
        if is_remote(lake.path) and drain_plan.Step.REFRESH not in plan.steps:
            tags = {runs.STAYS: plan.cursor.to_text(), MAX_RUNTIME: str(STAYING_MAX_RUNTIME_S)}
        requests.append(_request(plan.steps, plan.tag, tags))
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
    steps: Sequence[drain_plan.Step], reason: str, tags: Mapping[str, str]
) -> dg.RunRequest:
    return dg.RunRequest(
        asset_selection=[dg.AssetKey(step.value) for step in steps],
        asset_check_keys=[],
        tags={runs.REASON: reason, **tags},
    )


UNSEEN_S = 30.0
"""Maximum seconds between two reads of the queue and the registry in an object store, where each is
a request."""


class Quiet:
    """Whether no request waits, so that queue and registry need no look.

    Postgres counts how often requests were enqueued, if heartbeats are there. A count that is lost
    delays a drain by `UNSEEN_S`.
    """

    def __init__(self, lake: "tables.Lake") -> None:
        self._lake = lake
        self._wakes: int | None = None
        self._until = 0.0

    def is_over(self) -> bool:
        """Return whether the last look found no request, and requests were enqueued since."""
        return self._wakes is not None and self._lake.sessions.wakes() not in (None, self._wakes)

    def lasts(self, wakes: int | None) -> bool:
        """Return whether the last look found no request, and none was enqueued since."""
        return wakes is not None and wakes == self._wakes and time.monotonic() < self._until

    def looked(self, wakes: int | None, *, waits: bool) -> None:
        """Record whether a look found a request, and the count of Postgres before the look."""
        self._wakes, self._until = None if waits else wakes, time.monotonic() + UNSEEN_S


@lru_cache(maxsize=2)
def quiet_of(lake: "tables.Lake") -> Quiet:
    """Return what this process knows of a lake."""
    return Quiet(lake)


def observe(
    instance: dg.DagsterInstance,
    lake: "tables.Lake",
    settings: Settings,
    *,
    now: datetime,
    of_run: str | None = None,
) -> drain_plan.Workload:
    """Read the inputs of the decision; changes nothing.

    While a drain is in progress in an object store, neither queue nor registry is read: the drain
    reads them itself. They are also not read while the queue is `Quiet`.

    Args:
        of_run: The drain that decides about itself; None for the sensor.
    """
    newest = runs.recent_runs(instance, runs.DRAIN_JOB, limit=RUNS_SEEN)
    if sum(run.refreshed is not None for run in newest) > RUNS_SEEN // 2:
        newest = runs.recent_runs(instance, runs.DRAIN_JOB, limit=MOST_SEEN)
    drains = [run for run in newest if run.refreshed is None]
    in_progress = _in_progress([run for run in drains if run.run_id != of_run], now)
    quiet, wakes = quiet_of(lake), lake.sessions.wakes() if is_remote(lake.path) else None
    looks = not is_remote(lake.path) or (in_progress is None and not quiet.lasts(wakes))
    # At the same time: in an object store each table takes a request, and a changed one takes more.
    looked = threads.begin(lake.queue.sync.overview) if looks else None
    versions = threads.begin(lake.registry.table.version) if looks else None
    logins = _logins(instance, lake, settings, now)
    ended = [run for run in drains if run.state not in IN_PROGRESS]
    unsuccessful_runs = consecutive(_is_unsuccessful(run) for run in ended)
    several, file = len(logins) > 1, settings.strategies_file
    backlog = looked.result() if looked else None
    if backlog:
        waits = backlog.counts[QueueStatus.PENDING] + backlog.expired > 0
        quiet.looked(wakes, waits=waits)
    blocked = [name for state, names in logins if several and state.unavailable for name in names]
    if backlog and blocked:  # what was read need not be read again
        backlog = lake.queue.sync.overview(blocked)
    return drain_plan.Workload(
        now=now,
        pending=backlog.counts[QueueStatus.PENDING] if backlog else None,
        claimable=backlog.claimable + backlog.expired if backlog else 0,
        oldest_pending_at=backlog.oldest_pending_at if backlog else None,
        logins=tuple(state for state, _accounts in logins),
        drain_in_progress=in_progress,
        refresh_in_progress=_in_progress([run for run in newest if run.refreshed], now) is not None,
        unsuccessful_runs=unsuccessful_runs,
        last_unsuccessful_at=ended[0].ended_at if unsuccessful_runs else None,
        released=ended[0].released if unsuccessful_runs else 0,
        registry_version=versions.result() if versions else None,
        recorded_version=next(
            (run.registry_version for run in drains if run.registry_version is not None), None
        ),
        strategies_mark=":".join(map(str, saved_state(file))) if file else None,
        unapplied=next((run.unapplied for run in drains if run.unapplied is not None), False),
    )


def _logins(
    instance: dg.DagsterInstance, lake: "tables.Lake", settings: Settings, now: datetime
) -> list[tuple[drain_plan.LoginState, Sequence[str]]]:
    """Return the state of each login, and its accounts if a file names them."""
    names = [login.gateway_id for login in settings.logins]
    sessions = lake.sessions.current_of(names)
    streams = runs.streams_in_progress(instance)
    owned = {name for name, session in sessions.items() if session.is_alive(now)}
    # The session of an owner decides; the table is read only for logins without an owner.
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
                unavailable=drain_plan.unavailable_reason(
                    sessions.get(name), confirmed.get(name), login, now
                ),
            ),
            login.accounts or (),
        )
        for login in settings.logins
    ]


def _is_unsuccessful(run: JobRun) -> bool:
    return run.released > 0 or (run.state is RunState.FAILED and run.own_fault)


def _in_progress(drains: Sequence[JobRun], now: datetime) -> str | None:
    longest = timedelta(seconds=MAX_RUNTIME_S)
    unended = (run for run in drains if run.state in IN_PROGRESS)
    return next((run.run_id for run in unended if elapsed(run.since, now) < longest), None)


BEING_EVALUATED = timedelta(seconds=20)
"""A check is not planned this soon after a materialization of its table: the run that materialized
evaluates it, and Dagster hides the result of a planned check until it runs."""

CAUSES = dg.AssetCheckKey(dg.AssetKey("closures"), EXPLAINED_CHECK)
"""The check that the step of `closures` evaluates: Dagster launches no run with the step or the
check alone."""

DERIVE_INTERVAL_S = runs.SHORTEST_INTERVAL_S + 10
"""Minimum seconds between two ticks of the sensor of this job: it ticks at every third check of the
daemon. A tick reads when each table was materialized, and two runs are 15 s apart anyway."""

derive_positions = dg.define_asset_job(
    runs.DERIVE_JOB,
    selection=dg.AssetSelection.assets(*drain_plan.SOURCES) | dg.AssetSelection.checks(*KEYS),
    executor_def=dg.in_process_executor,
    description="Derive the newest rows and the exposure, and evaluate the checks of the tables.",
)


@runs.sensor(job_name=runs.DERIVE_JOB, minimum_interval_s=DERIVE_INTERVAL_S)
def refresh_derived(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request one run if a derived table is older than its sources.

    It looks every 15 s and only reads. The sources are the stream and the registry, as they were
    last materialized, and imported statements; a run follows at least each quarter of an hour. A
    drain derives the other tables in its own run, but not `closures`. The ledger itself changes
    every second: read it for live values.
    """
    instance = runs.cached_instance(context)
    now = datetime.now(UTC)
    drains = runs.recent_runs(instance, runs.DRAIN_JOB, limit=1)
    derives = runs.recent_runs(instance, runs.DERIVE_JOB, limit=1)
    plan = drain_plan.plan_derivation(
        sources_materialized_at(instance),
        now=now,
        in_progress=next((r for r in (*derives, *drains) if r.state in IN_PROGRESS), None),
        last_run=derives[0] if derives else None,
    )
    if not plan.start:
        return dg.SkipReason(plan.reason)
    return dg.RunRequest(
        asset_selection=[dg.AssetKey(name) for name in drain_plan.SOURCES],
        asset_check_keys=[*due_checks(instance, now), CAUSES],
        tags={runs.REASON: plan.tag},
    )


def due_checks(instance: dg.DagsterInstance, now: datetime) -> list[dg.AssetCheckKey]:
    """Return the checks that need another evaluation.

    A planned check shows no result until it has run. For that reason a result from after the last
    materialization of its table is kept. A failure is evaluated again: right after an outage the
    account is not downloaded yet.
    """
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(KEYS)
    newest = materialized_at(instance, {key.asset_key.to_user_string() for key in KEYS})
    oldest = now - drain_plan.LONGEST_AGE

    def stands(key: dg.AssetCheckKey) -> bool:
        materialized = newest.get(key.asset_key.to_user_string(), oldest)
        record = found.get(key)
        if record is not None and record.status.value == "PLANNED":
            return False  # the run that planned it ended without a result
        event = record.event if record is not None else None
        at = datetime.fromtimestamp(event.timestamp, UTC) if event is not None else None
        old = record is None or at is None or at < max(materialized, oldest) or at > now + SKEW
        if record is None or old:
            return elapsed(materialized, now) < BEING_EVALUATED
        passed = record.status.value == "SUCCEEDED"
        return passed or key.name == "a_stream_watches"

    return [key for key in KEYS if not stands(key)]


def sources_materialized_at(instance: dg.DagsterInstance) -> dict[str, datetime]:
    """Return when the derived tables, and what they are made from, were last materialized."""
    return materialized_at(instance, {*drain_plan.SOURCES, *chain(*drain_plan.SOURCES.values())})


def materialized_at(instance: dg.DagsterInstance, names: Iterable[str]) -> dict[str, datetime]:
    """Return when assets were last materialized; those that never were are left out."""
    found = {}
    for record in instance.get_asset_records([dg.AssetKey(name) for name in names]):
        newest = record.asset_entry.last_materialization_record
        if newest is not None:
            name = record.asset_entry.asset_key.to_user_string()
            found[name] = datetime.fromtimestamp(newest.timestamp, UTC)
    return found
