"""The maintenance job: compact the lake's tables, and delete old runs from Dagster's storage."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from position_sync_dagster.defs.audit.recorded_runs import recorded
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.old_runs import delete_run, old_runs
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.run_history import DERIVE_JOB, DRAIN_JOB, STREAM_JOB

MAINTENANCE_JOB = "maintain_lake"

PRUNED_JOBS = (DRAIN_JOB, STREAM_JOB, MAINTENANCE_JOB, DERIVE_JOB)
"""Jobs with many runs. Runs of `close_day` are kept: they record which days are filled."""


WHAT_TO_DO = "Stop what writes to the lake, run `position-sync doctor --repair`, and report it."


@dg.op(tags={"domain": "upkeep"})
@dagster_failures
@recorded("maintain_tables")
def maintain_tables(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Compact files, write checkpoints and clean the log of every table.

    Raises:
        Failure: A table has rows more than once. The maintenance is done all the same.
    """
    results = position_sync.lake.maintain()
    for result in results:
        context.log.info(
            f"{result.table}: {result.compacted} files merged, {result.deleted} deleted, "
            f"{result.files} left at version {result.version}"
            + (f"; {result.skipped}" if result.skipped else "")
        )
    doubled = [f"{one.table}: {one.doubled}." for one in results if one.doubled.surplus]
    if doubled:
        raise dg.Failure(" ".join([*doubled, WHAT_TO_DO]), allow_retries=False)


@dg.op(tags={"domain": "upkeep"})
@dagster_failures
@recorded("forget_old_runs")
def forget_old_runs(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Delete ended runs older than the setting, with their events and logs; rows are kept."""
    age = timedelta(days=position_sync.settings.keep_runs_days)
    deleted = 0
    for run_id in old_runs(context.instance, PRUNED_JOBS, before=datetime.now(UTC) - age):
        delete_run(context.instance, run_id)
        deleted += 1
    context.log.info(f"Deleted {deleted} runs older than {age.days} days.")


@dg.job(
    name=MAINTENANCE_JOB,
    tags={"domain": "upkeep"},
    description="Keep the tables fast and Dagster's storage small.",
)
def maintain_lake() -> None:
    """Maintain the tables, then delete old runs."""
    maintain_tables()
    forget_old_runs()


every_hour = dg.ScheduleDefinition(
    name="every_hour",
    job=maintain_lake,
    cron_schedule="37 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
