"""Maintenance of the tables and of Dagster's storage."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import dagster as dg

from position_sync_dagster.defs.audit_events import read_events
from position_sync_dagster.defs.maintenance import (
    NEWEST,
    PRUNED_JOBS,
    delete_run,
    deleted_through,
    lost_runs,
    maintain_lake,
    old_runs,
)
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.defs.runs import DRAIN_JOB
from position_sync_dagster.domain.update import QueueRequest, QueueStatus
from position_sync_dagster.lake.lake import Lake

SOON = datetime.now(UTC) + timedelta(days=1)
LONG_AGO = datetime.now(UTC) - timedelta(days=14)
MANY = 1000


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


def test_old_drains_are_deleted_but_the_newest_and_runs_of_closing_days_are_kept(instance) -> None:
    drained = [ended(instance, DRAIN_JOB) for _ in range(NEWEST + 2)]
    closed = [ended(instance, "close_day") for _ in range(NEWEST + 2)]
    assert old_runs(instance, PRUNED_JOBS, before=SOON, keep=MANY) == drained[:2]
    assert old_runs(instance, [*PRUNED_JOBS, "close_day"], before=SOON, keep=MANY)[2:] == closed[:2]


def test_runs_younger_than_the_setting_are_kept_unless_they_are_too_many(instance) -> None:
    drained = [ended(instance, DRAIN_JOB) for _ in range(NEWEST + 5)]
    assert old_runs(instance, PRUNED_JOBS, before=LONG_AGO, keep=MANY) == []
    assert old_runs(instance, PRUNED_JOBS, before=LONG_AGO, keep=NEWEST + 2) == drained[:3]


def test_a_run_in_progress_is_kept(instance) -> None:
    instance.add_run(dg.DagsterRun(job_name=DRAIN_JOB, status=dg.DagsterRunStatus.STARTED))
    for _ in range(NEWEST):
        ended(instance, DRAIN_JOB)
    assert old_runs(instance, PRUNED_JOBS, before=SOON, keep=NEWEST) == []


def test_the_run_with_the_newest_materialization_of_an_asset_is_kept(instance) -> None:
    @dg.asset
    def rare() -> None: ...

    job = dg.define_asset_job(DRAIN_JOB).resolve(
        asset_graph=dg.Definitions(assets=[rare]).resolve_asset_graph()
    )
    [first, last] = [job.execute_in_process(instance=instance).run_id for _ in range(2)]
    for _ in range(NEWEST):
        ended(instance, DRAIN_JOB)
    assert old_runs(instance, PRUNED_JOBS, before=SOON, keep=NEWEST) == [first]
    delete_run(instance, first)
    newest = instance.get_latest_materialization_event(rare.key)
    assert newest is not None
    assert newest.run_id == last


def test_a_deleted_run_leaves_no_file(instance_on_disk, tmp_path: Path) -> None:
    @dg.job(name=DRAIN_JOB, executor_def=dg.in_process_executor)
    def job() -> None:
        noisy()

    run_id = job.execute_in_process(instance=instance_on_disk).run_id
    [shard] = tmp_path.rglob(f"{run_id}.db")
    Path(f"{shard}-wal").touch()  # as a killed process leaves it
    before = datetime.now(UTC)
    assert deleted_through(instance_on_disk) < before - timedelta(days=1)
    read = partial(read_events, instance_on_disk, since=before, now=before, keep_days=1)
    assert read().kept_since == before - timedelta(days=1)
    delete_run(instance_on_disk, run_id)
    assert before - timedelta(minutes=10) < deleted_through(instance_on_disk) < before
    assert read().kept_since == deleted_through(instance_on_disk)
    assert instance_on_disk.get_run_by_id(run_id) is None
    assert [path for path in tmp_path.rglob(f"*{run_id}*") if path.exists()] == []


def test_the_files_of_a_run_that_a_person_deleted_are_found(instance_on_disk, tmp_path) -> None:
    @dg.job(executor_def=dg.in_process_executor)
    def job() -> None:
        noisy()

    [deleted, kept] = [job.execute_in_process(instance=instance_on_disk).run_id for _ in range(2)]
    assert lost_runs(instance_on_disk) == []
    instance_on_disk.delete_run(deleted)
    assert lost_runs(instance_on_disk) == [deleted]
    delete_run(instance_on_disk, deleted)
    assert lost_runs(instance_on_disk) == []
    assert [path for path in tmp_path.rglob(f"*{deleted}*") if path.exists()] == []
    assert instance_on_disk.all_logs(kept)


@dg.op
def noisy() -> None:
    print("something for the log")
