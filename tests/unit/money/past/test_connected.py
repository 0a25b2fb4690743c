"""Which contracts are attributed together: the movements that are read for one of them."""

from collections.abc import Iterable
from dataclasses import asdict

import pytest

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.connected import connected_contracts
from position_sync_dagster.money.past.movements import Movement, MovementKind
from position_sync_dagster.money.tables import MOVEMENTS
from tests.support.legs import leg_rows
from tests.unit.money.campaigns.test_closed_campaigns import (
    CALL,
    NEW_SHARES,
    OTHER,
    PUT,
    SHARES,
    acted,
    leg,
    moved,
)


def read_for(
    conid: int, movements: Iterable[Movement], legs: Iterable[ActiveContract]
) -> list[Movement]:
    """Return the movements of the contracts that are connected with one."""
    listed = [*movements]
    rows = frame_of(MOVEMENTS, map(asdict, listed))
    group_of = dict(connected_contracts(rows, leg_rows(legs)).iter_rows())
    return [move for move in listed if group_of[move.conid] == group_of[conid]]


def test_what_an_order_traded_with_a_contract_of_two_strategies_says_whose_that_is():
    legs = [leg(PUT, "a", quantity=-1.0), leg(PUT, "b", quantity=-1.0), leg(OTHER, "b")]
    opened = [moved(PUT, -2.0, 2.0, 2), moved(OTHER, -1.0, 1.0, 2)]
    closed = [moved(OTHER, 1.0, 0.5, 4, order_id="1"), moved(PUT, 1.0, 1.0, 4, order_id="1")]
    elsewhere = moved(SHARES, 1.0, 50.0, 4)

    deciding = read_for(PUT, [*opened, *closed, elsewhere], legs)
    assert {movement.conid for movement in deciding} == {PUT, OTHER}
    closers = {part.owner for part in attributed(deciding, legs) if part.quantity > 0}
    assert closers == {"b"}


def test_the_order_of_shares_says_whose_they_are_that_options_of_two_strategies_delivered():
    """They are no leg of either."""
    legs = [leg(PUT, "a"), leg(OTHER, "b")]
    night = {"kind": MovementKind.ASSIGNMENT, "counter_conid": SHARES}
    ends = [moved(conid, 1.0, 0.0, 20, **night) for conid in (PUT, OTHER)]
    came = [
        moved(SHARES, 100.0, strike, 20, kind=MovementKind.ASSIGNMENT, counter_conid=conid)
        for conid, strike in ((PUT, 50.0), (OTHER, 45.0))
    ]
    call = moved(CALL, 1.0, 0.1, 23, order_id="1")
    sold = moved(SHARES, -100.0, 48.0, 23, order_id="1")
    opened = [moved(conid, -1.0, 1.0, 2) for conid in (PUT, OTHER, CALL)]
    deciding = read_for(SHARES, [*opened, *ends, *came, call, sold], [*legs, leg(CALL, "b")])
    parts = attributed(deciding, [*legs, leg(CALL, "b")])
    assert [part.owner for part in parts if part.movement is sold] == ["b"]


SPUN = acted(NEW_SHARES, 12.0, 6, type="SO", description="XYZ(US1) SPINOFF 12 FOR 100 (NEW, US2)")
TAKEN = acted(SHARES, -100.0, 4, type="TC", action_id="7")
CAME = acted(NEW_SHARES, 50.0, 6, type="TC", action_id="7")


@pytest.mark.parametrize("action", [[SPUN], [TAKEN, CAME]], ids=["a spin-off", "days apart"])
def test_what_an_action_brought_is_read_with_what_it_came_for(action):
    legs = [leg(SHARES, "a")]
    sold = moved(NEW_SHARES, -5.0, 3.0, 10)
    movements = [moved(SHARES, 100.0, 10.0, 2), *action, sold]
    deciding = read_for(NEW_SHARES, movements, legs)
    assert {part.owner for part in attributed(deciding, legs)} == {"a"}


def test_a_spin_off_of_what_nobody_has_belongs_to_those_that_claim_it():
    """With and without what it came for: that is read only where a strategy may have it."""
    held = moved(SHARES, 100.0, 10.0, 2)
    for movements in ([held, SPUN], [SPUN]):
        *_held, part = attributed(movements, [leg(NEW_SHARES, "b")], {})
        assert part.owner == "b"
        assert part.quantity == 12.0
        assert part.unclear == "what NEW cost is not known: a corporate action brought it"
