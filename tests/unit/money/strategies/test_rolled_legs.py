"""Rolls: what was closed and opened for it, by one order or one after the other."""

from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.domain.instrument import Right, contract_name
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.causes import closures_of
from position_sync_dagster.money.past.movement_sources import Terms, reported_movement
from position_sync_dagster.money.past.structures import rolls_of
from position_sync_dagster.money.strategies.rolled_legs import Roll, rolled_legs
from tests.support.facts import facts_of
from tests.unit.money.past.test_causes import CALL, NOON, OTHER, PUT, SHARES, change, fill

TERMS_OF_ALL = Terms(session_of=lambda day: day, zone=NEW_YORK)


def told(
    changes: list[PositionChange], executions: list[Execution]
) -> tuple[list[Roll], list[str]]:
    facts = facts_of(changes=changes, executions=executions)
    movements = [reported_movement(execution, TERMS_OF_ALL) for execution in executions]
    rolls = rolled_legs(closures_of(facts), changes, movements)
    clear = [roll for roll in rolls if roll.is_clear]
    return clear, [str(roll) for roll in rolls if not roll.is_clear]


def rolls(changes: list[PositionChange], executions: list[Execution]) -> list[Roll]:
    return told(changes, executions)[0]


ROLLED = [change(CALL, -2, 0, NOON), change(OTHER, 0, -2, NOON)]
EXECUTED = [fill(CALL, 2, NOON), fill(OTHER, -2, NOON)]


def test_legs_of_one_order_are_a_roll() -> None:
    (roll,) = rolls(ROLLED, EXECUTED)
    assert roll.closed[0].conid == CALL
    assert roll.opened[0].conid == OTHER
    assert roll.quantity == (-2)
    assert roll.is_complete is True
    assert contract_name(roll.opened[0]) == "SPY 580C 20Mar26"


def opened(
    conid: int, quantity: float, **values: object
) -> tuple[list[PositionChange], list[Execution]]:
    """Return the close of the call beside what one order opened with it."""
    changes = [ROLLED[0], change(conid, 0, quantity, NOON, **values)]
    return changes, [EXECUTED[0], fill(conid, quantity, NOON, **values)]


OF_ANOTHER_ORDER = replace(EXECUTED[1], order_id="72")
THIRD = 3_000
TERMS: dict[str, object] = {
    "right": Right.CALL, "sec_type": "OPT", "strike": 590.0, "expiry": ROLLED[0].expiry,
}  # fmt: skip
SECOND_OPENED = change(THIRD, 0, -2, NOON, **TERMS)
OF_SECOND = fill(THIRD, -2, NOON, order_id="73")
NO_ROLLS = {
    "two orders": (ROLLED, [EXECUTED[0], OF_ANOTHER_ORDER]),
    "another right": opened(PUT, -2),
    "another quantity": opened(OTHER, -1),
    "another side": opened(OTHER, 2),
    "shares": opened(SHARES, -2),
    "another account": opened(OTHER, -2, account="DU2"),
    "a close without an execution": (ROLLED, [EXECUTED[1]]),
}
NO_ROLLS["two that might be the new leg"] = (
    [*ROLLED, SECOND_OPENED],
    [EXECUTED[0], OF_ANOTHER_ORDER, OF_SECOND],
)


@pytest.mark.parametrize("name", NO_ROLLS)
def test_what_is_no_roll(name: str) -> None:
    assert rolls(*NO_ROLLS[name]) == []


def test_a_part_that_was_rolled_is_not_the_whole_leg() -> None:
    changes = [change(CALL, -3, -1, NOON), ROLLED[1]]
    (roll,) = rolls(changes, EXECUTED)
    assert not roll.is_complete


