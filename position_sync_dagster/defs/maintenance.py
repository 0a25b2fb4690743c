"""The maintenance job: compact the lake's tables, and delete old runs from Dagster's storage."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from position_sync_dagster.defs.audit.recorded_runs import recorded
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.old_events import forget_old_events, forget_skipped_ticks
from position_sync_dagster.defs.old_runs import delete_run, lost_runs, old_runs
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.run_history import DERIVE_JOB, DRAIN_JOB, STREAM_JOB

MAINTENANCE_JOB = "maintain_lake"

PRUNED_JOBS = (DRAIN_JOB, STREAM_JOB, MAINTENANCE_JOB, DERIVE_JOB)
"""Jobs with many runs. Runs of `close_day` are kept: they record which days are filled."""

LONGEST = timedelta(minutes=45)
"""What is left after it waits for the next hour: two would delete the same."""

KEEP_SKIPPED = timedelta(hours=6)
"""A sensor that finds nothing to do leaves a tick of 1.7 KB, every 5 s."""


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
    """Delete old runs with their events and logs, and what goes with no run; rows are kept."""
    settings, began = position_sync.settings, datetime.now(UTC)
    before = began - timedelta(days=settings.keep_runs_days)
    old = lost_runs(context.instance)
    old += old_runs(context.instance, PRUNED_JOBS, before=before, keep=settings.keep_runs)
    deleted = 0
    for run_id in old:
        if datetime.now(UTC) > began + LONGEST:
            break
        delete_run(context.instance, run_id)
        deleted += 1
    context.log.info(
        f"Deleted {deleted} of {len(old)} runs: those older than {settings.keep_runs_days} days, "
        f"and of each job all but the newest {settings.keep_runs}."
    )
    events = forget_old_events(context.instance, before=before, keep=settings.keep_runs)
    forget_skipped_ticks(context.instance, before=began - KEEP_SKIPPED)
    context.log.info(f"Deleted {events} old results of checks and events without a run.")


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
