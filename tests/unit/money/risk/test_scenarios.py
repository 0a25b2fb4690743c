"""The holdings under other prices, volatilities and days: scenarios, curves, and what expires."""

from dataclasses import replace
from datetime import date, timedelta
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest

from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.priced_legs import Assumptions, PricedLegs
from position_sync_dagster.money.risk.scenario_file import Point
from position_sync_dagster.money.risk.scenarios import Breakdown, scenario_rows, scenarios
from position_sync_dagster.money.risk.terms import DatedDividend, NotPriced
from tests.support import money_rows
from tests.support.contracts import contract_details
from tests.support.legs import leg
from tests.unit.money.risk.binomial_tree import tree_price

NOW = money_rows.NOW
EXPIRY = date(2026, 6, 19)
A = "DUSIM0001"
B = "DUSIM0002"
RATES = {"USD": 0.04, "EUR": 0.02}


def option(conid: int, **values: object) -> PositionUpdate:
    usual = {"implied_vol": 0.2, "strike": 575.0, "expiry": EXPIRY, "market_price": 12.0}
    return money_rows.row(conid, **usual | {"market_value": -2400.0} | values)


def share(conid: int, **values: object) -> PositionUpdate:
    of_options = ("right", "strike", "expiry", "implied_vol", "underlying_price", "delta")
    without = dict.fromkeys(of_options)
    usual = {"sec_type": "STK", "multiplier": 1.0, "position": 100.0}
    price = {"market_price": 600.0, "market_value": 60_000.0}
    return option(conid, **without | usual | price | values)


UNPRICED = option(6, implied_vol=None, delta=None, position=-1.0, market_value=-1200.0)
FUTURE = share(
    7, sec_type="FUT", symbol="ES", multiplier=50.0, position=-1.0, market_price=6000.0,
    market_value=-300_000.0, expiry=EXPIRY,
)  # fmt: skip
PRICED = [
    option(1),
    option(2, strike=625.0, right="CALL"),
    option(3, account=B, position=5.0, market_value=6000.0),
    option(4, symbol="QQQ", underlying_price=500.0, strike=480.0),
    share(5),
]
ROWS = [*PRICED, UNPRICED, FUTURE, option(8, currency="EUR")]
CALL = {"right": "CALL", "strike": 625.0}
QQQ = {"symbol": "QQQ", "strike": 480.0}
OF_CONDOR = [
    leg(1, "condor", quantity=-1.0, expiry=EXPIRY),
    leg(2, "condor", expiry=EXPIRY, **CALL),
]
OF_OTHER = [leg(4, "other", expiry=EXPIRY, **QQQ), leg(6, "other", expiry=EXPIRY)]
LEGS = [*OF_CONDOR, *OF_OTHER]


def priced(rows: list[PositionUpdate] = ROWS, **given: object) -> PricedLegs:
    parts = money_rows.book_of(rows, LEGS).split.parts
    return PricedLegs.of(parts, Assumptions(now=NOW, **{"rates": RATES} | given))  # type: ignore[arg-type]


POINTS = [Point(spot=s, vol=v, days=d) for s in (-10, 0, 5) for v in (-5, 0) for d in (0, 30)]


def test_no_shift_changes_nothing() -> None:
    rows = scenarios(priced(), [Point(), *POINTS], Breakdown.LEG)
    assert set(rows.filter(point=0).get_column("profit").to_list()) == {0.0, None}


def test_the_prices_of_now_and_those_of_other_prices_alone_are_asked_of_the_model_at_once(
    monkeypatch,
) -> None:
    prices = Mock(side_effect=model.prices)
    monkeypatch.setattr(model, "prices", prices)
    scenarios(priced(), [Point(spot=s) for s in (-10, 0, 5)], Breakdown.LEG)
    assert prices.call_count == 1
    scenarios(priced(), POINTS, Breakdown.LEG)
    assert prices.call_count == 1 + 4  # no more than the pairs of volatility and day


@pytest.mark.parametrize("level", list(Breakdown))
def test_the_parts_of_every_level_add_up_to_the_accounts(level: Breakdown) -> None:
    legs = priced([*ROWS[:5], *ROWS[6:]])
    by = ["point", "account", "currency"]
    names = ("profit", "value", "left_out")
    sums = [pl.col(name).sum() for name in names]
    whole = scenarios(legs, POINTS, Breakdown.ACCOUNT).group_by(by).agg(sums).sort(by)
    rows = scenarios(legs, POINTS, level).group_by(by).agg(sums).sort(by)
    for name in names:
        np.testing.assert_allclose(rows[name], whole[name], rtol=1e-12, atol=1e-9)


def test_a_leg_without_a_volatility_is_left_out_and_counted() -> None:
    rows = scenario_rows(priced(), [Point(spot=-10)], Breakdown.STRATEGY)
    row = next(entry for entry in rows if entry["name"] == "other")
    assert row["left_out"] == 1
    assert row["known"] == 1
    assert row["of"] == 2
    assert row["profit"] is None
    alone = scenario_rows(priced([ROWS[5]]), [Point(spot=-10)], Breakdown.ACCOUNT)[0]
    assert alone["profit"] is None
    assert alone["value"] is None
    assert alone["left_out"] == 1
    assert list(priced().left_out().values()) == [1]


