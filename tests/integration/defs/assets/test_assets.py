"""The assets of the queue's path: strategies, queue, ledger."""

from pathlib import Path
from shutil import rmtree

import dagster as dg

from position_sync_dagster.defs.assets import queue_and_ledger
from position_sync_dagster.defs.assets.queue_and_ledger import (
    active_strategies,
    position_queue,
    position_updates,
)
from position_sync_dagster.money.strategies.strategies_file import RuledFile
from position_sync_dagster.settings import load_settings

STRATEGIES = """\
strategies:
  - strategy_id: iron
    legs:
      - {conid: 1, symbol: SPY, right: C, strike: 500, expiry: "20281215"}
      - {conid: 2, symbol: SPY, right: P, strike: 480, expiry: "20281215"}
"""


def numbers(event: dg.AssetMaterialization) -> dict[str, float]:
    return {
        name: value.value
        for name, value in event.metadata.items()
        if isinstance(value.value, int | float)
    }


def test_the_registry_is_made_equal_to_the_strategies_file(world, lake, strategies_file):
    strategies_file.write_text(STRATEGIES)
    event = world.event(world.materialize(active_strategies), "active_strategies")
    assert numbers(event) == {"dagster/row_count": 2, "strategies": 1, "conids": 2}
    assert len(lake.registry.sync.get_all_active()) == 2
    world.materialize(active_strategies)
    version = event.tags["dagster/data_version"]
    assert version == str(lake.registry.table.version()), "the same file makes no new one"


def test_a_file_that_is_saved_while_a_run_applies_the_older_one_is_applied(
    world, lake, strategies_file, monkeypatch
):
    strategies_file.write_text(STRATEGIES)

    apply = RuledFile.apply

    def overtaken(older, registry):
        """Apply a file after another program has applied the one that was saved since."""
        monkeypatch.setattr(RuledFile, "apply", apply)
        strategies_file.write_text(STRATEGIES.replace("iron", "newer"))
        queue_and_ledger.apply_file(lake, load_settings())
        return apply(older, registry)

    monkeypatch.setattr(RuledFile, "apply", overtaken)
    world.materialize(active_strategies)
    assert {leg.strategy_id for leg in lake.registry.sync.get_all_active()} == {"newer"}


def test_materializing_the_queue_enqueues_what_is_in_no_strategy(world, lake, strategies_file):
    strategies_file.write_text(STRATEGIES)
    world.materialize(active_strategies)
    world.hold(1, 2, 7, 8)
    event = world.event(world.materialize(position_queue), "position_queue")
    assert numbers(event)["requests"] == 2
    assert numbers(event)["pending"] == 2
    batch = lake.queue.sync.get_batch(limit=10)
    assert sorted(row.conid for row in batch) == [7, 8]
    assert {row.reason for row in batch} == {"REFRESH"}


def test_a_drain_values_waiting_requests_and_reports_numbers(world, lake):
    world.set(batch_size="2")
    world.hold(1, 2, 3)
    world.ask(1, 2, 3)
    result = world.materialize(position_updates)
    shown_numbers = numbers(world.event(result, "position_updates"))
    assert shown_numbers["claimed"] == 3
    assert shown_numbers["succeeded"] == 3
    assert shown_numbers["pending_after"] == 0
    assert "rows" not in shown_numbers, "the next tick reports them"
    assert set(lake.updates.sync.latest()["run_id"]) == {result.run_id}


def test_a_foreign_table_fails_a_drain_with_the_remedy(world, lake):
    foreign = Path(lake.queue.table.path)
    rmtree(foreign / "_delta_log")
    (foreign / "notes.txt").write_text("mine")
    message = world.failure(world.materialize(position_updates), "position_updates")
    assert "is not the table 'position_queue'" in message
    assert "POSITION_SYNC_LAKE" in message
