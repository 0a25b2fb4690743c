"""The holdings under other prices, volatilities and days: scenarios, curves, and what expires."""

import xml.etree.ElementTree as xml
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.risk import scenarios
from position_sync_dagster.risk.scenario_file import Point
from position_sync_dagster.risk.scenarios import Breakdown, curves, early_assignments, expiries
from position_sync_dagster.risk.terms import DatedDividend, NotPriced
from position_sync_dagster.web.risk_page import as_svg
from tests.support import money_rows
from tests.support.contracts import contract_details
from tests.support.legs import leg
from tests.unit.risk.binomial_tree import tree_price

NOW = money_rows.NOW
EXPIRY = date(2026, 6, 19)
A, B = "DUSIM0001", "DUSIM0002"
RATES = {"USD": 0.04, "EUR": 0.02}


def option(conid: int, **values: object) -> PositionUpdate:
    usual = {"implied_vol": 0.2, "strike": 575.0, "expiry": EXPIRY, "market_price": 12.0}
    return money_rows.row(conid, **usual | {"market_value": -2400.0} | values)


def share(conid: int, **values: object) -> PositionUpdate:
    without = dict.fromkeys(
        ("right", "strike", "expiry", "implied_vol", "underlying_price", "delta")
    )
    usual = {"sec_type": "STK", "multiplier": 1.0, "position": 100.0}
    price = {"market_price": 600.0, "market_value": 60_000.0}
    return option(conid, **without | usual | price | values)


ROWS = [
    option(1),
    option(2, strike=625.0, right="CALL"),
    option(3, account=B, position=5.0, market_value=6000.0),
    option(4, symbol="QQQ", underlying_price=500.0, strike=480.0),
    share(5),
    option(6, implied_vol=None, delta=None),
    share(7, sec_type="FUT", symbol="ES", multiplier=50.0, position=-1.0, market_price=6000.0,
          market_value=-300_000.0, expiry=EXPIRY),
    option(8, currency="EUR"),
]  # fmt: skip
LEGS = [
    leg(1, "condor", quantity=-1.0, expiry=EXPIRY),
    leg(2, "condor", right="CALL", strike=625.0, expiry=EXPIRY),
    leg(4, "other", symbol="QQQ", strike=480.0, expiry=EXPIRY),
    leg(6, "other", expiry=EXPIRY),
]


def priced(rows: list[PositionUpdate] = ROWS, **given: object) -> scenarios.PricedLegs:
    parts = money_rows.book_of(rows, LEGS).split.parts
    return scenarios.PricedLegs(parts, scenarios.Assumptions(now=NOW, **{"rates": RATES} | given))  # type: ignore[arg-type]


POINTS = [Point(spot=s, vol=v, days=d) for s in (-10, 0, 5) for v in (-5, 0) for d in (0, 30)]


def test_no_shift_changes_nothing() -> None:
    found = priced().scenarios([Point(), *POINTS], Breakdown.LEG)
    assert set(found.filter(point=0).get_column("profit").to_list()) == {0.0, None}


@pytest.mark.parametrize("level", list(Breakdown))
def test_the_parts_of_every_level_add_up_to_the_accounts(level: Breakdown) -> None:
    legs, by = priced(), ["point", "account", "currency"]
    sums = [pl.col("profit").sum(), pl.col("value").sum(), pl.col("left_out").sum()]
    whole = legs.scenarios(POINTS, Breakdown.ACCOUNT).group_by(by).agg(sums).sort(by)
    found = legs.scenarios(POINTS, level).group_by(by).agg(sums).sort(by)
    for name in ("profit", "value", "left_out"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-12, atol=1e-9)


def test_a_leg_without_a_volatility_is_left_out_and_counted() -> None:
    rows = priced().rows([Point(spot=-10)], Breakdown.STRATEGY)
    other = next(one for one in rows if one["name"] == "other")
    without = next(one for one in priced(ROWS[3:4]).rows([Point(spot=-10)], Breakdown.STRATEGY))
    assert (other["left_out"], other["profit"]) == (1, without["profit"])
    alone = priced([ROWS[5]]).rows([Point(spot=-10)], Breakdown.ACCOUNT)[0]
    assert (alone["profit"], alone["value"], alone["left_out"]) == (None, None, 1)
    assert list(priced().left_out().values()) == [1]


