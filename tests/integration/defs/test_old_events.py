"""Dagster's storage stays as large as the retention says, in SQLite and in Postgres."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    TickData,
    TickStatus,
)
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecordStatus as Result,
)
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._utils.error import SerializableErrorInfo
from sqlalchemy import create_engine, func, select

from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.defs import maintenance
from position_sync_dagster.defs.maintenance import (
    KEPT_TICKS,
    PRUNED_JOBS,
    delete_run,
    forget_old_events,
    forget_old_ticks,
    old_runs,
)
from position_sync_dagster.defs.runs import DRAIN_JOB
from tests.support import postgres

SOON = datetime.now(UTC) + timedelta(days=1)
LONG_AGO = datetime.now(UTC) - timedelta(days=14)
KEEP = 2

TABLE = dg.AssetKey("position_queue")
FOREIGN = dg.AssetKey("of_another_project")
CHECK = dg.AssetCheckKey(TABLE, "is_right")


@dg.asset(
    name="position_queue", check_specs=[dg.AssetCheckSpec("is_right", asset="position_queue")]
)
def a_table() -> dg.MaterializeResult:
    metadata = {"plot": dg.MetadataValue.md("x" * 20_000)}
    result = dg.AssetCheckResult(passed=True, check_name="is_right")
    return dg.MaterializeResult(metadata=metadata, check_results=[result], tags={"a": "tag"})


JOB = dg.define_asset_job(
    DRAIN_JOB, tags={"reason": "a drain"}, executor_def=dg.in_process_executor
).resolve(asset_graph=dg.Definitions(assets=[a_table]).resolve_asset_graph())


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    """Run one server; each test has a database of its own in it."""
    if postgres.programs() is None:
        pytest.skip(postgres.MISSING)
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def instance(request, tmp_path: Path, monkeypatch) -> Iterator[dg.DagsterInstance]:
    """Return an instance of a home with each storage."""
    if request.param == "sqlite":
        for storage in map(import_module, dagster_internals.SQLITE_STORAGES):
            # An earlier test may have let this process keep connections: SQLite then keeps its log.
            monkeypatch.setattr(storage, "create_engine", create_engine)
        with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
            yield made
        return
    server: postgres.Postgres = request.getfixturevalue("server")
    database = request.function.__name__
    server.output("createdb", database)
    for name, value in (server.environment | {"PGDATABASE": database}).items():
        monkeypatch.setenv(name, value)
    for storage in map(import_module, dagster_internals.POSTGRES_STORAGES):
        monkeypatch.setattr(storage, "create_pg_engine", storage.create_pg_engine)
    dagster_internals.keep_postgres_connections()  # as each program on Postgres does
    url = {"postgres_url": "postgresql+psycopg2://"}
    with dg.instance_for_test(
        temp_dir=str(tmp_path), overrides={"storage": {"postgres": url}}
    ) as made:
        yield made


def evaluate(instance: dg.DagsterInstance, *, passed: bool = True) -> None:
    """Store a result of the check without a run, as a stream does when its state changes."""
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=TABLE, check_name="is_right", passed=passed, metadata={})
    )


def observe(instance: dg.DagsterInstance, text: str) -> None:
    instance.report_runless_asset_event(
        dg.AssetObservation(TABLE, description=text, tags={"a": "tag"})
    )


def stored(instance: dg.DagsterInstance) -> dict[str, int]:
    """Return the number of rows of each table that grows."""
    index, runs = instance.event_log_storage.index_connection, instance.run_storage.connect
    tables = {
        SqlEventLogStorageTable: index,
        AssetCheckExecutionsTable: index,
        AssetEventTagsTable: index,
        RunsTable: runs,
        RunTagsTable: runs,
    }
    counts = {}
    for table, connect in tables.items():
        with connect() as connection:
            counts[table.name] = connection.execute(select(func.count(table.c.id))).scalar()
    return counts


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_storage_stops_growing_when_as_much_is_old_as_is_new(
    instance, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(maintenance, "NEWEST", KEEP)
    rows, sizes = [], []
    for _ in range(3):
        for _ in range(2):
            JOB.execute_in_process(instance=instance)
        for number in range(2 * KEEP):
            evaluate(instance, passed=number % 2 == 0)
            observe(instance, "x" * 1000)
        for run_id in old_runs(instance, PRUNED_JOBS, before=LONG_AGO, keep=KEEP):
            delete_run(instance, run_id)
        forget_old_events(instance, before=LONG_AGO, keep=KEEP)
        rows.append(stored(instance))
        sizes.append(size(tmp_path))
    assert rows[-1] == rows[1]
    assert rows[-1]["runs"] == KEEP
    assert sizes[-1] <= 1.1 * sizes[1]


def test_the_newest_of_each_kind_stay_at_any_age(instance) -> None:
    JOB.execute_in_process(instance=instance)
    evaluate(instance, passed=False)
    for number in range(5):
        evaluate(instance)
        observe(instance, str(number))
    history = instance.event_log_storage.get_asset_check_execution_history
    before = history(CHECK, limit=100)
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key([CHECK])
    deleted = forget_old_events(instance, before=LONG_AGO, keep=1000)
    assert (deleted, history(CHECK, limit=100)) == (0, before)
    assert forget_old_events(instance, before=SOON, keep=1000) > 0
    after = history(CHECK, limit=100)
    assert [one.status for one in after] == [Result.SUCCEEDED, Result.FAILED]
    assert after == [before[0], next(one for one in before if one.status is Result.FAILED)]
    assert instance.event_log_storage.get_latest_asset_check_execution_by_key([CHECK]) == newest
    [seen] = instance.fetch_observations(TABLE, limit=100).records
    assert seen.asset_observation.description == "4"
    assert instance.get_latest_materialization_event(TABLE) is not None


def test_events_of_other_projects_are_kept(instance) -> None:
    for number in range(3):
        instance.report_runless_asset_event(dg.AssetObservation(FOREIGN, description=str(number)))
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=FOREIGN, check_name="is_right", passed=True, metadata={}
            )
        )
    forget_old_events(instance, before=SOON, keep=0)
    assert len(instance.fetch_observations(FOREIGN, limit=9).records) == 3
    check = dg.AssetCheckKey(FOREIGN, "is_right")
    history = instance.event_log_storage.get_asset_check_execution_history(check, limit=9)
    assert [one.event is not None for one in history] == [True] * 3


def test_ticks_of_our_sensors_are_kept_as_long_as_their_kind_is_of_use(instance) -> None:
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "here")
    own, foreign = (
        InstigatorState(
            RemoteInstigatorOrigin(repository, name),
            InstigatorType.SENSOR,
            InstigatorStatus.RUNNING,
        )
        for name in ("drain_queue", "of_another_project")
    )
    now = datetime.now(UTC)
    for state in (own, foreign):
        instance.add_instigator_state(state)
        for status, kept in KEPT_TICKS.items():
            for age in (kept * 1.1, kept * 0.9):
                error = SerializableErrorInfo("why", [], None) if status == "FAILURE" else None
                instance.create_tick(
                    TickData(
                        state.instigator_origin_id,
                        state.instigator_name,
                        InstigatorType.SENSOR,
                        TickStatus[status],
                        (now - age).timestamp(),
                        run_ids=[],
                        selector_id=state.selector_id,
                        error=error,
                    )
                )
    forget_old_ticks(instance, now=now)
    ticks = instance.get_ticks(own.instigator_origin_id, own.selector_id)
    assert {(tick.status.value, tick.timestamp) for tick in ticks} == {
        (status, (now - kept * 0.9).timestamp()) for status, kept in KEPT_TICKS.items()
    }
    others = instance.get_ticks(foreign.instigator_origin_id, foreign.selector_id)
    assert len(others) == 2 * len(KEPT_TICKS)
