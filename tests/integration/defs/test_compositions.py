"""Definitions with money, without, and with a stranger's extension, in one process."""

from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from position_sync_dagster.component import PositionSyncComponent
from position_sync_dagster.defs.composition import CORE, Composition
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.strategies.leg_followers import RollFollower
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.processes.heard.heard_lake import HeardLake
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.stream.router import StreamTables
from tests.integration.sync.test_examples import EXAMPLES, loaded
from tests.support.empty_lakes import put_tables
from tests.unit.money.past.test_causes import CALL, change


class Made:
    """What the definitions of a component are made of, as the code server sees it."""

    def __init__(self, component: PositionSyncComponent, *, money: bool) -> None:
        settings = load_settings(money=money)
        definitions = component.definitions(settings)
        self.lake: type[Lake] = type(definitions.resources["position_sync"]).lake_class
        self.repository = definitions.get_repository_def()
        self.graph = self.repository.asset_graph
        self.assets = {key.to_user_string() for key in self.graph.get_all_asset_keys()}
        self.checks = {key.name for key in self.graph.asset_check_keys}
        self.sensors = {sensor.name for sensor in self.repository.sensor_defs}
        self.tick = self.repository.get_sensor_def("drain_queue").description or ""


def test_settings_are_read_again_once_the_environment_or_the_file_has_changed(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ".env"
    composition = Composition(extension=CORE, overrides={"max_lines": 50})

    def read() -> Settings:
        settings = composition.read_settings()
        assert settings == load_settings(max_lines=50)
        assert composition.read_settings() is settings
        return settings

    default = read()
    file.write_text("POSITION_SYNC_GATEWAY_PORT=4001\n")
    assert read().gateway_port == 4001
    file.write_text("POSITION_SYNC_GATEWAY_PORT=40021\n")
    assert read().gateway_port == 40021
    monkeypatch.setenv("position_sync_gateway_port", "4003")
    assert read().gateway_port == 4003
    file.write_text("POSITION_SYNC_GATEWAY_PORT\n")
    for _ in range(2):
        with pytest.raises(SettingsError, match="Line 1"):
            composition.read_settings()
    file.unlink()
    assert read().gateway_port == 4003
    monkeypatch.delenv("position_sync_gateway_port")
    assert read() == default


@pytest.mark.usefixtures("settings")
def test_definitions_with_and_without_money_do_not_touch_each_other():
    plain = PositionSyncComponent()
    money = Made(plain, money=True)
    core = Made(plain, money=False)
    again = Made(plain, money=True)

    assert [made.lake for made in (money, core, again)] == [MoneyLake, HeardLake, MoneyLake]
    assert core.sensors == {"drain_queue", "supervise_stream"}
    assert core.assets.isdisjoint({"closures", "strategy_exposure", "flex_statements"})
    assert core.assets < money.assets
    assert core.checks < money.checks
    assert (again.assets, again.checks) == (money.assets, money.checks)
    assert money.sensors == again.sensors
    assert again.sensors > core.sensors
    assert again.tick == money.tick
    assert "Record the scenarios each quarter of an hour" in money.tick
    assert money.tick.startswith(core.tick)
    assert "scenarios" not in core.tick


@pytest.mark.usefixtures("settings")
def test_a_tick_without_money_after_definitions_with_it_writes_no_table_of_money(instance):
    plain = PositionSyncComponent()
    Made(plain, money=True)
    drain_queue = Made(plain, money=False).repository.get_sensor_def("drain_queue")
    with dg.build_sensor_context(instance=instance) as context:
        ticked = drain_queue.evaluate_tick(context)
    named = {event.asset_key.to_user_string() for event in ticked.asset_events}
    assert "position_updates" in named
    assert named.isdisjoint({"closures", "strategy_exposure", "risk_scenarios", "executions"})


@pytest.mark.usefixtures("settings")
def test_an_extension_of_somebody_else_adds_its_table_check_and_part_and_nothing_of_money():
    (path,) = (path for path in EXAMPLES if path.stem == "extension")
    example = loaded(path)
    core = Made(PositionSyncComponent(), money=False)
    extended = Made(example.OwnComponent(), money=True)
    assert extended.assets - core.assets == {"held_symbols"}
    assert extended.checks - core.checks == {"few_symbols_are_held"}
    assert extended.lake is example.OwnLake
    assert extended.tick == f"{core.tick}\n\n{example.count_symbols.__doc__}"
    (key,) = (key for key in extended.graph.get_all_asset_keys() if key.path == ["held_symbols"])
    assert extended.graph.get(key).tags["position-sync/part"] == "own_reports"
    assert Made(PositionSyncComponent(), money=False).assets == core.assets


def test_a_follower_of_somebody_else_follows_changes_beside_those_of_money(settings, capsys):
    (path,) = (path for path in EXAMPLES if path.stem == "extension")
    example = loaded(path)
    own = SimpleNamespace(session=SimpleNamespace(run_id="run-1"))
    put_tables(settings.lake)
    lake = MoneyLake(settings.lake)

    def followers(*extensions):
        tables = StreamTables()
        for with_more in extensions:
            tables = with_more(tables, lake, settings, own)
        return tables.followers

    by_itself = followers(example.with_printed_changes)
    after_money = followers(with_money, example.with_printed_changes)
    before_money = followers(example.with_printed_changes, with_money)
    assert list(map(type, by_itself)) == [example.PrintedChanges]
    of_money = [CloseExplainer, RollFollower]  # rolls need the causes of closes
    assert list(map(type, after_money)) == [*of_money, example.PrintedChanges]
    assert list(map(type, before_money)) == [example.PrintedChanges, *of_money]

    # Two contracts of one option were held, and are gone: nobody has named an execution of it.
    lake.position_changes.add([change(CALL, 2, 0, datetime.now(UTC))])
    for follower in after_money:
        follower.follow_changes([], {})
    causes = [
        (closure.conid, closure.quantity, closure.cause) for closure in lake.closures.records()
    ]
    assert causes == [(CALL, 2.0, "UNEXPLAINED")]
    assert capsys.readouterr().out == "1 changes are stored, 0 executions were named\n"


def test_an_asset_without_a_table_is_where_its_extension_says_and_else_nowhere(settings):
    component = PositionSyncComponent()
    composition = Composition(extension=component.extension(settings))

    def address(name: str) -> object:
        spec = component._completed(dg.AssetSpec(name), composition, settings, set())
        return spec.metadata.get("dagster/uri")

    assert address("flex_statements") == str(settings.flex_folder.absolute())
    assert address("gateway") == f"tcp://{settings.gateway_address}"
    assert address("of_a_stranger") is None


SENSOR_OF_A_STRANGER = """
import dagster as dg

@dg.sensor(job_name="maintain_lake", default_status=dg.DefaultSensorStatus.RUNNING)
def eager(context):
    return dg.SkipReason("nothing")
"""


def test_a_sensor_of_an_extension_that_would_run_from_the_start_is_refused_without_automation(
    tmp_path, monkeypatch
):
    package = tmp_path / "of_a_stranger"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sensors.py").write_text(SENSOR_OF_A_STRANGER)
    monkeypatch.syspath_prepend(tmp_path)

    class Stranger(PositionSyncComponent):
        def extension(self, settings: Settings) -> Any:
            packages = (import_module("of_a_stranger"),)
            return replace(super().extension(settings), packages=packages)

    settings = load_settings(money=False)
    assert "eager" in Made(Stranger(), money=False).sensors
    with pytest.raises(SettingsError, match="eager would run from the start"):
        Stranger(automation=False).definitions(settings)
