"""Implied volatility and greeks: known values, properties, and the reasons for having none."""

import math
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ib_gateway_simulator.market.pricing import black_scholes
from position_sync_dagster.domain.instrument import Right, expiry_moment
from position_sync_dagster.sync.owner.option_model import (
    Method,
    ModelledGreeks,
    NoGreeks,
    OptionModel,
    OptionTerms,
    dividend_share,
)
from position_sync_dagster.sync.stream.model_greeks import OptionContract
from tests.support.contracts import contract_details
from tests.support.extent import examples

NOW = datetime(2028, 6, 1, 14, 0, tzinfo=UTC)
MODEL = OptionModel()


def terms(
    right: Right = Right.PUT, method: Method = Method.AMERICAN, **given: float
) -> OptionTerms:
    return OptionTerms(
        right=right,
        strike=given.get("strike", 40.0),
        expires_at=NOW + timedelta(days=365 * given.get("years", 1.0)),
        method=method,
        rate=given.get("rate", 0.06),
        dividend_share=given.get("share"),
    )


def solved(option: OptionTerms, value: float, spot: float | None, **given: float):
    return MODEL.implied_volatility(option, value=value, spot=spot, at=NOW, **given)


def greeks_of(option: OptionTerms, volatility: float, spot: float) -> ModelledGreeks:
    found = MODEL.greeks(option, volatility=volatility, spot=spot, now=NOW)
    assert isinstance(found, ModelledGreeks)
    return found


# Hull, Options, Futures, and Other Derivatives: example 15.6 (a stock), example 18.6 (a future,
# whose American option is worth a little more); Longstaff and Schwartz (2001), table 1, exercised
# at any time and not 50 times a year (QuantLib 1.44, QdFpAmericanEngine of high precision).
@pytest.mark.parametrize(
    ("option", "spot", "volatility", "price"),
    [
        (terms(Right.CALL, Method.EUROPEAN, rate=0.1, years=0.5), 42, 0.2, 4.76),
        (terms(Right.PUT, Method.EUROPEAN, rate=0.1, years=0.5), 42, 0.2, 0.81),
        (terms(Right.PUT, Method.FUTURE, strike=20, rate=0.09, years=4 / 12), 20, 0.25, 1.12),
        (terms(), 36, 0.2, 4.4867),
        (terms(years=2.0), 44, 0.4, 5.6467),
    ],
)
def test_prices_are_those_of_the_literature(
    option: OptionTerms, spot: float, volatility: float, price: float
) -> None:
    years = option.years(NOW)
    found = MODEL.price(option, spot=spot, years=years, volatility=volatility)
    assert found == pytest.approx(price, abs=0.006)


options = st.builds(
    terms,
    st.sampled_from(Right),
    st.sampled_from(Method),
    strike=st.floats(5, 5000),
    years=st.floats(2 / 365, 2),
    rate=st.floats(0, 0.08),
    share=st.floats(0, 0.08),
)
SPOTS = st.floats(-2.0, 2.0)  # in standard deviations around the strike


def spot_of(option: OptionTerms, place: float, volatility: float) -> float:
    return option.strike * math.exp(place * volatility * math.sqrt(option.years(NOW)))


@settings(max_examples=examples(300), deadline=None)
@given(option=options, place=SPOTS, volatility=st.floats(0.05, 1.5), near=st.floats(0.011, 4.9))
@example(
    option=terms(Right.CALL, Method.FUTURE, strike=5.0, years=4.2, rate=2.2e-16, share=0.0),
    place=0.0,
    volatility=1.0,
    near=3.0,
)
@example(
    option=terms(Right.CALL, Method.EUROPEAN, strike=5.0, years=3 / 64, rate=1 / 32, share=1 / 32),
    place=0.0,
    volatility=7 / 128,
    near=1 / 32,
)
@example(  # a dividend within the last days: the fast scheme's price falls as volatility rises
    option=terms(Right.CALL, Method.AMERICAN, strike=39.0, years=1 / 128, rate=0.0, share=5 / 64),
    place=0.6875,
    volatility=0.0625,
    near=1.375,
)
def test_a_price_gives_back_its_volatility_wherever_the_search_begins(
    option: OptionTerms, place: float, volatility: float, near: float
) -> None:
    spot = spot_of(option, place, volatility)
    years = option.years(NOW)
    value = MODEL.price(option, spot=spot, years=years, volatility=volatility)
    found = solved(option, value, spot, near=near)
    vega = greeks_of(option, volatility, spot).vega
    if isinstance(found, NoGreeks):
        least = MODEL.price(option, spot=spot, years=years, volatility=0.01)
        assert found in (NoGreeks.NO_VEGA, NoGreeks.OUT_OF_RANGE)  # the latter: worth nothing
        assert vega < 0.004 or value < least + 0.006  # less than the value is rounded by
    else:
        assert abs(found - volatility) * 100 * vega <= max(1e-4 * option.strike, 0.001)


