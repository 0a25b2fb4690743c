"""The definitions of the code location, and the cost of loading them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from position_sync_dagster.definitions import defs

ROOT = Path(__file__).parents[3]

PARENTS = {
    "active_strategies": set(),
    "position_queue": {"active_strategies"},
    "position_updates": {"position_queue"},
    "latest_positions": {"position_updates"},
    "strategy_exposure": {"position_updates", "active_strategies"},
    "daily_positions": {"position_updates", "flex_statements"},
    "flex_statements": set(),
    "executions": {"flex_statements"},
}


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return defs().get_repository_def()


def test_the_lineage_runs_from_strategies_over_the_queue_to_the_ledger_and_on(
    repository: dg.RepositoryDefinition,
) -> None:
    graph = repository.asset_graph
    found = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert found == PARENTS


def test_every_asset_has_owner_kind_group_tags_columns_and_a_description(
    repository: dg.RepositoryDefinition,
) -> None:
    for key in repository.asset_graph.get_all_asset_keys():
        node = repository.asset_graph.get(key)
        assert node.owners == ["team:position-sync"]
        is_table = key.to_user_string() != "flex_statements"
        assert ("deltalake" if is_table else "xml") in node.kinds
        assert node.group_name in {"positions", "derived"}
        assert node.tags["domain"] == "positions"
        assert not is_table or node.metadata["dagster/column_schema"].schema.columns
        assert len(node.description or "") > 40
        assert node.is_executable


def test_all_sensors_and_schedules_run_from_the_start(
    repository: dg.RepositoryDefinition,
) -> None:
    assert {s.name: s.default_status for s in repository.sensor_defs} == dict.fromkeys(
        ["drain_queue", "supervise_stream"], dg.DefaultSensorStatus.RUNNING
    )
    assert {s.name: s.default_status for s in repository.schedule_defs} == dict.fromkeys(
        ["every_quarter_hour", "every_hour", "after_the_close", "late_rows", "nightly_statements"],
        dg.DefaultScheduleStatus.RUNNING,
    )


def test_sensors_may_tick_more_often_than_every_five_seconds(
    repository: dg.RepositoryDefinition,
) -> None:
    assert {s.minimum_interval_seconds for s in repository.sensor_defs} == {4}


def test_dagster_ends_a_drain_that_a_crash_left_behind_and_retries_nothing(
    repository: dg.RepositoryDefinition,
) -> None:
    assert int(repository.get_job("drain_positions").tags["dagster/max_runtime"]) > 60
    for name in ("drain_positions", "stream_positions"):
        assert repository.get_job(name).tags["dagster/max_retries"] == "0"
    assert "dagster/max_runtime" not in repository.get_job("stream_positions").tags


def test_both_ways_to_start_it_use_one_location_name() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    module = workspace["load_from"][0]["python_module"]
    assert module["location_name"] == project["code_location_name"]
    assert module["module_name"] == project["code_location_target_module"]


def test_the_instance_accepts_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster_home" / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_ref(
        dg.DagsterInstance.from_config(str(tmp_path)).get_ref()
    ) as instance:
        assert instance.run_coordinator.dequeue_interval_seconds == 1
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_poll_interval_seconds == 10
        assert not instance.telemetry_enabled


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    """Every run loads them: what they import is paid at every drain."""
    heavy = ["exchange_calendars", "pandas", "ib_async", "ib_insync", "rich", "typer", "uvicorn"]
    code = (
        "import sys, json\n"
        "from position_sync_dagster.definitions import defs\n"
        "defs().get_repository_def()\n"
        f"print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