def test_a_share_and_a_future_follow_their_price_and_a_future_has_no_value() -> None:
    point = Point(spot=-10, vol=5)
    legs = priced([ROWS[4], FUTURE])
    of_future, of_share = scenario_rows(legs, [point], Breakdown.UNDERLYING)
    assert of_future["name"] == "ES"
    assert of_future["profit"] == 30_000.0
    assert of_future["value"] == 30_000.0
    assert of_share["name"] == "SPY"
    assert of_share["profit"] == -6000.0
    assert of_share["value"] == 54_000.0


def test_a_leg_says_what_it_was_priced_with_and_a_tree_agrees() -> None:
    paid = [DatedDividend(ex_date=NOW + timedelta(days=40), amount=2.0)]
    legs = priced(ROWS[:1], dividends={"SPY": paid})
    row = scenario_rows(legs, [Point(spot=-5, vol=3, days=10)], Breakdown.LEG)[0]
    years = (row["expires_at"] - NOW) / timedelta(days=365)

    def price(spot: float, volatility: float, days: float) -> float:
        dividends = []
        for dividend in row["dividends"]:
            days_to_it = (dividend["ex_date"] - NOW).days - days
            dividends.append((days_to_it / 365, dividend["amount"]))
        return tree_price(
            call=False, spot=spot, strike=575.0, years=years - days / 365, rate=row["rate"],
            volatility=volatility, dividends=tuple(dividends),
        )  # fmt: skip

    spot = row["underlying_price"]
    volatility = row["implied_vol"]
    change = price(0.95 * spot, volatility + 0.03, 10) - price(spot, volatility, 0)
    assert row["exercise"] == "AMERICAN"
    assert row["profit"] == pytest.approx(-100 * change, rel=0.002)
    assert row["value"] == pytest.approx(-1200.0 + row["profit"])


def test_the_others_follow_a_named_underlying_by_their_betas() -> None:
    rows = [share(5), share(9, symbol="AAPL"), share(10, symbol="GLD")]
    legs = priced(rows, betas={"SPY": 1.0, "AAPL": 1.5})
    point = Point(spot=-8, underlying="SPY", name="crash")
    by_underlying = scenario_rows(legs, [point], Breakdown.UNDERLYING)
    profit_of = {row["name"]: row["profit"] for row in by_underlying}
    assert profit_of.keys() == {"SPY", "AAPL", "GLD"}
    assert profit_of["SPY"] == pytest.approx(-4800)
    assert profit_of["AAPL"] == pytest.approx(-7200)
    assert profit_of["GLD"] is None


def test_what_the_model_does_not_fit_is_left_out_with_the_reason() -> None:
    usual = {"under_sec_type": "STK", "last_trade_date": EXPIRY, "expires_on": EXPIRY}
    terms = {"symbol": "LCID", "trading_class": "LCID1", "strike": 3.0}
    adjusted = option(11, underlying_price=25.0, **terms)
    details = {11: contract_details(11, **terms, **usual)}
    assert priced([adjusted], details=details).left_out() == {NotPriced.ADJUSTED.value: 1}
    foreign = option(2, currency="SEK")
    assert priced([foreign]).left_out() == {NotPriced.NO_RATE.value: 1}


def test_a_price_that_may_be_in_cents_is_left_out_until_a_value_or_the_contract_says_so() -> None:
    in_pence = option(2, currency="GBP", market_value=None)
    of_grain = option(3, symbol="ZC", sec_type="FOP", market_value=None)
    for row in (in_pence, of_grain):
        legs = priced([row], rates={"USD": 0.04, "GBP": 0.04})
        assert legs.parts["spot"].to_list() == [None]
        assert legs.left_out() == {NotPriced.NO_UNIT.value: 1}

    valued = replace(in_pence, market_value=-2 * 12.0)  # 2 x 100 at 12 pence
    legs = priced([valued], rates={"GBP": 0.04})
    assert legs.parts["spot"].to_list() == [6.0]
    assert [leg.terms.strike for leg in legs if leg.terms] == [5.75]
    in_dollars = option(1, market_value=None)
    assert set(priced([in_dollars]).parts["spot"]) == {600.0}


def test_a_strategy_has_its_share_of_a_holding() -> None:
    legs = priced([replace(ROWS[0], position=-4.0)])
    rows = scenario_rows(legs, [Point(spot=-10)], Breakdown.STRATEGY)
    profit_of = {row["name"]: row["profit"] for row in rows}
    assert profit_of[UNATTRIBUTED] == pytest.approx(3 * profit_of["condor"])


def test_without_a_holding_there_is_nothing() -> None:
    assert scenario_rows(priced([]), POINTS, Breakdown.STRATEGY) == []