def test_a_share_and_a_future_follow_their_price_and_a_future_has_no_value() -> None:
    rows = priced([ROWS[4], ROWS[6]]).rows([Point(spot=-10, vol=5)], Breakdown.UNDERLYING)
    assert [(one["name"], one["profit"], one["value"]) for one in rows] == [
        ("ES", 30_000.0, 30_000.0),
        ("SPY", -6000.0, 54_000.0),
    ]


def test_a_leg_says_what_it_was_priced_with_and_a_tree_agrees() -> None:
    paid = [DatedDividend(ex_date=NOW + timedelta(days=40), amount=2.0)]
    legs = priced(ROWS[:1], dividends={"SPY": paid})
    row = legs.rows([Point(spot=-5, vol=3, days=10)], Breakdown.LEG)[0]
    years = (row["expires_at"] - NOW) / timedelta(days=365)

    def price(spot: float, volatility: float, days: float) -> float:
        dates = [((one["ex_date"] - NOW).days - days, one["amount"]) for one in row["dividends"]]
        return tree_price(
            call=False, spot=spot, strike=575.0, years=years - days / 365, rate=row["rate"],
            volatility=volatility, dividends=tuple((days / 365, amount) for days, amount in dates),
        )  # fmt: skip

    spot, volatility = row["underlying_price"], row["implied_vol"]
    change = price(0.95 * spot, volatility + 0.03, 10) - price(spot, volatility, 0)
    assert row["exercise"] == "AMERICAN"
    assert row["profit"] == pytest.approx(-100 * change, rel=0.002)
    assert row["value"] == pytest.approx(-1200.0 + row["profit"])


def test_the_others_follow_a_named_underlying_by_their_betas() -> None:
    rows = [share(5), share(9, symbol="AAPL"), share(10, symbol="GLD")]
    legs = priced(rows, betas={"SPY": 1.0, "AAPL": 1.5})
    point = Point(spot=-8, underlying="SPY", name="crash")
    found = {one["name"]: one["profit"] for one in legs.rows([point], Breakdown.UNDERLYING)}
    assert found == {"SPY": pytest.approx(-4800), "AAPL": pytest.approx(-7200), "GLD": None}


def test_moves_of_a_day_follow_from_the_volatilities_of_an_underlying() -> None:
    legs = priced([ROWS[0], ROWS[4]])
    found = legs.scenarios([Point(spot=2, in_moves=True)], Breakdown.LEG)
    of_share = found.filter(pl.col("conid") == 5).get_column("profit").item()
    assert of_share == pytest.approx(60_000 * 2 * 0.2 / 252**0.5)


def test_a_ratio_changes_the_volatility_of_each_option_by_its_part() -> None:
    points = [Point(vol=1.25, is_ratio=True), Point(vol=5.0)]  # of 20 %
    by_ratio, by_points = priced(ROWS[:1]).rows(points, Breakdown.ACCOUNT)
    assert by_ratio["profit"] == pytest.approx(by_points["profit"])
    assert by_ratio["profit"] < -100


def test_a_change_of_the_rates_changes_options_alone() -> None:
    legs = priced([ROWS[1], ROWS[4]])
    found = {row["conid"]: row["profit"] for row in legs.rows([Point(rate=1)], Breakdown.LEG)}
    assert found[5] == 0
    assert found[2] < -50  # a short call with 0.28 years


def test_what_the_model_does_not_fit_is_left_out_with_the_reason() -> None:
    usual = {"under_sec_type": "STK", "last_trade_date": EXPIRY, "expires_on": EXPIRY}
    adjusted = option(11, symbol="LCID", trading_class="LCID1", strike=3.0, underlying_price=25.0)
    details = {11: contract_details(11, symbol="LCID", trading_class="LCID1", strike=3.0, **usual)}
    assert priced([adjusted], details=details).left_out() == {NotPriced.ADJUSTED.value: 1}
    foreign = option(2, currency="SEK")
    assert priced([foreign]).left_out() == {NotPriced.NO_RATE.value: 1}


def test_a_strategy_has_its_share_of_a_holding() -> None:
    rows = priced([replace(ROWS[0], position=-4.0)]).rows([Point(spot=-10)], Breakdown.STRATEGY)
    found = {one["name"]: one["profit"] for one in rows}
    assert found[UNATTRIBUTED] == pytest.approx(3 * found["condor"])


def test_without_a_holding_there_is_nothing() -> None:
    assert priced([]).rows(POINTS, Breakdown.STRATEGY) == []


def call(conid: int, strike: float, position: float, price: float):
    money = {"market_price": price, "market_value": position * 100 * price, "unrealized_pnl": 0.0}
    return option(conid, right="CALL", strike=strike, position=position, **money)