@settings(max_examples=examples(300), deadline=None)
@given(option=options, place=SPOTS, volatility=st.floats(0.05, 1.0))
def test_prices_and_greeks_stay_within_their_bounds(
    option: OptionTerms, place: float, volatility: float
) -> None:
    spot = spot_of(option, place, volatility)
    value = MODEL.price(option, spot=spot, years=option.years(NOW), volatility=volatility)
    found = greeks_of(option, volatility, spot)
    side = 1 if option.right is Right.CALL else -1
    small = 1e-4 * option.strike
    assert value <= (spot if side > 0 else option.strike) + small
    if option.method is not Method.EUROPEAN:
        assert value >= side * (spot - option.strike) - small
    assert -0.001 <= side * found.delta <= 1.001
    assert found.gamma >= 0
    assert found.vega >= 0
    assert found.underlying_price == spot


@settings(max_examples=examples(200), deadline=None)
@given(
    place=SPOTS,
    volatility=st.floats(0.08, 0.9),
    years=st.floats(0.01, 2),
    right=st.sampled_from(Right),
)
def test_european_greeks_are_those_of_the_formulas(
    place: float, volatility: float, years: float, right: Right
) -> None:
    option = terms(right, Method.EUROPEAN, strike=100, years=years, rate=0.04)
    spot = spot_of(option, place, volatility)
    known = black_scholes(
        spot=spot,
        strike=100,
        years=option.years(NOW),
        volatility=volatility,
        rate=0.04,
        call=right is Right.CALL,
    )
    found = greeks_of(option, volatility, spot)
    assert found.delta == pytest.approx(known.delta, abs=0.002)
    assert found.gamma == pytest.approx(known.gamma, rel=0.02, abs=1e-6)
    assert found.vega == pytest.approx(known.vega, rel=0.03, abs=1e-4)
    assert found.theta == pytest.approx(known.theta, rel=0.03, abs=1e-3)


@settings(max_examples=examples(100), deadline=None)
@given(option=options, place=SPOTS, volatility=st.floats(0.1, 0.8))
def test_an_american_option_is_worth_at_least_the_european_one(
    option: OptionTerms, place: float, volatility: float
) -> None:
    assume(option.method is Method.AMERICAN)
    given = {"spot": spot_of(option, place, volatility), "volatility": volatility}
    years = option.years(NOW)
    european = OptionTerms(
        right=option.right,
        strike=option.strike,
        expires_at=option.expires_at,
        method=Method.EUROPEAN,
        rate=option.rate,
        dividend_share=option.dividend_share,
    )
    more = MODEL.price(option, years=years, **given)
    assert more >= MODEL.price(european, years=years, **given) - 1e-4 * option.strike


@pytest.mark.parametrize(
    ("option", "value", "spot", "reason"),
    [
        (terms(), 3.0, None, NoGreeks.NO_UNDERLYING_PRICE),
        (terms(), 3.0, math.nan, NoGreeks.NO_UNDERLYING_PRICE),
        (terms(), 3.0, -5.0, NoGreeks.NO_UNDERLYING_PRICE),
        (terms(years=0.0), 3.0, 40.0, NoGreeks.EXPIRED),
        (terms(), 9.98, 30.0, NoGreeks.BELOW_INTRINSIC),
        (terms(), 20.0, 20.0, NoGreeks.NO_VEGA),
        (terms(), 20.004, 20.0, NoGreeks.NO_VEGA),
        (terms(Right.CALL), 0.0, 30.0, NoGreeks.OUT_OF_RANGE),
        (terms(), 39.99, 40.0, NoGreeks.OUT_OF_RANGE),
        (terms(), 60.0, 40.0, NoGreeks.OUT_OF_RANGE),
    ],
)
def test_what_has_no_volatility_has_a_reason(
    option: OptionTerms, value: float, spot: float | None, reason: NoGreeks
) -> None:
    assert solved(option, value, spot) is reason


