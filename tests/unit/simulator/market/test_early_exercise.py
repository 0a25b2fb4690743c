"""Early exercise: American prices, dividends, and greeks that are the slopes of the prices."""

import math
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ib_gateway_simulator import load_book
from ib_gateway_simulator.market.early_exercise import EarlyExercise
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.market.pricing import black_scholes
from ib_gateway_simulator.market.underlying import OptionMarket, Underlying
from ib_gateway_simulator.protocol.contract import Contract, SecType

YIELD = 0.02


def american(early, spot, strike, years, volatility, **terms):
    european = black_scholes(
        spot=spot, strike=strike, years=years, volatility=volatility, rate=terms.get("rate", 0.06),
        call=bool(terms.get("call")), kept=terms.get("kept", 1.0),
    )  # fmt: skip
    return early.priced(european, spot=spot, strike=strike)


# Strike, rate and volatilities of Longstaff and Schwartz, Valuing American Options by Simulation
# (2001), table 1, exercised at any time: by QuantLib 1.44, QdFpAmericanEngine of high precision.
@pytest.mark.parametrize(
    ("spot", "volatility", "years", "price"),
    [
        (36, 0.2, 1, 4.4867),
        (36, 0.4, 2, 8.5142),
        (40, 0.2, 1, 2.3196),
        (40, 0.4, 1, 5.3183),
        (44, 0.2, 1, 1.1130),
        (44, 0.4, 2, 5.6467),
    ],
)
def test_american_puts_have_the_prices_of_another_method(spot, volatility, years, price):
    early = EarlyExercise(years=years, rate=0.06, carry=0.06, call=False)
    assert american(early, spot, 40, years, volatility).price == pytest.approx(price, abs=0.002)


def test_a_put_deep_in_the_money_is_worth_what_its_exercise_gives():
    early = EarlyExercise(years=1, rate=0.06, carry=0.06, call=False)
    put = american(early, 20, 40, 1, 0.2)
    assert (put.price, put.delta, put.gamma, put.vega, put.theta) == (20, -1, 0, 0, 0)


def test_a_call_without_dividends_is_never_exercised_early():
    early = EarlyExercise(years=1, rate=0.06, carry=0.06, call=True)
    for spot in (30, 38, 40, 50, 60):
        added = early.addition(math.log(spot / 40), 0.25)
        assert added.value == pytest.approx(0, abs=1e-9)


def test_a_call_is_exercised_before_a_large_dividend():
    early = EarlyExercise(years=0.5, rate=0.02, carry=0.02, call=True, dividends=((0.1, 0.1),))
    terms = {"call": 1, "kept": 0.9, "rate": 0.02}
    assert american(early, 60, 40, 0.5, 0.2, **terms).price == pytest.approx(20.08, abs=0.05)


@settings(max_examples=60, deadline=None)
@given(spot=st.floats(30, 55), volatility=st.floats(0.12, 0.7), call=st.booleans())
def test_greeks_are_the_slopes_of_american_prices(spot, volatility, call):
    early = EARLY[call]
    terms = {"call": float(call), "kept": 0.99**2, "rate": 0.06}

    def price(at: float = 0.0, more: float = 0.0) -> float:
        return american(early, spot + at, 40, 0.5, volatility + more, **terms).price

    found = american(early, spot, 40, 0.5, volatility, **terms)
    h = 0.05
    assert found.delta == pytest.approx((price(h) - price(-h)) / (2 * h), abs=0.012)
    assert found.vega == pytest.approx((price(0, 0.001) - price(0, -0.001)) / 0.2, abs=0.006)
    assert found.price >= max(0.0, spot - 40 if call else 40 - spot)


EARLY = {
    call: EarlyExercise(
        years=0.5, rate=0.06, carry=0.06, call=call, dividends=((0.12, 0.01), (0.37, 0.01))
    )
    for call in (False, True)
}


def test_theta_is_the_change_of_the_price_with_a_day():
    today = EarlyExercise(years=90 / 365, rate=0.06, carry=0.06, call=False)
    tomorrow = EarlyExercise(years=89 / 365, rate=0.06, carry=0.06, call=False)
    for spot in (36, 38, 40, 44):
        found = american(today, spot, 40, 90 / 365, 0.3)
        after = american(tomorrow, spot, 40, 89 / 365, 0.3).price
        assert found.theta == pytest.approx(after - found.price, abs=0.001)


def market(options: OptionMarket | None, as_of: date | datetime = date(2028, 6, 1)) -> Market:
    underlying = Underlying(
        symbol="X", conid=1, price=100, volatility=0.3, dividend_yield=YIELD, exchange="ARCA"
    )
    terms = {"sec_type": SecType.OPT, "expiry": "20281215", "multiplier": 100, "currency": "USD"}
    names = dict.fromkeys(("symbol", "underlying", "local_symbol", "trading_class"), "X")
    contracts = {
        conid: Contract(
            conid=conid,
            strike=strike,
            right=right,
            under_conid=1,
            exchange="AMEX",
            **terms,
            **names,
        )
        for conid, (strike, right) in enumerate([(90, "P"), (100, "P"), (110, "P"), (100, "C")], 2)
    }
    return Market(
        underlyings={"X": underlying}, contracts=contracts, as_of=as_of, rate=0.04, seed=7,
        options=options,
    )  # fmt: skip


def test_volatilities_walk_by_a_seed_of_their_own_and_leave_the_prices_alone():
    still, one, same, other = (
        market(options) for options in (None, OptionMarket(), OptionMarket(), OptionMarket(seed=2))
    )
    for _ in range(50):
        for each in (still, one, same, other):
            each.step()
    quotes = [each.quote(3) for each in (still, one, same, other)]
    assert len({quote.underlying_price for quote in quotes}) == 1
    still_vol, one_vol, same_vol, other_vol = (
        quote.greeks.implied_vol for quote in quotes if quote.greeks
    )
    assert one_vol == same_vol
    assert len({still_vol, one_vol, other_vol}) == 3


def test_dividends_until_expiry_are_told_with_the_greeks():
    quote = market(OptionMarket()).quote(3)
    assert quote.greeks.pv_dividend == pytest.approx(100 * (1 - (1 - YIELD / 4) ** 2), abs=0.51)


def test_times_to_expiry_count_from_a_moment_or_in_whole_days():
    day = market(None).quote(3).greeks
    moment = market(None, datetime(2028, 6, 1, 20, 0, tzinfo=UTC)).quote(3).greeks
    later = market(None, datetime(2028, 6, 2, 2, 0, tzinfo=UTC)).quote(3).greeks
    assert moment.price == pytest.approx(day.price, abs=0.01)  # an hour of winter time apart
    assert later.price < moment.price


def test_the_demo_book_has_american_options_whose_volatilities_walk():
    book = load_book("demo")
    assert book.option_market == OptionMarket(volatility_walk=0.5, seed=28)
    assert book.underlyings["SPY"].dividend_yield == 0.012