def model_price(strike: float) -> float:
    (curve,) = curves(priced([call(31, strike, 1.0, 0.0)]))
    return -curve.greatest_loss / 100  # what a worthless expiry loses


def test_a_spread_has_bounds_and_a_break_even_and_a_naked_call_has_an_unbounded_loss() -> None:
    low, high = model_price(600.0), model_price(620.0)
    (curve,) = curves(priced([call(31, 600.0, 1.0, low), call(32, 620.0, -1.0, high)]))
    assert curve.greatest_loss == pytest.approx(-100 * (low - high), abs=1)
    assert curve.greatest_profit == pytest.approx(2000 - 100 * (low - high), abs=1)
    (at,) = curve.break_evens
    assert at == pytest.approx(600 + low - high, abs=0.5)
    (naked,) = curves(priced([call(32, 620.0, -1.0, high)]))
    assert naked.greatest_loss is None
    assert naked.greatest_profit == pytest.approx(100 * high, abs=1)
    assert xml.fromstring(as_svg(curve)).tag == "svg"  # noqa: S314 - our own picture


def test_a_leg_without_a_price_or_a_known_profit_is_in_no_number_and_is_counted() -> None:
    (alone,) = curves(priced([call(31, 600.0, 1.0, 20.0)]))
    unknown = replace(call(32, 620.0, -1.0, 9.0), unrealized_pnl=None)
    unpriced = replace(call(33, 630.0, -1.0, 9.0), unrealized_pnl=500.0, implied_vol=None)
    (curve,) = curves(priced([call(31, 600.0, 1.0, 20.0), unknown, unpriced]))
    assert (alone.left_out, curve.left_out) == (0, 2)
    assert curve.at_expiry[-1] == pytest.approx(alone.at_expiry[-1])


SHORT_CALL = option(
    21, symbol="IWM", right="CALL", strike=200.0, underlying_price=210.0, position=-3.0,
    market_price=10.4, market_value=-3 * 1040.0,
)  # fmt: skip
COVER = share(22, symbol="IWM", position=200.0, market_price=210.0, market_value=42_000.0)


def test_a_short_call_in_the_money_takes_shares_and_is_uncovered_beyond_those_held():
    (found,) = expiries(priced([SHORT_CALL, COVER]), until=EXPIRY)
    assert (found["units"], found["cash"], found["is_uncovered"]) == (-300.0, 60_000.0, True)
    covered = replace(SHORT_CALL, position=-2.0, market_value=-2080.0)
    (found,) = expiries(priced([covered, COVER]), until=EXPIRY)
    assert (found["units"], found["is_uncovered"], found["is_pinned"]) == (-200.0, False, False)
    assert expiries(priced([SHORT_CALL]), until=EXPIRY - timedelta(days=1)) == []


def test_an_option_near_its_strike_is_pinned_and_one_on_an_index_is_settled_in_cash():
    near = replace(SHORT_CALL, underlying_price=200.9)
    (found,) = expiries(priced([near]), until=EXPIRY)
    assert found["is_pinned"]
    days = {"last_trade_date": EXPIRY - timedelta(days=1), "expires_on": EXPIRY}
    index = contract_details(21, symbol="IWM", under_sec_type="IND", strike=200.0, **days)
    (found,) = expiries(priced([SHORT_CALL], details={21: index}), until=EXPIRY)
    assert (found["units"], found["cash"]) == (0.0, pytest.approx(-3000.0))
    assert (found["is_cash_settled"], found["is_in_the_morning"]) == (True, True)


def test_a_short_call_worth_less_above_its_exercise_than_the_dividend_may_be_assigned():
    def found(amount: float):
        paid = [DatedDividend(ex_date=NOW + timedelta(days=1), amount=amount)]
        return early_assignments(priced([SHORT_CALL], dividends={"IWM": paid}))

    assert [(one["conid"], one["gain"]) for one in found(1.5)] == [(21, 1.5)]
    assert found(0.3) == []
    assert early_assignments(priced([SHORT_CALL])) == []  # no dividend is known


def test_a_short_put_deep_in_the_money_may_be_assigned_for_the_interest():
    put = replace(
        SHORT_CALL, right="PUT", strike=300.0, market_price=90.2, market_value=-3 * 9020.0
    )
    (found,) = early_assignments(priced([put]))
    assert found["extrinsic"] == pytest.approx(0.2)
    assert found["gain"] > 3