@pytest.mark.parametrize("strike", [0.0, -5.0])
@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("right", list(Right))
def test_the_model_has_no_price_for_a_strike_that_is_not_above_zero(
    right: Right, method: Method, strike: float
) -> None:
    option = terms(right, method, strike=strike)
    assert solved(option, 60.0, 40.0) is NoGreeks.NOT_COMPUTED
    assert MODEL.greeks(option, volatility=0.2, spot=40.0, now=NOW) is NoGreeks.NOT_COMPUTED


def test_greeks_need_an_underlying_price_and_time() -> None:
    assert MODEL.greeks(terms(), volatility=0.2, spot=None, now=NOW) is NoGreeks.NO_UNDERLYING_PRICE
    assert MODEL.greeks(terms(years=0), volatility=0.2, spot=40.0, now=NOW) is NoGreeks.EXPIRED


def test_an_option_that_is_worth_its_exercise_does_not_decay() -> None:
    found = greeks_of(terms(), 0.2, 20.0)
    assert (found.delta, found.theta) == (pytest.approx(-1), 0)


def test_dividends_lower_a_call_and_raise_a_put() -> None:
    for right, lower in ((Right.CALL, True), (Right.PUT, False)):
        prices = [
            MODEL.price(terms(right, share=share), spot=40, years=1, volatility=0.2)
            for share in (0.03, 0.0)
        ]
        assert (prices[0] < prices[1]) is lower


def test_dividends_are_those_of_the_expiries_with_a_line_and_straight_lines_between() -> None:
    known = [(1.0, 0.03), (0.25, 0.0), (0.5, 0.01)]
    found = [dividend_share(known, years) for years in (0.1, 0.25, 0.375, 0.5, 0.75, 1.0, 2.0)]
    assert found == pytest.approx([0, 0, 0.005, 0.01, 0.02, 0.03, 0.06])
    assert dividend_share([(0.0, 0.01), (0.5, -0.1), (0.5, 1.5)], 1.0) is None
    assert dividend_share([(0.1, 0.5)], 1.0) == pytest.approx(0.9)


def test_a_european_option_is_worth_the_same_however_its_dividends_are_paid() -> None:
    option = terms(Right.CALL, Method.EUROPEAN, share=0.05)
    found = MODEL.price(option, spot=40, years=1, volatility=0.3)
    known = black_scholes(
        spot=40, strike=40, years=1, volatility=0.3, rate=0.06, call=True, kept=0.95
    )
    assert found == pytest.approx(known.price)


def test_an_option_expires_at_its_last_trade_or_at_four_in_new_york() -> None:
    day = date(2028, 7, 3)
    assert expiry_moment(day, "15:00:00", "US/Central") == datetime(2028, 7, 3, 20, tzinfo=UTC)
    for clock, zone in (
        (None, "US/Central"),
        ("15:00:00", None),
        ("soon", "US/Central"),
        ("9", "X"),
        ("16:00:00", "EST (Eastern Standard Time)"),
    ):
        assert expiry_moment(day, clock, zone) == datetime(2028, 7, 3, 20, tzinfo=UTC)


def test_an_option_that_is_settled_at_the_open_expires_on_the_day_after_its_last_trade() -> None:
    details = contract_details(last_trade_date=date(2026, 2, 19), last_trade_time="15:15:00")
    option = OptionContract.of(details)
    assert option is not None
    assert option.expires_at == datetime(2026, 2, 20, 15, tzinfo=UTC)
    at_the_close = OptionContract.of(replace(details, expires_on=details.last_trade_date))
    assert at_the_close is not None
    assert at_the_close.expires_at == datetime(2026, 2, 19, 21, 15, tzinfo=UTC)


def test_programs_that_compute_no_greeks_do_not_load_quantlib() -> None:
    modules = "option_model, position_sync_dagster.sync.stream.service"
    code = f"import sys, position_sync_dagster.sync.owner.{modules}\n"
    code += "sys.exit(any('QuantLib' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("volatility", [0.12, 0.3, 0.9])
@pytest.mark.parametrize("moved", [-0.3, -0.02, 0.008, 0.4])
@pytest.mark.parametrize("spot", [25.0, 36.0, 40.0, 60.0])
def test_a_search_that_knows_the_last_vega_finds_the_same_volatility(
    volatility: float, moved: float, spot: float
) -> None:
    option = terms(Right.CALL, share=0.02)
    vega = greeks_of(option, volatility, spot).vega
    value = MODEL.price(option, spot=spot, years=1.0, volatility=volatility * (1 + moved))
    cold = solved(option, value, spot, near=volatility)
    warm = solved(option, value, spot, near=volatility, vega=vega)
    assert warm == (cold if isinstance(cold, NoGreeks) else pytest.approx(cold, rel=5e-4))
