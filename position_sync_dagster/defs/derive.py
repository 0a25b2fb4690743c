"""The job that brings derived tables and checks up to date, and the sensor that requests it."""

from datetime import UTC, datetime, timedelta
from itertools import chain

import dagster as dg

from position_sync_dagster.defs import runs
from position_sync_dagster.defs.assets.closures import EXPLAINED_CHECK
from position_sync_dagster.defs.checks.evaluation import KEYS
from position_sync_dagster.sync import drain_plan
from position_sync_dagster.sync.drain_plan import SOURCES
from position_sync_dagster.sync.supervision import IN_PROGRESS

BEING_EVALUATED = timedelta(seconds=20)
"""A check is not planned this soon after a materialization of its table: the run that materialized
evaluates it, and Dagster hides the result of a planned check until it runs."""

CAUSES = dg.AssetCheckKey(dg.AssetKey("closures"), EXPLAINED_CHECK)
"""The check that the step of `closures` evaluates: Dagster launches no run with one of the two."""

derive_positions = dg.define_asset_job(
    runs.DERIVE_JOB,
    selection=dg.AssetSelection.assets(*SOURCES) | dg.AssetSelection.checks(*KEYS),
    executor_def=dg.in_process_executor,
    description="Derive the newest rows and the exposure, and evaluate the checks of the tables.",
)


@dg.sensor(
    job_name=runs.DERIVE_JOB,
    minimum_interval_seconds=runs.SHORTEST_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks every 5 s and only reads. It requests a run when the stream or the registry "
    "was materialized after the derived tables, when statements were imported, and at least each "
    "quarter of an hour. A drain derives in its own run, but for the closures. The ledger itself "
    "changes every second: read it for live values.",
)
@runs.fails_once
def refresh_derived(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request one run if a derived table is older than its sources."""
    instance = runs.cached_instance(context)
    now = datetime.now(UTC)
    drains = runs.recent_runs(instance, runs.DRAIN_JOB, limit=1)
    derives = runs.recent_runs(instance, runs.DERIVE_JOB, limit=1)
    plan = drain_plan.plan_derivation(
        materialized_at(instance, tuple({*SOURCES, *chain(*SOURCES.values())})),
        now=now,
        in_progress=next((r for r in (*derives, *drains) if r.state in IN_PROGRESS), None),
        last_run=derives[0] if derives else None,
    )
    if not plan.start:
        return dg.SkipReason(plan.reason)
    return dg.RunRequest(
        asset_selection=[dg.AssetKey(name) for name in SOURCES],
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
    newest = materialized_at(instance, tuple({key.asset_key.to_user_string() for key in KEYS}))
    oldest = now - drain_plan.LONGEST_AGE

    def stands(key: dg.AssetCheckKey) -> bool:
        materialized = newest.get(key.asset_key.to_user_string(), oldest)
        record = found.get(key)
        if record is not None and record.status.value == "PLANNED":
            return False  # the run that planned it ended without a result
        event = record.event if record is not None else None
        at = datetime.fromtimestamp(event.timestamp, UTC) if event is not None else None
        if record is None or at is None or at < max(materialized, oldest):
            return now - materialized < BEING_EVALUATED
        passed = record.status.value == "SUCCEEDED"
        return passed or key.name == "a_stream_watches"

    return [key for key in KEYS if not stands(key)]


def materialized_at(instance: dg.DagsterInstance, names: tuple[str, ...]) -> dict[str, datetime]:
    """Return when assets were last materialized; those that never were are left out."""
    found = {}
    for record in instance.get_asset_records([dg.AssetKey(name) for name in names]):
        newest = record.asset_entry.last_materialization_record
        if newest is not None:
            name = record.asset_entry.asset_key.to_user_string()
            found[name] = datetime.fromtimestamp(newest.timestamp, UTC)
    return found
