"""Ticks while a table cannot be read: the others go on, and no check stays green unevaluated."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from position_sync_dagster.defs.checks import evaluation
from position_sync_dagster.defs.checks.evaluation import UNEVALUATED, UNKNOWN
from position_sync_dagster.defs.composition import Composition
from position_sync_dagster.defs.drain import drain_queue
from position_sync_dagster.defs.resources import sensor
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.money.defs import alerts as alerts_module
from position_sync_dagster.money.defs import extension
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import alerts, signs_of_life
from position_sync_dagster.processes.preflight import Level, check_lake, check_programs
from position_sync_dagster.settings import load_settings
from tests.support.damaged_parquet import at_which_polars_panics

BASE_TABLES = [spec.name for spec in MoneyLake.specs]
WHOLE = dg.AssetCheckKey(dg.AssetKey("position_updates"), "tables_can_be_read")


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    yield
    aside.rename(path)


@contextmanager
def without_its_folder(table: Path) -> Iterator[None]:
    with moved_away(table):
        yield


@contextmanager
def with_a_foreign_column(table: Path) -> Iterator[None]:
    copy = table.with_name(f"{table.name}.copy")
    shutil.copytree(table, copy)
    DeltaTable(table).alter.add_columns([Field("theirs", PrimitiveType("string"))])
    yield
    shutil.rmtree(table)
    copy.rename(table)


# Each table with one damage, in turn: what is done about a table does not depend on its damage.
DAMAGES = (without_its_folder, with_a_foreign_column)
DAMAGED = list(zip(BASE_TABLES, cycle(DAMAGES), strict=False))


@pytest.fixture
def tick(
    instance: dg.DagsterInstance,
    lake: MoneyLake,
    composition: Composition[MoneyLake],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], dg.SensorResult]:
    """Return what evaluates the sensor, with every check due, and stores what it returns."""
    monkeypatch.setattr(extension, "BESIDE_WAIT_S", 60.0)
    monkeypatch.setattr(evaluation, "ALL_EVERY_S", 1e-6)
    monkeypatch.setattr(evaluation, "FAILED_EVERY_S", 1e-6)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    cursor: list[str | None] = [None]

    def evaluate() -> dg.SensorResult:
        for table in composition.opened(load_settings()).lake.tables:
            table._handle.drop()  # as it is after a while
        with dg.build_sensor_context(instance=instance, cursor=cursor[0]) as context:
            result: Any = sensor(drain_queue, composition)(context)
        for event in result.asset_events:
            instance.report_runless_asset_event(event)
        cursor[0] = result.cursor
        return result

    return evaluate


@pytest.fixture
def stored(
    instance: dg.DagsterInstance, composition: Composition[MoneyLake]
) -> Callable[[], dict[dg.AssetCheckKey, object]]:
    """Return the newest stored result of each check of the ticks."""

    def read() -> dict[dg.AssetCheckKey, object]:
        driver = composition.opened(load_settings()).driver
        keys = driver.driven()
        for name in ("latest_positions", "strategy_exposure", "closures", "risk_scenarios"):
            keys += driver.evaluated_with(name)
        records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        return {key: evaluation.evaluation_of(record) for key, record in records.items()}

    return read


@pytest.fixture
def begun(world, tick) -> None:
    """Let the tables have rows, and the first tick be over."""
    world.hold(1, 2, session=world.own(lease_s=3600.0))
    world.ask(1)
    world.row(1, 5)
    tick()


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize(
    ("name", "damaged"), DAMAGED, ids=[f"{name}-{damage.__name__}" for name, damage in DAMAGED]
)
def test_no_check_stays_green_that_cannot_be_evaluated_and_the_table_is_named(
    world, tick, stored, lake, settings, composition, name, damaged, tmp_path
):
    path = Path(lake.table_path(name))
    evaluate = {check.check_key: check.evaluate for check in composition.checks}
    with damaged(path):
        tick()
        result = tick()
        results = stored()
        for key, kept in results.items():
            if kept.passed:
                now = evaluate[key](composition.opened(settings).lake, settings)
                assert UNEVALUATED not in now.metadata, (key, now.description)
        assert str(path) in results[WHOLE].description
        assert not results[WHOLE].passed

        unknown = [outcome for outcome in results.values() if UNEVALUATED in outcome.metadata]
        for check_result in unknown:
            assert UNKNOWN in check_result.metadata
            assert check_result.severity is dg.AssetCheckSeverity.WARN
            assert check_result.description.startswith("Unknown: ")
            assert name in check_result.description
        if unknown:
            (programs,) = check_programs(tmp_path)
            is_said = programs.level is Level.BAD and name in programs.text
            tables = check_lake(MoneyLake(settings.lake, use="look"))
            assert is_said or any(
                name in table.text and table.level != Level.GOOD for table in tables
            )
        assert result.skip_reason.skip_message

    tick()
    world.later(timedelta(seconds=61))
    tick()
    mended = stored()
    assert mended[WHOLE].passed
    assert not [key for key, one in mended.items() if UNEVALUATED in one.metadata]


@pytest.mark.usefixtures("begun")
def test_a_code_server_that_starts_beside_a_damaged_table_drains_and_reads_the_others(
    world, tick, lake, stored, composition
):
    world.ask(2)
    with with_a_foreign_column(Path(lake.table_path("statement_events"))):
        composition.opened.cache_clear()
        tick()
        counts = PositionQueue(lake.table_path("position_queue")).sync.counts()
        assert counts[QueueStatus.PENDING] == 0
        tick()
        assert not stored()[WHOLE].passed
        watch = stored()[evaluation.WATCH]
        assert watch.passed, watch.description


@pytest.mark.usefixtures("begun")
def test_a_tick_goes_on_beside_a_file_at_which_polars_panics_and_names_its_table(
    world, tick, lake, stored, composition
):
    world.ask(2)
    queue = Path(lake.table_path("position_queue"))
    for file in (queue / "bucket=live").rglob("*.parquet"):
        file.write_bytes(at_which_polars_panics(file.read_bytes(), "error_message"))
    composition.opened.cache_clear()
    result = tick()
    assert f"{queue} cannot be read whole" in result.skip_reason.skip_message
    assert stored()[evaluation.WATCH].passed


@pytest.mark.usefixtures("receiver", "begun")
def test_a_message_is_sent_about_a_check_that_cannot_be_evaluated(
    tick, lake, instance, composition, receiver
):
    def tell() -> None:
        with dg.build_sensor_context(instance=instance, cursor=cursor[0]) as context:
            result = alerts_module.tell_people(context, messages)
        cursor[0] = result.cursor

    messages = alerts_module.Messages(composition, alerts.Deliveries())
    cursor: list[str | None] = [None]
    tell()
    assert receiver.taken() == []
    with moved_away(Path(lake.table_path("gateway_sessions"))):
        tick()
        tell()
        tell()  # what is sent was stored by the tick before
        bodies = receiver.text()
    assert "position_updates: a_stream_watches" in bodies
    assert "gateway_sessions" in bodies

    tick()
    tell()
    tell()
    bodies = receiver.text()
    assert "Passes again: position_updates: a_stream_watches" in bodies
    assert signs_of_life.read().problems == () or "find errors" in signs_of_life.read().problems[0]
