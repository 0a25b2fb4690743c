"""Upkeep: compact the lake's tables, and let Dagster forget old runs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.drain import DRAIN_JOB
from position_sync_dagster.defs.resources import GatewayResource, LakeResource
from position_sync_dagster.defs.stream import STREAM_JOB

MAINTENANCE_JOB = "maintain_lake"

PRUNED_JOBS = (DRAIN_JOB, STREAM_JOB, MAINTENANCE_JOB, "derive_positions")
"""Jobs whose runs are many. Runs of `daily_positions` stay: they say which days are filled."""

MAX_RUNS = 500
"""Bound of one upkeep; an hour makes at most 720 runs, and the next upkeep goes on."""


@dg.op(tags={"domain": "upkeep"})
def maintain_tables(
    context: dg.OpExecutionContext, lake: LakeResource, gateway: GatewayResource
) -> None:
    """Compact files, write checkpoints and clean the log of every table."""
    with dagster_failures():
        results = lake.open(gateway.settings(lake)).maintain()
    for result in results:
        context.log.info(
            f"{result.table}: {result.compacted} files merged, {result.deleted} deleted, "
            f"{result.files} left at version {result.version}"
            + (f"; {result.skipped}" if result.skipped else "")
        )


@dg.op(tags={"domain": "upkeep"})
def forget_old_runs(
    context: dg.OpExecutionContext, lake: LakeResource, gateway: GatewayResource
) -> None:
    """Delete ended runs older than the setting, with their events and logs; rows stay."""
    with dagster_failures():
        keep = timedelta(days=gateway.settings(lake).keep_runs_days)
    forgotten = 0
    for run_id in old_runs(context.instance, before=datetime.now(UTC) - keep):
        forget(context.instance, run_id)
        forgotten += 1
    context.log.info(f"Forgot {forgotten} runs older than {keep.days} days.")


@dg.job(
    name=MAINTENANCE_JOB,
    tags={"domain": "upkeep"},
    description="Keep the tables quick and Dagster's storage small.",
)
def maintain_lake() -> None:
    """Look after the tables, then after the runs."""
    maintain_tables()
    forget_old_runs()


every_hour = dg.ScheduleDefinition(
    name="every_hour",
    job=maintain_lake,
    cron_schedule="37 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


def old_runs(instance: dg.DagsterInstance, *, before: datetime) -> Iterator[str]:
    """Give the ids of ended runs that may be forgotten, a bounded number of them."""
    left = MAX_RUNS
    for job_name in PRUNED_JOBS:
        records = instance.get_run_records(
            dg.RunsFilter(
                job_name=job_name,
                created_before=before,
                statuses=[
                    dg.DagsterRunStatus.SUCCESS,
                    dg.DagsterRunStatus.FAILURE,
                    dg.DagsterRunStatus.CANCELED,
                ],
            ),
            limit=left,
            ascending=True,
        )
        left -= len(records)
        yield from (record.dagster_run.run_id for record in records)


def forget(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run with its events, its logs and the file that SQLite keeps them in."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    shard_of = getattr(instance.event_log_storage, "path_for_shard", None)
    if shard_of is not None:
        Path(shard_of(run_id)).unlink(missing_ok=True)
