"""Limits in the strategies file, from the rows of the ledger to the messages of a receiver."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from position_sync_dagster.defs.alerts import tell_people
from position_sync_dagster.defs.assets.derived_tables import strategy_exposure
from position_sync_dagster.defs.assets.queue_and_ledger import active_strategies
from position_sync_dagster.defs.checks.strategies import strategies_checks
from position_sync_dagster.domain.gateway_session import SessionState

FILE = """\
strategies:
  - strategy_id: condor
    limits: {currency: USD, unrealized_pnl: {min: -1500}}
    legs:
      - {conid: 1, symbol: SPY}
"""
LIMIT = "limit_strategy_condor_unrealized_pnl_min"
OWN = f"strategy_exposure: {LIMIT}"
VALUE = f"{OWN} (its value)"


@pytest.fixture
def file(settings, monkeypatch, tmp_path) -> Path:
    path = tmp_path / "strategies.yaml"
    path.write_text(FILE)
    monkeypatch.setenv("POSITION_SYNC_STRATEGIES_FILE", str(path))
    return path


@pytest.fixture
def publish(world, file, lake, instance, receiver) -> Callable[..., list[str]]:
    """Write a row, publish the exposure, evaluate the sensor; return the titles of new messages."""
    assert world.materialize(active_strategies).success
    session = world.own()
    stored: list[str | None] = [None]

    def step(profit: float | None, *, state: SessionState = SessionState.LIVE) -> list[str]:
        nonlocal session
        before = len(receiver.messages)
        session = lake.sessions.renew(session, lease_s=60.0, state=state)
        world.row(1, 0, unrealized_pnl=profit)
        assert world.materialize(strategy_exposure).success
        for _ in range(2):  # the second finds nothing to say
            with dg.build_sensor_context(instance=instance, cursor=stored[0]) as context:
                result = tell_people(context)
            assert isinstance(result, dg.SensorResult)
            stored[0] = result.cursor
        return [
            title
            for message in receiver.messages[before:]
            for title in (message["title"] + "\n" + message["message"]).splitlines()
            if title.startswith(("WARN:", "ERROR:", "Passes again:"))
        ]

    return step


def test_a_walk_that_crosses_returns_and_crosses_again_sends_each_once(publish, receiver):
    assert publish(-1000.0) == []
    assert publish(-1500.0) == [], "the limit itself is allowed"
    assert publish(-1612.5) == [f"ERROR: {OWN}"]
    (_title, body) = receiver.taken()[-1]
    assert "strategy condor: unrealised profit -1,612.5 USD; the min is -1,500 USD." in body
    assert "What to do: Decide about the position" in body
    assert publish(-1700.0) == []
    assert publish(-900.0) == [f"Passes again: {OWN}"]
    assert publish(-1501.0) == [f"ERROR: {OWN}"]


def test_what_is_not_known_is_said_once_and_ends_no_break(publish, file, receiver):
    assert publish(-1600.0) == [f"ERROR: {OWN}"]
    assert publish(None) == [f"WARN: {VALUE}"]
    assert publish(None) == []
    assert publish(-1600.0) == [f"Passes again: {VALUE}"]
    assert publish(100.0, state=SessionState.BLIND) == [f"WARN: {VALUE}"]
    assert publish(100.0) == [f"Passes again: {OWN}", f"Passes again: {VALUE}"]
    file.write_text(FILE.replace("USD", "GBP"))
    assert publish(100.0) == [f"WARN: {VALUE}"]
    assert "the broker has sent no exchange rate to GBP" in receiver.taken()[-1][1]
    assert publish(-1600.0) == [], "neither broken nor fine"
    file.write_text(FILE)
    assert publish(100.0) == [f"Passes again: {VALUE}"]


def test_a_mistake_in_the_file_is_said_and_forgets_no_break(publish, file, receiver):
    assert publish(-1600.0) == [f"ERROR: {OWN}"]
    file.write_text(FILE.replace("-1500", "nan"))
    assert publish(-1600.0) == ["ERROR: strategy_exposure: limits_are_read"]
    assert "line 3, column 51: min 'nan' cannot be used" in receiver.taken()[-1][1]
    file.write_text(FILE)
    assert publish(-1600.0) == ["Passes again: strategy_exposure: limits_are_read"]
    assert publish(0.0) == [f"Passes again: {OWN}"]


def test_each_limit_is_a_check_of_the_asset(world, file, publish):
    *_others, check = strategies_checks().asset_checks
    publish(-1600.0)
    result = world.materialize(strategy_exposure, check)
    evaluations = [e for e in result.get_asset_check_evaluations() if e.check_name == LIMIT]
    assert [e.passed for e in evaluations] == [False, False], "with the table, and on its own"
    assert len({e.description for e in evaluations}) == 1


def test_definitions_load_beside_a_file_with_a_mistake(file):
    file.write_text(FILE.replace("-1500", "nan"))
    *_legs, is_read = strategies_checks().asset_checks
    assert is_read.check_key.name == "limits_are_read"
