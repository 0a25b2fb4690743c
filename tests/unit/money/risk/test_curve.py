"""Profit and greeks over the price: now, on a chosen day and volatility, and at expiry."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.risk.curve import (
    NO_PROFIT,
    CurveRow,
    curve_keys,
    curves_of,
    first_drawn,
)
from position_sync_dagster.money.risk.scenario_file import Point
from position_sync_dagster.money.risk.scenarios import Breakdown, scenario_rows
from position_sync_dagster.money.risk.terms import DatedDividend, NotPriced
from tests.unit.money.risk.quantlib_oracle import Contract, Reference, reference
from tests.unit.money.risk.test_payoff import leg, priced
from tests.unit.money.risk.test_scenarios import EXPIRY, NOW, ROWS, share
from tests.unit.money.risk.test_scenarios import priced as priced_book

DAYS = 40
VOL = 6.0
RATE = 0.04
DIVIDEND_DAYS = 60
DIVIDEND = 0.8
AT_EXPIRY_DAYS = (EXPIRY - NOW.date()).days


def only(rows: list[PositionUpdate], shift: Point, **given: object) -> CurveRow:
    (curve,) = curves_of(priced(rows, **given), shift)
    return curve


def spread() -> list[PositionUpdate]:
    """Return a bull put spread with shares: 3 short at 95, 3 long at 90, 100 shares."""
    short = leg(1, "PUT", 95.0, -3.0, 2.0, implied_vol=0.22, unrealized_pnl=120.0)
    long = leg(2, "PUT", 90.0, 3.0, 1.0, implied_vol=0.25, unrealized_pnl=-45.0)
    money = {"market_price": 100.0, "average_cost": 97.0, "unrealized_pnl": 300.0}
    return [short, long, share(3, symbol="IWM", **money)]


def by_quantlib(spot: float, strike: float, volatility: float, days: int) -> Reference:
    contract = Contract(
        is_call=False, spot=spot, strike=strike, days=AT_EXPIRY_DAYS - days, rate=RATE,
        volatility=volatility, dividends=((DIVIDEND_DAYS - days, DIVIDEND),),
    )  # fmt: skip
    return reference(contract)


def test_the_curve_of_a_chosen_day_and_volatility_is_that_of_quantlib():
    paid = [DatedDividend(ex_date=NOW + timedelta(days=DIVIDEND_DAYS), amount=DIVIDEND)]
    shift = Point(vol=VOL, days=DAYS)
    curve = only(spread(), shift, dividends={"IWM": paid})
    short_now = by_quantlib(100.0, 95.0, 0.22, 0)
    long_now = by_quantlib(100.0, 90.0, 0.25, 0)

    for price in (90.0, 95.0, 100.0):
        place = curve.prices.index(price)
        short = by_quantlib(price, 95.0, 0.22 + VOL / 100, DAYS)
        long = by_quantlib(price, 90.0, 0.25 + VOL / 100, DAYS)
        changed = 300 * (long.price - long_now.price) - 300 * (short.price - short_now.price)
        profit = 120 - 45 + 300 + changed + 100 * (price - 100.0)
        assert curve.chosen[place] == pytest.approx(profit, abs=5.0)

        delta = 300 * (long.delta - short.delta) + 100
        assert curve.delta[place] == pytest.approx(delta, abs=1.0)
        assert curve.dollar_delta[place] == pytest.approx(delta * price, abs=100)
        gamma = 3 * (long.gamma - short.gamma) * price**2
        assert curve.gamma_1pct[place] == pytest.approx(gamma, rel=0.05, abs=15)
        assert curve.theta[place] == pytest.approx(300 * (long.theta - short.theta), abs=0.25)
        assert curve.vega[place] == pytest.approx(300 * (long.vega - short.vega), abs=0.6)


def test_without_a_shift_the_curve_begins_at_the_profit_that_is_open():
    curve = only(spread(), Point())
    place = curve.prices.index(100.0)
    assert curve.now[place] == pytest.approx(375.0, abs=1e-9)
    assert curve.chosen == curve.now
    assert curve.moves[place] == 0.0


def test_on_the_day_of_the_expiry_the_curve_is_what_exercise_gives():
    rows = [replace(active_leg, unrealized_pnl=None) for active_leg in spread()]
    money = {"unrealized_pnl": 0.0, "market_price": 2.0, "market_value": -600.0}
    put = leg(1, "PUT", 95.0, -3.0, 2.0, **money)
    curve = only([put], Point(days=AT_EXPIRY_DAYS + 1))
    corners = dict(zip(curve.prices, curve.at_expiry, strict=True))
    assert corners[95.0] == 600.0
    slope = np.diff(curve.chosen) / np.diff(curve.prices)
    assert slope[0] == pytest.approx(300.0)
    assert slope[-1] == pytest.approx(0.0, abs=1e-9)
    assert only(rows, Point()).now is None


def test_a_leg_that_cannot_be_priced_makes_the_curve_unknown_and_is_listed():
    rows = [*spread(), leg(4, "CALL", 110.0, -1.0, 1.0, implied_vol=None)]
    curve = only(rows, Point(vol=5.0))
    assert curve.now is None
    assert curve.chosen is None
    assert curve.theta is None
    assert [left.reason for left in curve.left_out] == [NotPriced.NO_VOLATILITY]
    assert curve.at_expiry is not None, "exercise needs no volatility"
    of_unknown = only([replace(spread()[0], unrealized_pnl=None)], Point())
    assert [left.reason for left in of_unknown.left_out] == [NO_PROFIT]


def test_the_first_curve_that_can_be_drawn_is_of_legs_that_can_all_be_priced():
    dark = leg(4, "CALL", 110.0, -1.0, 1.0, implied_vol=None, symbol="AAA")
    legs = priced([*spread(), dark])
    assert [under for _account, _currency, under in curve_keys(legs)] == ["AAA", "IWM"]
    assert first_drawn(legs) == curve_keys(legs)[1]
    assert first_drawn(priced([dark])) is None


def test_the_curve_of_an_underlying_is_what_single_scenarios_say():
    shift = Point(vol=3.0, days=10)
    rows = [replace(row, unrealized_pnl=0.0) for row in (*ROWS[:5], *ROWS[6:])]
    curves = curves_of(priced_book(rows), shift)
    by_key = {(curve.account, curve.currency, curve.underlying): curve for curve in curves}
    assert len(by_key) == len(curves)
    curve = by_key["DUSIM0001", "USD", "SPY"]
    for place in (0, 30, 60):
        point = Point(spot=curve.moves[place], vol=3.0, days=10)
        single = scenario_rows(priced_book(rows), [point], Breakdown.UNDERLYING)
        profits = {(row["account"], row["currency"], row["name"]): row["profit"] for row in single}
        assert len(profits) == len(single)
        profit = profits["DUSIM0001", "USD", "SPY"]
        assert curve.chosen[place] == pytest.approx(profit, rel=1e-12)


def test_an_underlying_without_a_price_has_no_prices():
    call = leg(1, "CALL", 105.0, -1.0, 2.0, underlying_price=None)
    (curve,) = curves_of(priced([call]), Point())
    assert curve.prices is None
    assert curve.now is None
    assert curve.break_evens == [107.0]


def test_a_future_that_costs_less_than_nothing_has_no_prices():
    future = {"symbol": "CL", "sec_type": "FUT", "multiplier": 1000.0, "position": 1.0}
    money = {"market_price": -37.63, "market_value": -37_630.0, "average_cost": -10_000.0}
    curve = only([share(1, **future, **money)], Point())
    assert curve.prices is None
    assert curve.legs == ["+1 CL"]


def test_a_curve_reaches_beyond_its_strikes_and_has_corners_and_break_evens_as_prices():
    rows = [
        leg(61, "PUT", 90.0, 1.0, 1.0),
        leg(62, "PUT", 95.0, -1.0, 1.0, average_cost=300.0),
        leg(63, "CALL", 105.0, -1.0, 1.0),
        leg(64, "CALL", 110.0, 1.0, 1.0),
    ]
    curve = only(rows, Point())
    assert {90.0, 95.0, 100.0, 105.0, 110.0} <= set(curve.prices)
    assert set(curve.break_evens) <= {round(price, 6) for price in curve.prices}
    assert len(curve.break_evens) == 2
    assert min(curve.at_expiry) == pytest.approx(-300.0)
    assert max(curve.at_expiry) == pytest.approx(200.0)
    assert curve.prices[0] < 88
    assert curve.prices[-1] > 112

    straddle = [leg(71, "PUT", 100.0, -1.0, 4.0), leg(72, "CALL", 100.0, -1.0, 4.0)]
    of_one_strike = only(straddle, Point())
    assert set(of_one_strike.break_evens) == {92.0, 108.0}
    assert set(of_one_strike.break_evens) <= set(of_one_strike.prices)


def test_legs_are_in_the_order_of_expiry_and_strike_whatever_came_last():
    puts = [leg(2, "PUT", 95.0, 3.0, 1.0), leg(3, "PUT", 105.0, 3.0, 1.0)]
    shares = share(4, symbol="IWM", market_price=100.0)
    rows = [leg(1, "CALL", 105.0, -3.0, 2.0), *puts, shares]
    names = only(rows, Point()).legs
    assert names == only(rows[::-1], Point()).legs
    assert [name.split()[2:3] for name in names] == [[], ["95P"], ["105P"], ["105C"]]
