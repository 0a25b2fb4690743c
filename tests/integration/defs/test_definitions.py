"""The definitions of the code location, and the cost of loading them."""

import re
import tomllib
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from position_sync_dagster.component import PositionSyncComponent
from position_sync_dagster.definitions import defs
from position_sync_dagster.settings import load_settings

ROOT = Path(__file__).parents[3]

_PARENTS = yaml.safe_load("""
    risk_scenarios: [position_updates, broker_positions, active_strategies, contracts, closures,
      movements, dividends]
    profit_explained: [closures, contracts, daily_positions, movements, position_updates]
    books: [profit_explained, movements, closures, statement_events]
    closed_campaigns: [movements, closures, profit_explained]
    gateway: []
    broker_positions: [gateway]
    contracts: [gateway]
    gateway_sessions: [gateway]
    active_strategies: []
    position_queue: [active_strategies, broker_positions]
    position_updates: [position_queue, active_strategies, broker_positions, contracts]
    latest_positions: [position_updates, broker_positions]
    strategy_exposure: [position_updates, broker_positions, active_strategies, contracts, closures,
      movements]
    daily_positions: [position_updates, flex_statements]
    flex_statements: []
    executions: [flex_statements]
    statement_events: [flex_statements]
    movements: [executions, statement_events, contracts]
    position_changes: [gateway]
    dividends: [gateway]
    heard_messages: [gateway]
    closures: [position_changes, movements, statement_events, contracts, position_updates]
    account_values: [gateway]
    reconciliation_breaks: [broker_positions, position_updates, active_strategies]
""")
PARENTS = {name: set(parents) for name, parents in _PARENTS.items()}

EXTERNAL = {
    "gateway", "broker_positions", "contracts", "gateway_sessions", "account_values",
    "reconciliation_breaks", "position_changes", "dividends", "heard_messages",
}  # fmt: skip

NO_TABLE = {"gateway", "flex_statements"}

DERIVED = {"latest_positions", "strategy_exposure", "daily_positions"}


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return defs().get_repository_def()


def test_the_lineage_runs_from_strategies_over_the_queue_to_the_ledger_and_on(repository):
    graph = repository.asset_graph
    parents_of = {}
    for key in graph.get_all_asset_keys():
        parents = {parent.to_user_string() for parent in graph.get(key).parent_keys}
        parents_of[key.to_user_string()] = parents
    assert parents_of == PARENTS


@pytest.fixture(params=sorted(PARENTS))
def node(request: pytest.FixtureRequest, repository: dg.RepositoryDefinition):
    return repository.asset_graph.get(dg.AssetKey(request.param))


def test_every_asset_says_what_it_is_who_writes_it_and_how_to_read_it(node):
    assert node.owners == ["team:position-sync"]
    assert node.kinds
    assert node.tags["domain"] == "positions"
    assert "written_by" in node.metadata
    name = node.key.to_user_string()
    assert (node.code_version is None) is (name in NO_TABLE)
    what, *rest = (node.description or "").strip().split("\n\n")
    assert len(what) > 40
    assert any(part.startswith("Written by ") for part in rest)
    assert any(part.startswith("How to read it: ") for part in rest)
    # The catalog shows the text of a description in one line, without Markdown.
    assert not re.search(r"\*\*|^[-#]", node.description or "", re.MULTILINE)
    assert "://" in node.metadata["dagster/uri"] or node.metadata["dagster/uri"].startswith("/")
    assert node.is_executable is (node.key.to_user_string() not in EXTERNAL)


def test_launchpad_takes_no_config_that_nothing_reads(repository):
    for name in repository.job_names:
        fields = repository.get_job(name).run_config_schema.run_config_schema_type.fields
        for step, field in fields["ops"].config_type.fields.items():
            config = field.config_type.fields["config"].config_type
            assert getattr(config, "fields", None) == {}, f"{name}: {step} takes {config.key}"


def test_the_lineage_page_shows_assets_of_one_group_and_a_tag_names_their_part(repository):
    graph = repository.asset_graph
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    # Dagster shows each of several groups as a closed box.
    assert {node.group_name for node in nodes} == {"position_sync"}
    parts = {node.tags["position-sync/part"] for node in nodes}
    assert parts == {"broker_account", "position_values", "position_reports"}


