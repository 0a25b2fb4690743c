"""Parts of movements that are remembered: only those of contracts that changed are made again."""

from dataclasses import asdict, replace
from unittest.mock import patch

import pytest

from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.past import owned_parts
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.movements import Movement
from position_sync_dagster.money.past.owned_parts import RememberedParts
from position_sync_dagster.money.past.postings import Posting
from position_sync_dagster.money.tables import MOVEMENTS
from tests.unit.money.campaigns.test_closed_campaigns import (
    ACTIONS,
    BOUGHT,
    NEW_SHARES,
    OTHER,
    PUT,
    SHARES,
    SOLD,
    acted,
    leg,
    moved,
)

RENAMED, _profit = ACTIONS["another ticker"]


def told(part: Posting) -> tuple[object, ...]:
    return part.movement.movement_id, part.owner, part.quantity, part.fee, part.came_from


def made_again(memory: RememberedParts, movements: list[Movement], **legs: float) -> set[int]:
    """Return the contracts of which parts were made, which are those of all movements at once."""
    rows = frame_of(MOVEMENTS, map(asdict, movements))
    claims = [leg(PUT, quantity=legs.get("put")), leg(OTHER)]
    with patch.object(owned_parts, "attributed", wraps=attributed) as made:
        parts = memory.parts_of(rows, claims, {})
    assert sorted(map(told, parts)) == sorted(map(told, attributed(movements, claims, {})))
    return {movement.conid or 0 for movement in made.call_args.args[0]}


def test_what_an_order_traded_with_a_contract_of_two_strategies_is_made_again_with_it():
    """The other leg of the order says whose the shared one was."""
    memory = RememberedParts()
    legs = [leg(PUT, "a", quantity=-1.0), leg(PUT, "b", quantity=-1.0), leg(OTHER, "b")]
    opened = [moved(PUT, -2.0, 2.0, 2), moved(OTHER, -1.0, 1.0, 2)]
    closed = [moved(OTHER, 1.0, 0.5, 4, order_id="1"), moved(PUT, 1.0, 1.0, 4, order_id="1")]
    for number in range(3):
        movements = [*opened, *closed[:number]]
        parts = memory.parts_of(frame_of(MOVEMENTS, map(asdict, movements)), legs, {})
        assert sorted(map(told, parts)) == sorted(map(told, attributed(movements, legs, {})))
    assert {part.owner for part in parts if part.quantity > 0} == {"b"}


SPUN = acted(NEW_SHARES, 12.0, 6, type="SO", description="XYZ(US1) SPINOFF 12 FOR 100 (NEW, US2)")
TAKEN = acted(SHARES, -100.0, 4, type="TC", action_id="7")
CAME = acted(NEW_SHARES, 50.0, 6, type="TC", action_id="7")


@pytest.mark.parametrize("action", [[SPUN], [TAKEN, CAME]], ids=["a spin-off", "days apart"])
def test_what_an_action_brought_is_made_again_with_what_it_came_for(action):
    """First what it brought is sold, and then nothing of its origin is new."""
    memory = RememberedParts()
    legs = [leg(SHARES, "a")]
    movements = [moved(SHARES, 100.0, 10.0, 2), *action]
    for sold in ([], [moved(NEW_SHARES, -5.0, 3.0, 10)]):
        rows = frame_of(MOVEMENTS, map(asdict, [*movements, *sold]))
        parts = memory.parts_of(rows, legs, {})
        assert {part.owner for part in parts} == {"a"}


def test_a_spin_off_of_what_nobody_has_belongs_to_those_that_claim_it():
    """With and without what it came for: that is read only where a strategy may have it."""
    held = moved(SHARES, 100.0, 10.0, 2)
    for movements in ([held, SPUN], [SPUN]):
        *_held, part = attributed(movements, [leg(NEW_SHARES, "b")], {})
        assert (part.owner, part.quantity) == ("b", 12.0)
        assert part.unclear == "what NEW cost is not known: a corporate action brought it"


def test_only_the_parts_of_contracts_that_changed_are_made_again():
    memory = RememberedParts()
    movements = [SOLD, moved(OTHER, -1.0, 2.0, 2), *RENAMED]
    first = made_again(memory, movements)
    assert first == {movement.conid for movement in movements}
    assert made_again(memory, movements) == set()
    assert made_again(memory, [*movements, BOUGHT]) == {PUT}
    assert made_again(memory, [*movements, BOUGHT], put=-1.0) == {PUT}

    corrected = [*movements[:-1], replace(movements[-1], fee=-2.0), BOUGHT]
    of_action = {movement.conid for movement in RENAMED}
    assert made_again(memory, corrected, put=-1.0) == of_action