def test_where_two_might_be_the_new_leg_or_the_old_one_both_are_named_and_none_is_chosen() -> None:
    new = change(THIRD, 0, -2, NOON, **TERMS)
    found, (text,) = told([*ROLLED, new], [*EXECUTED, fill(THIRD, -2, NOON)])
    assert found == []
    assert text == (
        "it is not clear which of SPY 580C 20Mar26 and SPY 590C 20Mar26 took the place of "
        "SPY 575C 20Mar26 of DU1"
    )
    old = change(THIRD, -2, 0, NOON, **TERMS)
    found, (text,) = told([*ROLLED, old], [*EXECUTED, fill(THIRD, 2, NOON)])
    assert found == []
    assert text == (
        "it is not clear which of SPY 580C 20Mar26 took the place of SPY 575C 20Mar26 and "
        "SPY 590C 20Mar26 of DU1"
    )


def test_what_was_traded_near_an_order_does_not_make_it_unclear() -> None:
    old = change(THIRD, -2, 0, NOON, **TERMS)
    executions = [*EXECUTED, fill(THIRD, 2, NOON, order_id="72")]
    found, unclear = told([*ROLLED, old], executions)
    assert [roll.closed[0].conid for roll in found] == [CALL]
    assert unclear == []


def test_an_order_that_is_filled_in_parts_is_one_roll() -> None:
    later = NOON + timedelta(minutes=1)
    changes = [change(CALL, -2, -1, NOON), change(OTHER, 0, -1, NOON)]
    changes += [change(CALL, -1, 0, later), change(OTHER, -1, -2, later)]
    executions = [fill(CALL, 1, NOON), fill(OTHER, -1, NOON)]
    executions += [fill(CALL, 1, later), fill(OTHER, -1, later)]
    (roll,), unclear = told(changes, executions)
    assert roll.quantity == (-2)
    assert roll.is_complete is True
    assert roll.opened[0].before == 0
    assert roll.opened[0].after == (-2)
    assert unclear == []


def test_a_leg_that_was_rolled_is_a_roll_of_its_campaign_and_what_took_no_place_is_none() -> None:
    later = NOON + timedelta(minutes=10)
    again = [fill(CALL, 2, NOON), fill(CALL, -2, later)]
    for executions, contracts in ((EXECUTED, [{CALL, OTHER}]), (again, [])):
        held_before = fill(CALL, -2, NOON - timedelta(days=1), order_id="1")
        told_of = [reported_movement(each, TERMS_OF_ALL) for each in (held_before, *executions)]
        rolled = rolls_of(attributed(told_of, []))
        assert [{part.conid for part in roll} for roll in rolled] == contracts


def test_a_contract_that_an_order_closed_and_opened_again_took_no_place_but_its_own() -> None:
    later = NOON + timedelta(minutes=10)
    changes = [ROLLED[0], change(CALL, 0, -2, later)]
    assert told(changes, [EXECUTED[0], fill(CALL, -2, later)]) == ([], [])


def test_a_trade_of_which_only_the_day_is_known_makes_no_roll() -> None:
    facts = facts_of(changes=ROLLED, executions=EXECUTED)
    movements = [replace(reported_movement(fill, TERMS_OF_ALL), at=None) for fill in EXECUTED]
    assert rolled_legs(closures_of(facts), ROLLED, movements) == []


def test_a_roll_is_seen_beside_another_close_of_its_contract_at_the_same_time() -> None:
    changes = [change(CALL, -5, -2, NOON), *ROLLED]
    executions = [fill(CALL, 3, NOON, order_id="72"), *EXECUTED]
    (roll,), unclear = told(changes, executions)
    assert roll.quantity == -2
    assert roll.closed[0].conid == CALL
    assert roll.opened[0].conid == OTHER
    assert unclear == []


def test_what_two_orders_closed_together_is_rolled_to_none_of_what_they_opened() -> None:
    changes = [*ROLLED, change(THIRD, 0, -2, NOON, **TERMS)]
    by_first = [fill(CALL, 1, NOON), EXECUTED[1]]
    closed = fill(CALL, 1, NOON, order_id="72", execution_id="e72.01")
    executions = [*by_first, closed, fill(THIRD, -2, NOON, order_id="72")]
    found, unclear = told(changes, executions)
    assert found == []
    assert len(unclear) == 2
