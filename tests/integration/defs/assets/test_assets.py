"""The assets of the queue's path: strategies, queue, ledger."""

from pathlib import Path

import dagster as dg
import pytest

from position_sync_dagster.definitions import defs
from position_sync_dagster.defs.assets.active_strategies import active_strategies
from position_sync_dagster.defs.assets.position_queue import position_queue
from position_sync_dagster.defs.assets.position_updates import position_updates
from position_sync_dagster.defs.checks.evaluation import KEYS
from position_sync_dagster.defs.checks.limits import SUMS_CHECK, limits_are_read
from position_sync_dagster.defs.runs import DRAIN_JOB, DRAINED, REGISTRY_VERSION, RELEASED
from position_sync_dagster.domain.broker_position import Completeness
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.sync.drain_plan import DRAIN_AND_DERIVE

STRATEGIES = """\
strategies:
  - strategy_id: iron
    legs:
      - {conid: 1, symbol: SPY, right: C, strike: 500, expiry: "20281215"}
      - {conid: 2, symbol: SPY, right: P, strike: 480, expiry: "20281215"}
"""


def materialized(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetMaterialization:
    (event,) = result.asset_materializations_for_node(name)
    assert isinstance(event, dg.AssetMaterialization)
    return event


def numbers(event: dg.AssetMaterialization) -> dict[str, float]:
    return {
        name: value.value
        for name, value in event.metadata.items()
        if isinstance(value.value, int | float)
    }


def failure(result: dg.ExecuteInProcessResult, name: str) -> str:
    assert not result.success
    return result.failure_data_for_node(name).error.message


@pytest.fixture
def strategies_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "strategies.yaml"
    path.write_text(STRATEGIES)
    monkeypatch.setenv("POSITION_SYNC_STRATEGIES_FILE", str(path))
    return path


def test_the_registry_is_made_equal_to_the_strategies_file(
    materialize, lake: Lake, strategies_file: Path, instance
) -> None:
    result = materialize(active_strategies)
    event = materialized(result, "active_strategies")
    assert numbers(event) == {
        "dagster/row_count": 2,
        "strategies": 1,
        "conids": 2,
        "delta_version": lake.registry.table.version(),
    }
    assert event.tags["dagster/data_version"] == str(lake.registry.table.version())
    assert len(lake.registry.sync.get_all_active()) == 2
    run = instance.get_run_by_id(result.run_id)
    assert run.tags[REGISTRY_VERSION] == str(lake.registry.table.version())


def test_the_same_file_again_makes_no_new_version(
    materialize, lake: Lake, strategies_file: Path
) -> None:
    materialize(active_strategies)
    before = lake.registry.table.version()
    materialize(active_strategies)
    assert lake.registry.table.version() == before


def test_a_malformed_file_fails_with_line_and_remedy_and_leaves_the_table_alone(
    materialize, lake: Lake, strategies_file: Path
) -> None:
    materialize(active_strategies)
    strategies_file.write_text(STRATEGIES.replace("right: C", "right: X"))
    message = failure(materialize(active_strategies), "active_strategies")
    assert "line 4" in message
    assert "Write CALL or PUT" in message
    assert len(lake.registry.sync.get_all_active()) == 2


def test_without_a_file_the_table_rules(materialize, lake: Lake) -> None:
    event = materialized(materialize(active_strategies), "active_strategies")
    assert numbers(event)["dagster/row_count"] == 0


def test_a_refresh_without_a_gateway_says_what_was_tried_and_what_to_do(
    materialize, lake: Lake
) -> None:
    message = failure(materialize(position_queue), "position_queue")
    assert "127.0.0.1:1" in message
    assert lake.queue.sync.overview().claimable == 0


def test_a_refresh_does_nothing_while_a_stream_is_alive(materialize, own_login) -> None:
    own_login()
    event = materialized(materialize(position_queue), "position_queue")
    assert numbers(event)["enqueued"] == 0
    assert numbers(event)["connections"] == 0


def test_a_drain_values_waiting_requests_and_reports_numbers(
    materialize, lake: Lake, own_login, write_holdings, enqueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSITION_SYNC_BATCH_SIZE", "2")
    write_holdings(own_login(), 1, 2, 3)
    enqueue(1, 2, 3)
    result = materialize(position_updates)
    event = materialized(result, "position_updates")
    found = numbers(event)
    assert (found["drain/rows"], found["drain/batches"], found["drain/pending_after"]) == (3, 2, 0)
    assert found["delta_version"] == lake.updates.table.version()
    assert found["drain/oldest_wait_s"] > 0
    assert event.tags["dagster/data_version"] == str(lake.updates.table.version())
    table = event.metadata["batch_table"]
    assert [record.data["rows"] for record in table.records] == [2, 1]
    texts = {column.name: column.description for column in table.schema.columns}
    assert texts["released"].startswith("Those that became PENDING again")
    assert set(lake.updates.sync.latest()["run_id"]) == {result.run_id}


def test_a_drain_without_work_records_the_version_that_is_there(
    materialize, lake: Lake, own_login, write_holdings
) -> None:
    write_holdings(own_login(), 1)
    event = materialized(materialize(position_updates), "position_updates")
    assert numbers(event)["drain/rows"] == 0
    assert event.tags["dagster/data_version"] == str(lake.updates.table.version())


def test_a_gateway_without_connection_is_no_failure_of_a_drain(
    materialize, lake: Lake, own_login, enqueue
) -> None:
    own_login(state=SessionState.BLIND)
    enqueue(1)
    event = materialized(materialize(position_updates), "position_updates")
    assert "BLIND" in event.metadata["note"].value
    assert lake.queue.sync.overview().claimable == 1


def test_a_drain_that_releases_requests_records_their_number_for_the_sensor(
    materialize, own_login, write_holdings, enqueue, instance
) -> None:
    write_holdings(own_login(), 1, completeness=Completeness.PARTIAL)
    enqueue(7)
    result = materialize(position_updates)
    assert instance.get_run_by_id(result.run_id).tags[RELEASED] == "1"


def test_a_foreign_table_fails_a_drain_with_the_remedy(
    materialize, settings, tmp_path: Path
) -> None:
    foreign = Path(settings.lake) / "position_queue"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("mine")
    message = failure(materialize(position_updates), "position_updates")
    assert "is not the table 'position_queue'" in message
    assert "POSITION_SYNC_LAKE" in message


def test_a_malformed_setting_fails_a_run_and_names_its_variable(
    materialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSITION_SYNC_BATCH_SIZE", "many")
    message = failure(materialize(position_updates), "position_updates")
    assert "POSITION_SYNC_BATCH_SIZE='many'" in message


def test_a_drain_evaluates_the_checks_after_its_rows_without_having_planned_them(
    settings, instance, lake: Lake, own_login, write_holdings, enqueue
) -> None:
    """While a planned check waits, Dagster shows no result of it."""
    write_holdings(own_login(), 1, 2)
    enqueue(1, 2)
    job = defs().resolve_job_def(DRAIN_JOB)
    result = job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey(step.value) for step in DRAIN_AND_DERIVE]
    )
    kinds = [event.event_type for event in result.all_events]
    assert dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED not in kinds
    first_row = kinds.index(dg.DagsterEventType.ASSET_MATERIALIZATION)
    first_check = kinds.index(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    assert first_row < first_check
    checked = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert set(checked) == {limits_are_read.check_key.name, SUMS_CHECK, *(key.name for key in KEYS)}
    # The fixture's session has no lines, and its login no account values: both are unknown.
    assert {name for name, passed in checked.items() if not passed} == {
        "lines_suffice",
        "account_values_follow",
    }
    names = [e.asset_key.to_user_string() for e in result.get_asset_materialization_events()]
    assert names == [step.value for step in DRAIN_AND_DERIVE]
    assert DRAINED in instance.get_run_by_id(result.run_id).tags


def test_a_run_of_the_registry_alone_evaluates_its_check(settings, instance, lake: Lake) -> None:
    """Else its result would be old until the next drain."""
    job = defs().resolve_job_def(DRAIN_JOB)
    result = job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("active_strategies")]
    )
    found, *_ = result.get_asset_check_evaluations()
    assert (found.check_name, found.passed) == ("legs_are_resolved", True)
    newest = instance.fetch_materializations(dg.AssetKey("active_strategies"), limit=1).records[0]
    assert found.target_materialization_data.storage_id == newest.storage_id
