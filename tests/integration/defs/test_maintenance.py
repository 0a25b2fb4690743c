"""Maintenance of the tables and of Dagster's storage."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from position_sync_dagster.defs.maintenance import PRUNED_JOBS, maintain_lake
from position_sync_dagster.defs.old_runs import delete_run, old_runs
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.defs.run_history import DRAIN_JOB
from position_sync_dagster.domain.request import QueueRequest, QueueStatus
from position_sync_dagster.lake.lake import Lake

SOON = datetime.now(UTC) + timedelta(days=1)


def ended(instance: dg.DagsterInstance, job_name: str) -> str:
    run = dg.DagsterRun(job_name=job_name, status=dg.DagsterRunStatus.SUCCESS)
    instance.add_run(run)
    return run.run_id


FINISHED = 35
"""Commits that finish one request each: more than `maintenance.COMPACT_FROM`."""


def finished_files(lake: Lake) -> list[str]:
    uris = lake.queue.table.snapshot(lambda handle: handle.file_uris())
    return [uri for uri in uris if "bucket=SUCCESS" in uri]


def test_maintenance_covers_every_table(settings, instance, lake: Lake) -> None:
    quick = Lake(settings.lake, fsync=False).queue
    for request_id in quick.sync.insert_many(
        QueueRequest(c, "SPY") for c in range(1, FINISHED + 1)
    ):
        quick.sync.mark_success(request_id)
    assert len(finished_files(lake)) == FINISHED
    result = maintain_lake.execute_in_process(
        instance=instance, resources={"position_sync": POSITION_SYNC}
    )
    assert result.success
    assert len(finished_files(lake)) == 1
    assert lake.queue.sync.counts()[QueueStatus.SUCCESS] == FINISHED
    for table in lake.tables:
        last = json.loads(Path(table.path, "_delta_log", "_last_checkpoint").read_bytes())
        recorded = int(table is lake.runs.table)  # the run itself, after its maintenance
        assert (table.spec.name, last["version"] + recorded) == (table.spec.name, table.version())


def test_old_drains_are_deleted_and_runs_of_closing_days_are_kept(instance) -> None:
    drained = ended(instance, DRAIN_JOB)
    ended(instance, "close_day")
    assert list(old_runs(instance, PRUNED_JOBS, before=SOON)) == [drained]


def test_runs_younger_than_the_setting_are_kept(instance) -> None:
    ended(instance, DRAIN_JOB)
    assert (
        list(old_runs(instance, PRUNED_JOBS, before=datetime.now(UTC) - timedelta(days=14))) == []
    )


def test_a_run_in_progress_is_kept(instance) -> None:
    instance.add_run(dg.DagsterRun(job_name=DRAIN_JOB, status=dg.DagsterRunStatus.STARTED))
    assert list(old_runs(instance, PRUNED_JOBS, before=SOON)) == []


def test_a_deleted_run_leaves_no_file(instance_on_disk, tmp_path: Path) -> None:
    @dg.job(name=DRAIN_JOB, executor_def=dg.in_process_executor)
    def job() -> None:
        noisy()

    run_id = job.execute_in_process(instance=instance_on_disk).run_id
    kept = [path for path in tmp_path.rglob(f"*{run_id}*") if path.exists()]
    assert kept
    delete_run(instance_on_disk, run_id)
    assert instance_on_disk.get_run_by_id(run_id) is None
    assert [path for path in tmp_path.rglob(f"*{run_id}*") if path.exists()] == []


@dg.op
def noisy() -> None:
    print("something for the log")
