"""The job that brings derived tables and checks up to date, and the sensor that requests it."""

from datetime import UTC, datetime

import dagster as dg

from position_sync_dagster.defs.run_history import DERIVE_JOB, DRAIN_JOB, REASON, recent_runs
from position_sync_dagster.defs.tick_cache import cached_instance
from position_sync_dagster.sync.decisions.derivation import (
    LEDGER,
    SOURCES,
    TARGETS,
    plan_derivation,
)
from position_sync_dagster.sync.decisions.job_runs import IN_PROGRESS

derive_positions = dg.define_asset_job(
    DERIVE_JOB,
    selection=dg.AssetSelection.assets(*TARGETS) | dg.AssetSelection.checks_for_assets(LEDGER),
    executor_def=dg.in_process_executor,
    description="Derive the newest rows and the exposure, and compare the ledger with the broker.",
)


@dg.sensor(
    job_name=DERIVE_JOB,
    minimum_interval_seconds=4,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Derive again when the stream or the registry was materialized after the derived "
    "tables, and at least each quarter of an hour. A drain derives in its own run. The ledger "
    "itself changes every second: who needs live values reads it.",
)
def refresh_derived(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request one run when a derived table is older than what it is derived from."""
    instance = cached_instance(context)
    now = datetime.now(UTC)
    drains = recent_runs(instance, DRAIN_JOB, limit=1)
    derives = recent_runs(instance, DERIVE_JOB, limit=1)
    plan = plan_derivation(
        materialized_at(instance, (*SOURCES, *TARGETS)),
        now=now,
        in_progress=next((r for r in (*derives, *drains) if r.state in IN_PROGRESS), None),
        last_run=derives[0] if derives else None,
    )
    if not plan.start:
        return dg.SkipReason(plan.reason)
    return dg.RunRequest(tags={REASON: plan.reason})


def materialized_at(instance: dg.DagsterInstance, names: tuple[str, ...]) -> dict[str, datetime]:
    """Return when assets were last materialized; those that never were are left out."""
    found = {}
    for record in instance.get_asset_records([dg.AssetKey(name) for name in names]):
        newest = record.asset_entry.last_materialization_record
        if newest is not None:
            name = record.asset_entry.asset_key.to_user_string()
            found[name] = datetime.fromtimestamp(newest.timestamp, UTC)
    return found
