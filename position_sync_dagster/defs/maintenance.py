"""The maintenance job: keep the tables fast, and Dagster's history at 90 days."""

from datetime import UTC, datetime

import dagster as dg

from position_sync_dagster.defs import history, runs
from position_sync_dagster.defs.assets.table_asset import GATEWAY
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.lake.schema import tables as specs

MAINTENANCE_JOB = "maintain_lake"

OWN_ASSETS = (*(spec.name for spec in (*specs.TABLES, *specs.DERIVED)), GATEWAY, "flex_statements")
"""The assets whose old events are deleted."""

PRUNED_JOBS = (runs.STREAM_JOB, MAINTENANCE_JOB)
"""Runs of `close_day` are kept: they record which days are filled."""


@dg.op(tags={"domain": "upkeep"}, config_schema={})
@runs.dagster_failures
def maintain_tables(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Compact files, write checkpoints and clean the log of every table."""
    for result in position_sync.lake.maintain():
        context.log.info(
            f"{result.table}: {result.compacted} files merged, {result.deleted} deleted, "
            f"{result.files} left at version {result.version}"
            + (f"; {result.skipped}" if result.skipped else "")
        )


@dg.op(tags={"domain": "upkeep"}, config_schema={})
def forget_old_history(context: dg.OpExecutionContext) -> None:
    """Delete runs, events and results of checks that are older than 90 days; rows are kept."""
    before = datetime.now(UTC) - history.KEPT
    deleted = history.delete_old_runs(context.instance, PRUNED_JOBS, before)
    events = history.delete_old_events(context.instance, OWN_ASSETS, before)
    context.log.info(
        f"Deleted {deleted} runs, and {events} events and results of checks, that are older than "
        f"{history.KEPT.days} days."
    )


@dg.job(
    name=MAINTENANCE_JOB,
    executor_def=dg.in_process_executor,
    tags={"domain": "upkeep"},
)
def maintain_lake() -> None:
    """Keep the tables fast and Dagster's storage small."""
    maintain_tables()
    forget_old_history()


every_hour = dg.ScheduleDefinition(
    name="every_hour",
    job=maintain_lake,
    cron_schedule="37 * * * *",
    description="At 37 minutes past each hour: merges small files of the tables, and deletes "
    "Dagster's runs and events that are older than 90 days.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
