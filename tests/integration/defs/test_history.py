"""Maintenance: of the tables, and of what Dagster keeps, in SQLite and in Postgres."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from position_sync_dagster.definitions import defs
from position_sync_dagster.defs import maintenance as history
from position_sync_dagster.defs.maintenance import PRUNED_JOBS, maintenance_job
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.money.lake import MoneyLake
from tests.support import postgres
from tests.support.queues import requests_of

SOON = datetime.now(UTC) + timedelta(days=1)
LONG_AGO = datetime.now(UTC) - timedelta(days=1)
TABLE = dg.AssetKey("position_queue")
FOREIGN = dg.AssetKey("of_another_project")
CHECK = dg.AssetCheckKey(TABLE, "requests_are_answered")
# Commits that finish one request each: more than `Upkeep.compact_from`.
FINISHED = 35


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.extra)])
def stored(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """Return an instance with real storages."""
    if request.param == "sqlite":
        with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
            yield instance
        return
    if postgres.programs() is None:
        pytest.skip(postgres.MISSING)
    url = {"postgres_url": "postgresql+psycopg2://"}
    with postgres.running() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        with dg.instance_for_test(
            temp_dir=str(tmp_path), overrides={"storage": {"postgres": url}}
        ) as instance:
            yield instance


def report(instance: dg.DagsterInstance, number: int) -> None:
    """Report an event of each kind, of our assets and of another project's."""
    for asset in (TABLE, FOREIGN):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata={"n": number}))
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=asset, check_name=CHECK.name, passed=True)
        )


def numbers(instance: dg.DagsterInstance, asset: dg.AssetKey) -> list[int]:
    records = instance.fetch_materializations(asset, limit=100).records
    return [record.asset_materialization.metadata["n"].value for record in records]


def results(instance: dg.DagsterInstance, asset: dg.AssetKey) -> int:
    key = dg.AssetCheckKey(asset, CHECK.name)
    return len(instance.event_log_storage.get_asset_check_execution_history(key, limit=100))


def test_old_events_and_results_go_but_the_newest_and_those_of_others(stored, composition):
    for number in range(3):
        report(stored, number)
    assert history.delete_old_events(stored, composition.own_assets(), LONG_AGO) == 0
    assert numbers(stored, TABLE) == [2, 1, 0]
    assert results(stored, TABLE) == 3
    assert history.delete_old_events(stored, composition.own_assets(), SOON) > 0
    assert numbers(stored, TABLE) == [2]
    assert results(stored, TABLE) == 1
    assert numbers(stored, FOREIGN) == [2, 1, 0]
    assert results(stored, FOREIGN) == 3

    evaluations = stored.event_log_storage.get_records_for_run(
        "", of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    of_assets = [
        evaluation.event_log_entry.dagster_event.event_specific_data for evaluation in evaluations
    ]
    assert sum(of_asset.asset_key == FOREIGN for of_asset in of_assets) == 3, (
        "results of others stay"
    )


def test_the_second_copy_that_sqlite_has_of_an_event_goes_at_once(tmp_path, composition):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        for number in range(3):
            report(instance, number)
        history.delete_old_events(instance, composition.own_assets(), LONG_AGO)
        assert numbers(instance, TABLE) == [2, 1, 0]

    (copies,) = tmp_path.rglob(".db")
    with closing(sqlite3.connect(copies)) as read:
        query = "SELECT COUNT(*) FROM event_logs WHERE asset_key = ?"
        left = [read.execute(query, [key.to_string()]).fetchone()[0] for key in (TABLE, FOREIGN)]
        results_left = read.execute(
            "SELECT event FROM event_logs WHERE dagster_event_type = 'ASSET_CHECK_EVALUATION'"
        ).fetchall()
    assert left == [1, 3]  # the newest; those of another project
    assert len(results_left) == 3
    assert all("of_another_project" in event for (event,) in results_left)


def test_old_runs_go_but_those_in_progress_and_those_of_days(instance, composition):
    def add(job: str, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> str:
        run = dg.DagsterRun(job_name=job, status=status)
        instance.add_run(run)
        return run.run_id

    for job in ("stream_positions", "import_statements", "maintain_lake"):
        add(job)
    kept = {add("close_day"), add("stream_positions", dg.DagsterRunStatus.STARTED)}
    short = (*PRUNED_JOBS, *composition.extension.short_jobs)
    assert history.delete_old_runs(instance, short, LONG_AGO, {}) == 0
    assert history.delete_old_runs(instance, short, SOON, {}) == 3
    assert set(instance.get_run_ids()) == kept


def test_old_runs_of_another_code_location_stay_whatever_the_names_of_its_jobs(instance):
    def add(location: str) -> dg.DagsterRun:
        repository = RemoteRepositoryOrigin(
            InProcessCodeLocationOrigin(
                LoadableTargetOrigin(module_name=location), location_name=location
            ),
            "__repository__",
        )
        run = dg.DagsterRun(
            job_name="maintain_lake",
            status=dg.DagsterRunStatus.SUCCESS,
            remote_job_origin=repository.get_job_origin("maintain_lake"),
        )
        return instance.add_run(run)

    ours = add("position_sync")
    theirs = add("of_another_project")
    location = history.location_tag(ours)
    assert history.delete_old_runs(instance, PRUNED_JOBS, SOON, location) == 1
    assert list(instance.get_run_ids()) == [theirs.run_id]


def test_maintenance_covers_every_table_and_every_asset(
    settings, composition, instance, lake, monkeypatch
):
    asked: list[datetime] = []
    monkeypatch.setenv("POSITION_SYNC_HISTORY_DAYS", "7")

    def delete(_instance, _jobs, before, _location) -> int:
        asked.append(before)
        return 0

    monkeypatch.setattr(history, "delete_old_runs", delete)
    quick = MoneyLake(settings.lake, fsync=False).queue
    for request_id in quick.sync.insert_many(requests_of(range(1, FINISHED + 1))):
        quick.sync.mark_success(request_id)
    result = maintenance_job(composition).execute_in_process(
        instance=instance, resources={"position_sync": composition.resource()}
    )
    assert result.success

    [before] = asked
    assert timedelta(days=7) <= datetime.now(UTC) - before < timedelta(days=7, hours=1)
    uris = lake.queue.table.snapshot(lambda handle: handle.file_uris())
    assert sum("bucket=SUCCESS" in uri for uri in uris) == 1
    assert lake.queue.sync.counts()[QueueStatus.SUCCESS] == FINISHED
    for table in lake.tables:
        last = json.loads(Path(table.path, "_delta_log", "_last_checkpoint").read_bytes())
        assert last["version"] == table.version()
    assets = defs().get_repository_def().asset_graph.get_all_asset_keys()
    assert set(assets) <= set(composition.own_assets())
