"""The payoff of strategies at their next expiry: exact with one expiry, by the model with two."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.risk.payoff import Payoff, payoffs
from position_sync_dagster.money.risk.priced_legs import Assumptions, PricedLegs
from position_sync_dagster.money.risk.terms import DatedDividend, NotPriced
from tests.support import money_rows
from tests.support.contracts import contract_details
from tests.support.legs import leg as claim
from tests.unit.money.risk.binomial_tree import tree_price
from tests.unit.money.risk.test_scenarios import EXPIRY, NOW, RATES, option, share

LATER = date(2026, 9, 18)


def leg(
    conid: int, right: str, strike: float, position: float, cost: float, **values: object
) -> PositionUpdate:
    """Return an option that cost so much per unit of the underlying."""
    multiplier = values.get("multiplier", 100.0)
    money = {"average_cost": cost * multiplier, "market_price": cost, "unrealized_pnl": 0.0}  # type: ignore[operator]
    usual = {"symbol": "IWM", "underlying_price": 100.0, "market_value": 0.0}
    terms = {"right": right, "strike": strike, "position": position}
    return option(conid, **usual | money | terms | values)


def priced(rows: list[PositionUpdate], **given: object) -> PricedLegs:
    parts = money_rows.book_of(rows, []).split.parts
    return PricedLegs.of(parts, Assumptions(now=NOW, **{"rates": RATES} | given))  # type: ignore[arg-type]


def only(*rows: PositionUpdate, **given: object) -> Payoff:
    (payoff,) = payoffs(priced(list(rows), **given))
    return payoff


def test_the_payoff_of_one_expiry_is_exact_and_needs_no_volatility():
    put = leg(1, "PUT", 95.0, -10.0, 6.5, implied_vol=None)
    payoff = only(put)
    assert payoff.greatest_profit == 6500.0
    assert payoff.break_evens == (88.5,)
    assert payoff.greatest_loss == 6500.0 - 95_000.0
    assert [(corner.price, corner.profit) for corner in payoff.corners] == [
        (0.0, -88_500.0),
        (95.0, 6500.0),
    ]
    assert payoff.why is None
    assert payoff.expiry == EXPIRY


def test_a_strike_above_five_times_the_price_bounds_the_payoff():
    spread = (leg(1, "CALL", 90.0, -1.0, 12.0), leg(2, "CALL", 700.0, 1.0, 0.01))
    payoff = only(*spread)
    assert payoff.greatest_loss == pytest.approx(1199.0 - 61_000.0)
    assert payoff.why is None


def test_a_break_even_on_a_strike_and_on_a_whole_percent_is_named():
    put = leg(1, "PUT", 95.0, -1.0, 4.0)
    assert only(put).break_evens == (91.0,)
    butterfly = [leg(n, "CALL", 80.0 + 10 * n, q, 0.0) for n, q in ((1, 1.0), (2, -2.0), (3, 1.0))]
    assert only(*butterfly).break_evens == (0.0, 90.0, 110.0)


def test_an_unbounded_side_is_null_and_says_so():
    naked = only(leg(1, "CALL", 105.0, -1.0, 2.0))
    assert naked.greatest_loss is None
    assert naked.greatest_profit == 200.0
    assert naked.why == "the greatest loss is unbounded"
    assert naked.break_evens == (107.0,)
    long = only(leg(1, "CALL", 105.0, 1.0, 2.0))
    assert long.greatest_loss == (-200.0)
    assert long.why == "the greatest profit is unbounded"


def test_a_cost_that_is_not_known_makes_the_payoff_unknown_and_names_the_leg():
    put = leg(1, "PUT", 95.0, -1.0, 4.0)
    unknown = replace(leg(2, "PUT", 90.0, 1.0, 2.0), average_cost=None)
    payoff = only(put, unknown)
    assert payoff.break_evens is None
    assert payoff.greatest_profit is None
    assert payoff.greatest_loss is None
    assert payoff.why == "not known: the average cost of IWM 90P 19Jun26"
    assert payoff.corners == ()


def test_a_leg_whose_delivery_is_not_known_makes_the_payoff_unknown():
    adjusted = leg(1, "CALL", 3.0, -1.0, 1.0, symbol="LCID", trading_class="LCID1")
    payoff = only(adjusted)
    assert payoff.why == f"not known: LCID 3C 19Jun26: {NotPriced.ADJUSTED}"


def test_no_rate_and_no_price_are_needed_where_all_legs_end_together():
    put = leg(1, "PUT", 95.0, -1.0, 4.0, currency="SEK", underlying_price=None)
    assert only(put).break_evens == (91.0,)


def test_shares_futures_and_multipliers_count():
    stock = share(5, symbol="IWM", position=100.0, average_cost=98.0, market_price=100.0)
    covered = only(stock, leg(1, "CALL", 105.0, -1.0, 2.0))
    assert covered.break_evens == (96.0,)
    assert covered.greatest_profit == 900.0
    assert covered.greatest_loss == (-9600.0)
    mini = leg(1, "PUT", 95.0, -1.0, 4.0, multiplier=10.0)
    assert only(mini).greatest_profit == 40.0


def es(conid: int, month: int, **values: object) -> PositionUpdate:
    usual = {"sec_type": "FUT", "symbol": "ES", "multiplier": 50.0, "position": 1.0}
    money = {"market_price": 6510.0, "average_cost": 6500.0 * 50, "expiry": date(2026, month, 19)}
    return share(conid, **usual | money | values)


def test_an_option_on_a_future_goes_with_the_future_of_its_month_alone():
    call = leg(1, "CALL", 6600.0, -1.0, 20.0, symbol="ES", multiplier=50.0, sec_type="FOP",
               underlying_price=6510.0)  # fmt: skip
    details = {1: contract_details(1, sec_type="FOP", under_conid=50, strike=6600.0,
                                   last_trade_date=EXPIRY, expires_on=EXPIRY)}  # fmt: skip
    covered, payoff = payoffs(priced([call, es(50, 6), es(51, 9)], details=details))
    assert covered.greatest_profit == pytest.approx(50 * (100 + 20))
    assert covered.break_evens == (6480.0,)
    assert payoff.greatest_profit is None
    assert payoff.why == "the greatest profit is unbounded"


def test_two_expiries_of_an_index_without_carry_are_two_underlyings():
    near = leg(1, "CALL", 20.0, -1.0, 2.0, symbol="VIX")
    assert len(payoffs(priced([near, replace(near, conid=2, expiry=LATER, position=1.0)]))) == 2


def calendar() -> list[PositionUpdate]:
    return [
        leg(1, "CALL", 100.0, -1.0, 3.0, implied_vol=0.2),
        leg(2, "CALL", 100.0, 1.0, 5.0, implied_vol=0.22, expiry=LATER),
    ]


def oracle(price: float, dividends: tuple[tuple[float, float], ...] = ()) -> float:
    """Return the profit of the calendar on its first expiry, by a binomial tree."""
    living = tree_price(
        call=True, spot=price, strike=100.0, years=91 / 365, rate=0.04, volatility=0.22,
        dividends=dividends, steps=400,
    )  # fmt: skip
    return 100 * (living - max(0.0, price - 100.0)) - 200.0


@pytest.mark.parametrize("gap", [None, 10])
def test_a_call_calendar_is_bounded_also_with_a_dividend_between_its_expiries(gap):
    ends = (EXPIRY - NOW.date()).days
    paid = []
    if gap is not None:
        paid = [DatedDividend(ex_date=NOW + timedelta(days=ends + gap), amount=1.5)]

    before = DatedDividend(ex_date=NOW + timedelta(days=20), amount=5.0)
    payoff = only(*calendar(), dividends={"IWM": [before, *paid]})
    of_tree = ()
    if gap is not None:
        of_tree = ((gap / 365, 1.5),)

    best = max(oracle(price, of_tree) for price in (99.5, 100.0))
    assert payoff.greatest_profit == pytest.approx(best, abs=2.5)
    assert payoff.greatest_loss == pytest.approx(-200.0, abs=2.5)
    assert payoff.why is None

    low, high = payoff.break_evens
    assert oracle(low, of_tree) == pytest.approx(0.0, abs=1.5)
    assert oracle(high, of_tree) == pytest.approx(0.0, abs=1.5)
    assert low < 100 < high


def test_the_extremes_of_a_curve_are_found_to_half_a_dollar():
    payoff = only(*calendar())
    near = np.linspace(90.0, 110.0, 4001)
    assert payoff.profit_at is not None
    profits = payoff.profit_at(near)
    assert payoff.greatest_profit == pytest.approx(profits.max(), abs=0.5)
    assert payoff.profit_at(np.array(payoff.break_evens)) == pytest.approx([0, 0], abs=0.5)


def test_a_leg_that_lives_on_without_a_volatility_makes_the_payoff_unknown():
    near, far = calendar()
    payoff = only(near, replace(far, implied_vol=None))
    assert payoff.greatest_profit is None
    assert "IWM 100C 18Sep26, which lives on" in str(payoff.why)


def test_a_ratio_of_time_is_unbounded_by_its_slope_alone():
    near, far = calendar()
    assert only(replace(near, position=-2.0), far).greatest_loss is None
    assert only(near, replace(far, position=2.0)).greatest_profit is None


def test_options_at_the_open_and_at_the_close_of_one_day_expire_together():
    near = leg(1, "PUT", 6300.0, 1.0, 5.0, symbol="SPX")
    days = {"last_trade_date": EXPIRY - timedelta(days=1), "expires_on": EXPIRY}
    index = contract_details(1, symbol="SPX", under_sec_type="IND", strike=6300.0, **days)
    morning = {1: index}
    payoff = only(near, leg(2, "PUT", 6200.0, -1.0, 4.0, symbol="SPX"), details=morning)
    assert payoff.greatest_profit == 9900.0
    assert payoff.break_evens == (6299.0,)


def test_a_strategy_with_uneven_legs_has_the_notes_of_its_legs_and_its_corners():
    strikes = ((90.0, "PUT", 1.0), (95.0, "PUT", -1.0), (105.0, "CALL", -1.0), (110.0, "CALL", 3.0))
    legs = [leg(n, right, strike, q, 1.0) for n, (strike, right, q) in enumerate(strikes, 61)]
    claims = [
        claim(row.conid, "iron-condor", symbol="IWM", right=row.right, strike=row.strike,
              expiry=EXPIRY)
        for row in legs
    ]  # fmt: skip
    parts = money_rows.book_of(legs, claims).split.parts
    (payoff,) = payoffs(PricedLegs.of(parts, Assumptions(now=NOW)), {"iron-condor": ["a note"]})
    assert payoff.note == "a note"
    assert payoff.row["corners"][0] == {"price": 0.0, "profit": -700.0}
