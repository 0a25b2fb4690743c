"""Which movements decide whose a contract is: those that are read for it alone."""

from dataclasses import asdict

import pytest

from position_sync_dagster.lake.schema import frame_of, records_of
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.movements import Movement
from position_sync_dagster.money.past.owned_parts import deciding_movements
from position_sync_dagster.money.tables import MOVEMENTS
from tests.unit.money.campaigns.test_closed_campaigns import (
    NEW_SHARES,
    OTHER,
    PUT,
    SHARES,
    acted,
    leg,
    moved,
)


def test_what_an_order_traded_with_a_contract_of_two_strategies_says_whose_that_is():
    legs = [leg(PUT, "a", quantity=-1.0), leg(PUT, "b", quantity=-1.0), leg(OTHER, "b")]
    opened = [moved(PUT, -2.0, 2.0, 2), moved(OTHER, -1.0, 1.0, 2)]
    closed = [moved(OTHER, 1.0, 0.5, 4, order_id="1"), moved(PUT, 1.0, 1.0, 4, order_id="1")]
    elsewhere = moved(SHARES, 1.0, 50.0, 4)
    rows = frame_of(MOVEMENTS, map(asdict, [*opened, *closed, elsewhere]))

    deciding = records_of(Movement, deciding_movements(rows, {PUT}, legs))
    assert {movement.conid for movement in deciding} == {PUT, OTHER}
    closers = {part.owner for part in attributed(deciding, legs) if part.quantity > 0}
    assert closers == {"b"}


SPUN = acted(NEW_SHARES, 12.0, 6, type="SO", description="XYZ(US1) SPINOFF 12 FOR 100 (NEW, US2)")
TAKEN = acted(SHARES, -100.0, 4, type="TC", action_id="7")
CAME = acted(NEW_SHARES, 50.0, 6, type="TC", action_id="7")


@pytest.mark.parametrize("action", [[SPUN], [TAKEN, CAME]], ids=["a spin-off", "days apart"])
def test_what_an_action_brought_is_read_with_what_it_came_for(action):
    legs = [leg(SHARES, "a")]
    sold = moved(NEW_SHARES, -5.0, 3.0, 10)
    rows = frame_of(MOVEMENTS, map(asdict, [moved(SHARES, 100.0, 10.0, 2), *action, sold]))
    deciding = records_of(Movement, deciding_movements(rows, {NEW_SHARES}, legs))
    assert {part.owner for part in attributed(deciding, legs)} == {"a"}


def test_a_spin_off_of_what_nobody_has_belongs_to_those_that_claim_it():
    """With and without what it came for: that is read only where a strategy may have it."""
    held = moved(SHARES, 100.0, 10.0, 2)
    for movements in ([held, SPUN], [SPUN]):
        *_held, part = attributed(movements, [leg(NEW_SHARES, "b")], {})
        assert (part.owner, part.quantity) == ("b", 12.0)
        assert part.unclear == "what NEW cost is not known: a corporate action brought it"
