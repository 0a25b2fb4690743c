"""Strategies that follow rolls: once, in one commit, and what is not clear is left to a person."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.defs.assets.queue_and_ledger import active_strategies
from position_sync_dagster.money.defs.strategies import rolls_are_followed
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.strategies.leg_followers import RollFollower
from position_sync_dagster.settings import load_settings
from tests.support.holdings import make_holding
from tests.unit.money.past.test_causes import ACCOUNT, CALL, OTHER, change, fill

FILE = """\
strategies:
  - strategy_id: ic
    follow_rolls: true
    legs:
      - {conid: 1, symbol: SPY, right: CALL, strike: 575, expiry: 20260320, account: DU1}
"""
AND_OTHER = """\
  - strategy_id: other
    legs:
      - {conid: 1, symbol: SPY, right: CALL, strike: 575, expiry: 20260320, account: DU1, quantity: -1}
"""  # noqa: E501


@pytest.fixture
def file(strategies_file):
    strategies_file.write_text(FILE)
    return strategies_file


@pytest.fixture
def follower(lake, file):
    """Follow the rolls a minute later."""
    later = timedelta(minutes=1)
    return RollFollower(lake, load_settings(), clock=lambda: datetime.now(UTC) + later)


def roll(lake, *, after: float = 0, held: tuple[int, ...] = (OTHER,)) -> None:
    """Roll two short calls, or a part of them, to others; they are what is held then."""
    at = datetime.now(UTC) + timedelta(seconds=1)
    explainer = CloseExplainer(lake)
    lake.position_changes.add([change(CALL, -2, after, at), change(OTHER, 0, -2 - after, at)])
    explainer.explain([fill(CALL, 2 + after, at), fill(OTHER, -2 - after, at)])
    rows = [make_holding(conid, at, account=ACCOUNT, position=-2.0) for conid in held]
    lake.broker_positions.replace(load_settings().gateway_id, rows)


def legs(lake):
    return {(leg.strategy_id, leg.conid) for leg in lake.registry.sync.get_all_active()}


def test_a_roll_is_followed_once_and_the_file_does_not_undo_it(world, lake, file, follower, caplog):
    world.derive(active_strategies)
    roll(lake)
    assert RollFollower(lake, load_settings()).follow().due == ()
    before = lake.registry.table.version()
    (done,) = follower.follow().due
    assert done.before.conid == CALL
    assert done.after.conid == OTHER
    assert done.after.rolled_from == "1"
    assert lake.registry.table.version() == before + 1
    assert "the strategy follows a roll: ic: -2 SPY 575C 20Mar26 → SPY 580C" in caplog.text
    assert follower.follow().due == ()

    state = world.derive(active_strategies)
    assert legs(lake) == {("ic", OTHER)}
    assert lake.registry.table.version() == before + 1
    assert "ic: SPY 580C 20Mar26 (3) in the place of 1 since" in str(state.metadata["rolled"])
    file.write_text(FILE.replace("{conid: 1", "{quantity: -1, conid: 1"))
    world.derive(active_strategies)
    assert [leg.quantity for leg in lake.registry.sync.get_all_active()] == [-1.0]
    file.write_text(FILE.replace("follow_rolls: true", "follow_rolls: false"))
    world.derive(active_strategies)
    assert legs(lake) == {("ic", CALL)}


def test_the_rows_of_a_gateway_that_is_gone_hold_up_no_roll(world, lake, follower):
    world.derive(active_strategies)
    gone = [make_holding(CALL, datetime.now(UTC), account=ACCOUNT, position=-2.0)]
    lake.broker_positions.replace("another address", gone)
    roll(lake)
    assert follower.follow().refused == ()
    assert legs(lake) == {("ic", OTHER)}


REFUSED = {
    "two strategies": ({}, "but the strategy other has it too"),
    "a part": ({"after": -1}, "but only a part of it at a time"),
    "still held": ({"held": (CALL, OTHER)}, "but it is still held in DU1"),
    "closed again": ({"held": ()}, "but the new contract is not held any more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_roll_that_is_not_clear_is_refused_by_name_and_fails_a_check(
    world, lake, file, follower, caplog, monkeypatch, name
):
    values, why = REFUSED[name]
    if name == "two strategies":
        file.write_text(FILE + AND_OTHER)
    world.derive(active_strategies)
    before = legs(lake)
    roll(lake, **values)
    follower.follow()
    assert follower.follow().refused == (
        f"ic: SPY 575C 20Mar26 was rolled to SPY 580C 20Mar26, {why}",
    )
    assert legs(lake) == before
    assert caplog.text.count("a roll is not followed: ic: SPY 575C") == 1

    monkeypatch.setattr(
        "position_sync_dagster.money.strategies.leg_followers.SETTLED_AFTER", timedelta(seconds=-9)
    )
    world.derive(active_strategies)
    assert why in str(world.fails(rolls_are_followed).metadata)
    file.write_text(FILE.replace("1, symbol", "3, symbol").replace("575", "580"))
    world.derive(active_strategies)
    world.passes(rolls_are_followed)


def test_two_positions_that_might_be_the_new_one_are_named(world, lake, file, follower):
    world.derive(active_strategies)
    roll(lake)
    at = datetime.now(UTC) + timedelta(seconds=1)
    third = replace(change(OTHER, 0, -2, at), conid=9, strike=590.0, change_id="9")
    lake.position_changes.add([third])
    CloseExplainer(lake).explain([fill(9, -2, at)])
    (text,) = follower.follow().refused
    assert "it is not clear which of" in text
    assert legs(lake) == {("ic", CALL)}


def test_a_file_with_a_mistake_moves_no_leg(world, lake, file, follower):
    world.derive(active_strategies)
    roll(lake)
    file.write_text(FILE + "follow_rolls: [")
    (text,) = follower.follow().refused
    assert "no roll is followed" in text
    assert legs(lake) == {("ic", CALL)}
