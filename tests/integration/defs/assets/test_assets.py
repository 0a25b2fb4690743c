"""The assets of the queue's path: strategies, queue, ledger."""

from pathlib import Path

import dagster as dg
import pytest

from position_sync_dagster.defs.assets.queue_and_ledger import (
    active_strategies,
    position_queue,
    position_updates,
)

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


def test_the_registry_is_made_equal_to_the_strategies_file(materialize, lake, strategies_file):
    result = materialize(active_strategies)
    event = materialized(result, "active_strategies")
    assert numbers(event) == {"dagster/row_count": 2, "strategies": 1, "conids": 2}
    assert len(lake.registry.sync.get_all_active()) == 2
    materialize(active_strategies)
    version = event.tags["dagster/data_version"]
    assert version == str(lake.registry.table.version()), "the same file makes no new one"


def test_materializing_the_queue_enqueues_what_is_in_no_strategy(
    materialize, lake, own_login, write_holdings, strategies_file
):
    materialize(active_strategies)
    write_holdings(own_login(), 1, 2, 7, 8)
    event = materialized(materialize(position_queue), "position_queue")
    assert numbers(event)["requests"] == numbers(event)["pending"] == 2
    batch = lake.queue.sync.get_batch(limit=10)
    assert sorted((one.conid, one.reason) for one in batch) == [(7, "REFRESH"), (8, "REFRESH")]


def test_a_drain_values_waiting_requests_and_reports_numbers(
    materialize, lake, own_login, write_holdings, enqueue, monkeypatch
):
    monkeypatch.setenv("POSITION_SYNC_BATCH_SIZE", "2")
    write_holdings(own_login(), 1, 2, 3)
    enqueue(1, 2, 3)
    result = materialize(position_updates)
    event = materialized(result, "position_updates")
    found = numbers(event)
    assert (found["claimed"], found["succeeded"], found["pending_after"]) == (3, 3, 0)
    assert "rows" not in found, "the next tick reports them"
    assert set(lake.updates.sync.latest()["run_id"]) == {result.run_id}


def test_a_foreign_table_fails_a_drain_with_the_remedy(materialize, settings, tmp_path):
    foreign = Path(settings.lake) / "position_queue"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("mine")
    message = failure(materialize(position_updates), "position_updates")
    assert "is not the table 'position_queue'" in message
    assert "POSITION_SYNC_LAKE" in message
