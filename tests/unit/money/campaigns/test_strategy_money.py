"""The money of strategies is computed again for those alone of which something has changed."""

from dataclasses import replace

import pytest

from position_sync_dagster.money.campaigns.strategy_money import Remembered, money_of_strategies
from tests.unit.money.campaigns.test_closed_campaigns import CALL, PUT, SOLD, leg, moved, parts_of
from tests.unit.money.past.test_causes import details

SOLD_CALL = moved(CALL, -1.0, 1.5, 2)
LEGS = (leg(PUT), replace(leg(CALL), strategy_id="calls"))
[PUTS, CALLS] = [(leg.strategy_id, "USD") for leg in LEGS]

CORRECTED = replace(SOLD_CALL, cash=140.0)
BOUGHT_CALL = moved(CALL, 1.0, 1.0, 4)
IN_CENTS = {CALL: details(CALL, price_magnifier=100)}
CHANGES = {
    "a correction": ([SOLD, CORRECTED], {}),
    "a close": ([SOLD, SOLD_CALL, BOUGHT_CALL], {}),
    "what is known of the contract": ([SOLD, SOLD_CALL], IN_CENTS),
}


@pytest.mark.parametrize(("movements", "contracts"), CHANGES.values(), ids=CHANGES)
def test_it_is_computed_again_where_something_has_changed(movements, contracts):
    remembered: Remembered = {}
    before = money_of_strategies(parts_of([SOLD, SOLD_CALL], *LEGS), {}, remembered)
    parts = parts_of(movements, *LEGS)
    again = money_of_strategies(parts, contracts, remembered)
    assert again == money_of_strategies(parts, contracts, {})
    assert again[CALLS] is not before[CALLS]
    assert again[PUTS] is before[PUTS]


def test_a_strategy_that_has_nothing_any_more_has_no_money_and_is_forgotten():
    remembered: Remembered = {}
    assert PUTS in money_of_strategies(parts_of([SOLD], *LEGS), {}, remembered)
    assert money_of_strategies([], {}, remembered) == {}
    assert not remembered
