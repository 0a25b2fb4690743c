"""What a strategy has earned so far: open campaigns, by the engine of those that are over."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.campaigns.campaigns import (
    closed_campaigns,
    money_of,
    open_campaigns,
)
from position_sync_dagster.money.campaigns.closes_of_strategies import Closes
from position_sync_dagster.money.campaigns.lots import lots_of
from position_sync_dagster.money.campaigns.strategy_money import live_money
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.movements import Movement, MovementKind
from position_sync_dagster.money.past.opening import Opening
from position_sync_dagster.money.reports.money_sums import SinceFirstLeg
from tests.support.money_rows import NOW, book_of, row
from tests.unit.money.campaigns.test_closed_campaigns import (
    ACTIONS,
    AT_RISK,
    BOUGHT,
    CALL,
    COVERED_CALL,
    OTHER,
    PUT,
    SHARES,
    SOLD,
    A,
    booked,
    leg,
    moved,
    parts_of,
)

SOLD_OTHER = moved(OTHER, -1.0, 1.5, 4)
ASSIGNED = [
    SOLD,
    booked(PUT, 1.0, 0.0, 6, MovementKind.ASSIGNMENT),
    booked(SHARES, 100.0, 50.0, 6, MovementKind.ASSIGNMENT),
]
OF_PUTS = (leg(PUT), leg(OTHER))


def option(conid: int, quantity: float, value: float, **more: Any) -> PositionUpdate:
    return row(conid, account=A, position=quantity, market_value=value, **more)


def shares(quantity: float, price: float, unrealized: float = -777.0) -> PositionUpdate:
    """Return a holding whose cost at the broker is not ours."""
    return row(
        SHARES, account=A, position=quantity, market_value=quantity * price, right=None,
        unrealized_pnl=unrealized, strike=None, expiry=None, sec_type="STK", multiplier=1.0,
    )  # fmt: skip


def so_far(
    movements: Sequence[Movement],
    held: Sequence[PositionUpdate],
    legs: Sequence[ActiveContract] = OF_PUTS,
    before: float = 0.0,
    cost: float | None = None,
    **more: Any,
) -> SinceFirstLeg:
    """Return the money since the first leg; `before` was held of the put, for `cost` each."""
    openings = {}
    if before:
        openings = {(A, PUT): Opening(quantity=before, cost=cost)}

    parts = attributed(movements, legs, openings)
    closes = Closes(since=NOW, parts=parts, **more)
    gone = {leg.conid for leg in legs} - {holding.conid for holding in held}
    rows = [*held, *(row(conid, account=A, position=0.0) for conid in gone)]
    [sums] = [sums for sums in book_of(rows, legs, closes=closes).strategies if sums.currency]
    assert sums.since_first_leg is not None
    return sums.since_first_leg


def test_a_roll_keeps_the_profit_of_the_leg_that_is_gone():
    results = so_far([SOLD, BOUGHT, SOLD_OTHER], [option(OTHER, -1.0, -120.0)])
    assert results.realised == 200 - 50 - 2
    assert results.open == 150 - 1 - 120
    assert results.profit == 148 + 29
    assert results.fees == 3


def test_the_sums_of_a_strategy_have_what_its_campaign_has():
    """Shares of an assignment that are no leg, and a leg that was removed while it was held."""
    parts = attributed([*ASSIGNED, SOLD_OTHER], OF_PUTS, {})
    closes = Closes(since=NOW, parts=parts)
    book = book_of([shares(100, 49.0), option(OTHER, -1.0, -120.0)], [], closes=closes)
    [sums] = book.strategies
    assert sums.value == 4900 - 120
    assert sums.since_first_leg.open == (4900 - 5000) + (149 - 120)
    assert book.rest == []
    assert "s" in book.names.strategies


def test_an_assignment_leaves_its_shares_at_the_strike_and_keeps_the_premium():
    results = so_far(ASSIGNED, [shares(100, 49.0)])
    assert results.realised == 199
    assert results.open == (-100)
    as_leg = so_far(ASSIGNED, [shares(100, 49.0)], (*OF_PUTS, leg(SHARES)))
    assert as_leg.profit == results.profit
    sold = so_far([*ASSIGNED, moved(SHARES, -100.0, 51.0, 9)], [])
    assert sold.realised == 199 + 99
    assert sold.open == 0
    assert sold.fees == 2


@pytest.mark.parametrize("movements", [case[0] for case in (*ACTIONS.values(), *AT_RISK.values())])
def test_a_campaign_that_is_over_has_realised_the_profit_of_its_row(movements):
    conids = {movement.conid for movement in movements}
    legs = []
    if SHARES in conids:
        legs = [leg(conid) for conid in conids - {SHARES}]

    legs = legs or [leg(conid) for conid in conids]
    if any(movement.kind is MovementKind.CORPORATE_ACTION for movement in movements):
        legs = [*COVERED_CALL]
    [campaign] = closed_campaigns(attributed(movements, legs, {}))
    results = so_far(movements, [], legs)
    assert results.realised == pytest.approx(money_of(campaign.parts, "USD").profit)
    assert results.open == 0


def test_what_was_held_before_all_movements_has_the_cost_that_the_broker_says():
    results = so_far([BOUGHT], [], before=-1.0, cost=180.0)
    assert results.realised == 180 - 50 - 1
    assert results.open == 0
    assert so_far([BOUGHT], [], before=-1.0).realised is None


def test_what_no_movement_names_yet_has_the_open_profit_of_the_broker():
    held = [option(PUT, -2.0, -300.0, unrealized_pnl=70.0)]
    assert so_far([SOLD], held).open == 70
    assert so_far([], held).open == 70
    unknown = [option(PUT, -2.0, -300.0, unrealized_pnl=None)]
    assert so_far([SOLD], unknown).profit is None


@pytest.mark.parametrize(
    ("movements", "held"),
    [
        ([replace(SOLD, fee=None), BOUGHT], []),
        ([replace(SOLD, fee_currency=None), BOUGHT], []),
        (ASSIGNED[:2], []),  # what was delivered has no movement
        (ASSIGNED, []),  # it is not held
        (ASSIGNED, [shares(60, 49.0)]),
        ([SOLD], []),  # what closed it has no movement yet
    ],
)
def test_a_part_that_is_not_known_leaves_the_profit_unknown(movements, held):
    assert so_far(movements, held).profit is None


def test_a_value_that_is_not_known_leaves_what_is_open_unknown():
    holding = replace(shares(100, 49.0), market_value=None)
    results = so_far(ASSIGNED, [holding])
    assert results.realised == 199
    assert results.open is None
    assert results.profit is None


@pytest.mark.parametrize("account", [A, "U2"])
@pytest.mark.parametrize("fee", [None, -1.0])
def test_a_fee_of_unknown_currency_leaves_no_other_campaign_unknown(fee, account):
    """Of a put in dollars nothing says in which currency its fee was; a call brings 98 pounds."""
    sold = replace(SOLD, fee=fee, fee_currency=None)
    in_pounds = {"currency": "GBP", "fee_currency": "GBP", "account": account}
    call = [moved(CALL, -1.0, 3.0, 5, **in_pounds), moved(CALL, 1.0, 2.0, 6, **in_pounds)]
    parts = parts_of([sold, BOUGHT, *call], leg(PUT), leg(CALL))
    realised = {currency: money.realised for (_, currency), money in live_money(parts).items()}
    assert realised == {"USD": None, "GBP": 98}
    campaigns = closed_campaigns(parts)
    of_campaigns = [money_of(campaign.parts, "GBP").profit for campaign in campaigns]
    assert sum(of_campaigns) == 98

    still_held = live_money(parts_of([sold, *call], leg(PUT), leg(CALL)))
    assert [money.realised for money in still_held.values()] == [0, 98]


@pytest.mark.parametrize(("fee", "charged_in", "usd", "gbp"), [
    (-3.0, "GBP", 0, 98 - 3), (None, "GBP", 0, None), (-3.0, "USD", 0, 98), (None, "USD", 0, 98),
])  # fmt: skip
def test_a_fee_in_another_currency_is_realised_when_it_is_charged_also_of_what_is_held(
    fee, charged_in, usd, gbp
):
    """One in the currency of its contract is a part of what that cost, and waits for its close."""
    held = replace(SOLD, fee=fee, fee_currency=charged_in)
    in_pounds = {"currency": "GBP", "fee_currency": "GBP"}
    call = [moved(CALL, -1.0, 3.0, 5, **in_pounds), moved(CALL, 1.0, 2.0, 6, **in_pounds)]
    parts = parts_of([held, *call], leg(PUT), leg(CALL))
    realised = {currency: money.realised for (_, currency), money in live_money(parts).items()}
    assert realised == {"USD": usd, "GBP": gbp}
    [campaign] = open_campaigns(parts)
    assert money_of(campaign.parts, "GBP").profit == gbp
    lots = [lot.profit for lot in lots_of(parts) if lot.currency == "GBP"]
    assert (None if None in lots else sum(lots)) == gbp


def test_a_fee_in_another_currency_stays_in_its_own():
    in_euros = replace(BOUGHT, fee_currency="EUR")
    results = so_far([SOLD, in_euros], [])
    assert results.realised == 200 - 50 - 1
    assert results.fees == 1
    assert results.other_fees == {"EUR": 1}


def test_an_option_on_a_future_leaves_one_future_at_its_own_multiplier():
    terms = {"multiplier": 50.0, "symbol": "ES", "sec_type": "FUT"}
    future = moved(SHARES, 1.0, 6600.0, 6, cash=-330_000.0, fee=0.0, **terms)
    future = replace(future, kind=MovementKind.ASSIGNMENT, at=None)
    held = replace(shares(1, 6510.0 * 50), sec_type="FUT", multiplier=50.0)
    assert so_far([*ASSIGNED[:2], future], [held]).open == 50 * (6510 - 6600)


def test_a_split_under_a_covered_call_changes_nothing_that_is_open():
    movements, _profit = ACTIONS["two for one"]
    results = so_far(movements[:4], [shares(200, 25.0)], (leg(CALL), leg(SHARES)))
    assert results.open == 5000 - 5001
