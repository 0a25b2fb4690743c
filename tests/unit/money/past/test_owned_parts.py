"""Which movements decide whose a contract is: those that are read for it alone."""

from dataclasses import asdict

from position_sync_dagster.lake.schema import frame_of, records_of
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.movements import Movement
from position_sync_dagster.money.past.owned_parts import deciding_movements
from position_sync_dagster.money.tables import MOVEMENTS
from tests.unit.money.campaigns.test_closed_campaigns import OTHER, PUT, SHARES, leg, moved


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