def test_the_page_of_what_ticks_write_names_their_sensor_and_links_to_the_figures(repository):
    (target,) = repository.get_sensor_def("drain_queue").targets
    graph = repository.asset_graph
    layer = repository.get_job(target.job_name).asset_layer
    written = {key.to_user_string() for key in layer.selected_asset_keys}
    assert written == {
        "active_strategies", "position_updates", "latest_positions", "strategy_exposure",
        "risk_scenarios", "closures",
    }  # fmt: skip
    risk = graph.get(dg.AssetKey("risk_scenarios"))
    assert risk.metadata["page"].url == "http://127.0.0.1:3000/money/risk"


def schema_of(node) -> dg.TableSchema:
    """Return the columns of a table; on the pages that show money first they are a link."""
    name = node.key.to_user_string()
    key = (
        "columns" if name in ("latest_positions", "strategy_exposure") else "dagster/column_schema"
    )
    return node.metadata[key].schema


def test_every_column_of_every_table_says_what_it_holds_and_in_which_unit(node):
    name = node.key.to_user_string()
    if name in NO_TABLE:
        return
    assert node.metadata["dagster/table_name"] == name
    for column in schema_of(node).columns:
        assert len(column.description or "") > 10, column.name
        assert column.type != "double" or "Unit" in column.description, column.name


def test_every_column_of_a_derived_table_says_what_it_is_made_of(repository):
    graph = repository.asset_graph

    def columns(name: str) -> set[str]:
        return {column.name for column in schema_of(graph.get(dg.AssetKey(name))).columns}

    for name in DERIVED:
        node = graph.get(dg.AssetKey(name))
        lineage = node.metadata["dagster/column_lineage"].deps_by_column
        assert set(lineage) == columns(name)
        for sources in lineage.values():
            for source in sources:
                assert source.asset_key in node.parent_keys
                assert source.column_name in columns(source.asset_key.to_user_string())


def test_what_a_run_materializes_again_and_again_says_how_old_it_may_be(repository):
    graph = repository.asset_graph
    judged = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if graph.get(key).freshness_policy is not None
    }
    assert judged == {"position_queue", "position_updates", "risk_scenarios", *DERIVED}


def test_sensors_and_schedules_run_from_the_start_and_no_sensor_misses_a_check(repository):
    """The daemon checks every 5 s: an interval of 5 s would pass over every second check."""
    sensors = repository.sensor_defs
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.RUNNING}
    assert {sensor.name: sensor.minimum_interval_seconds for sensor in sensors} == {
        "tell_people": 60,
        "drain_queue": 2,
        "supervise_stream": 7,
        "remake_touched_days": 60,
    }
    schedules = repository.schedule_defs
    running = dg.DefaultScheduleStatus.RUNNING
    assert {schedule.default_status for schedule in schedules} == {running}
    assert {schedule.name for schedule in schedules} == {
        "maintain_every_four_hours",
        "record_day_after_close",
        "record_late_rows",
        "import_statements_nightly",
    }


def test_both_ways_to_start_it_use_one_location_name():
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    module = workspace["load_from"][0]["python_module"]
    assert module["location_name"] == project["code_location_name"]
    assert module["module_name"] == project["code_location_target_module"]


def test_a_file_of_logins_that_cannot_be_read_takes_no_definition_away(
    repository, tmp_path, monkeypatch
):
    """The sensors name its mistake."""
    (tmp_path / "gateways.yaml").write_text("gateways: [")
    monkeypatch.setenv("POSITION_SYNC_GATEWAYS_FILE", str(tmp_path / "gateways.yaml"))
    beside = PositionSyncComponent().definitions(load_settings()).get_repository_def()
    assert beside.job_names == repository.job_names
    assert len(beside.sensor_defs) == len(repository.sensor_defs)


def test_the_instance_accepts_its_configuration_and_names_no_class_of_ours(tmp_path):
    text = (ROOT / "dagster_home" / "dagster.yaml").read_text()
    assert "position_sync_dagster." not in text
    (tmp_path / "dagster.yaml").write_text(text)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("record_day_after_close", "2028-03-09T16:20:00-05:00"),
        ("record_late_rows", "2028-03-10T06:15:00-05:00"),
        ("import_statements_nightly", "2026-03-10T06:00:00-04:00"),
        ("maintain_every_four_hours", "2026-03-10T04:37:00+00:00"),
    ],
)
def test_the_run_of_a_schedule_says_which_one_launched_it(
    repository, tmp_path, monkeypatch, name, at
):
    monkeypatch.setenv("POSITION_SYNC_FLEX_FOLDER", str(tmp_path))
    schedule = repository.get_schedule_def(name)
    with dg.build_schedule_context(
        scheduled_execution_time=datetime.fromisoformat(at), repository_def=repository
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests
    assert request.tags["position-sync/launched_by"] == name
