"""The market: prices by Black and Scholes, early exercise, random walks and sessions."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ib_gateway_simulator import Book, load_book
from ib_gateway_simulator.market.early_exercise import EarlyExercise
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.market.pricing import Greeks, black_scholes, round_to
from ib_gateway_simulator.market.sessions import Sessions, checked, listing
from ib_gateway_simulator.market.underlying import OptionMarket, Underlying
from ib_gateway_simulator.protocol.contract import Contract, SecType
from position_sync_dagster.domain.exchange_time import parse_trading_hours


def price(call: bool = True, **changes: float) -> Greeks:
    terms = {"spot": 100.0, "strike": 100.0, "years": 1.0, "volatility": 0.2, "rate": 0.05}
    terms.update(changes)
    return black_scholes(call=call, **terms)  # type: ignore[arg-type]


def test_a_textbook_option_has_its_textbook_price():
    # Hull, Options, Futures, and Other Derivatives, example 15.6.
    call = price(spot=42.0, strike=40.0, years=0.5, rate=0.1)
    put = price(False, spot=42.0, strike=40.0, years=0.5, rate=0.1)
    assert call.price == pytest.approx(4.76, abs=0.005)
    assert put.price == pytest.approx(0.81, abs=0.005)


@given(spot=st.floats(50, 200), years=st.floats(0.02, 3), volatility=st.floats(0.05, 1))
def test_call_and_put_are_in_parity(spot, years, volatility):
    terms = {"spot": spot, "years": years, "volatility": volatility}
    call = price(True, **terms)
    put = price(False, **terms)
    forward = spot - 100 * math.exp(-0.05 * years)
    assert call.price - put.price == pytest.approx(forward, abs=1e-9)
    assert call.delta - put.delta == pytest.approx(1)
    assert call.gamma == pytest.approx(put.gamma)


@pytest.mark.parametrize("call", [True, False])
@pytest.mark.parametrize("on_future", [True, False])
def test_greeks_are_the_slopes_of_the_price(call, on_future):
    terms = {"spot": 105.0, "strike": 100.0, "years": 0.7, "volatility": 0.3, "rate": 0.04}
    greeks = black_scholes(call=call, on_future=on_future, **terms)

    def at(**changes: float) -> float:
        return black_scholes(call=call, on_future=on_future, **terms | changes).price

    def slope(**around: float) -> float:
        [(name, value)] = around.items()
        h = 1e-4
        return (at(**{name: value + h}) - at(**{name: value - h})) / (2 * h)

    assert greeks.delta == pytest.approx(slope(spot=105), rel=1e-5)
    assert greeks.vega == pytest.approx(slope(volatility=0.3) / 100, rel=1e-5)
    assert greeks.theta == pytest.approx(-slope(years=0.7) / 365, rel=1e-5)
    curvature = (at(spot=105.01) - 2 * at() + at(spot=104.99)) / 0.01**2
    assert greeks.gamma == pytest.approx(curvature, rel=1e-3)


def test_at_expiry_only_the_intrinsic_value_is_left():
    assert price(spot=110, years=0).price == 10
    assert price(False, spot=110, years=-1).price == 0
    assert price(False, spot=110, years=-1).delta == 0


@pytest.mark.parametrize(
    ("value", "tick", "down", "up"),
    [(1.234, 0.05, 1.2, 1.25), (0.3, 0.1, 0.3, 0.3), (6500.1, 0.25, 6500.0, 6500.25)],
)
def test_quotes_are_rounded_outwards(value, tick, down, up):
    assert round_to(value, tick, up=False) == down
    assert round_to(value, tick, up=True) == up


def market_of(book: Book, seed: int = 7) -> Market:
    return Market(
        underlyings=book.underlyings, contracts=book.contracts, as_of=book.as_of, rate=book.rate,
        seed=seed, pins=book.pins,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_quotes_whichever_are_read():
    book = load_book("small")
    busy = market_of(book)
    lazy = market_of(book)
    reseeded = market_of(book, seed=8)
    for _ in range(57):
        for walking in (busy, lazy, reseeded):
            walking.step()
        for conid in book.contracts:
            busy.quote(conid)
    for conid in book.contracts:
        assert busy.quote(conid) == lazy.quote(conid)
    assert reseeded.quote(920000001) != lazy.quote(920000001)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), steps=st.integers(0, 60))
def test_quotes_stay_consistent_on_every_walk(seed, steps):
    book = load_book("small")
    simulated = market_of(book, seed)
    for _ in range(steps):
        simulated.step()
    for contract in book.contracts.values():
        quote = simulated.quote(contract.conid)
        assert quote.mark >= 0

        if quote.bid is None:
            continue
        assert 0 < quote.bid <= quote.mark <= quote.ask
        assert quote.ask - quote.bid <= max(0.03 * quote.mark, 3 * contract.min_tick)
        if contract.is_option:
            assert quote.greeks.price == pytest.approx(quote.mark, abs=1e-4)
        for side in (quote.bid, quote.ask, quote.last):
            steps_of_tick = side / contract.min_tick
            assert steps_of_tick == pytest.approx(round(steps_of_tick), abs=1e-6)


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

    early_price = american(early, spot, 40, 0.5, volatility, **terms)
    h = 0.05
    assert early_price.delta == pytest.approx((price(h) - price(-h)) / (2 * h), abs=0.012)
    assert early_price.vega == pytest.approx((price(0, 0.001) - price(0, -0.001)) / 0.2, abs=0.006)
    assert early_price.price >= max(0.0, spot - 40 if call else 40 - spot)


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
        price = american(today, spot, 40, 90 / 365, 0.3)
        after = american(tomorrow, spot, 40, 89 / 365, 0.3).price
        assert price.theta == pytest.approx(after - price.price, abs=0.001)


def market(options: OptionMarket | None, as_of: date | datetime = date(2028, 6, 1)) -> Market:
    underlying = Underlying(
        symbol="X", conid=1, price=100, volatility=0.3, dividend_yield=YIELD, exchange="ARCA"
    )
    terms = {"sec_type": SecType.OPT, "expiry": "20281215", "multiplier": 100, "currency": "USD"}
    names = dict.fromkeys(("symbol", "underlying", "local_symbol", "trading_class"), "X")
    put = Contract(conid=2, strike=90, right="P", under_conid=1, exchange="AMEX", **terms, **names)
    contracts = {
        2: put,
        3: replace(put, conid=3, strike=100),
        4: replace(put, conid=4, strike=110),
        5: replace(put, conid=5, strike=100, right="C"),
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


CALL = load_book("small").contracts[921000001]
MONDAY = "2026-03-09"
SATURDAY = "2026-03-14"


@given(st.sampled_from(["", "CLOSED", "0930-1600", "0000-2359"]), st.integers(0, 365 * 24 * 60))
def test_what_the_details_list_is_when_the_lines_tick(hours, minute):
    sessions = Sessions(hours)
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    listed = parse_trading_hours(sessions.listing(CALL, now.timestamp()), CALL.time_zone)
    assert listed.is_open(now) is sessions.is_open(CALL, now.timestamp())


@pytest.mark.parametrize(
    ("hours", "at", "is_open"),
    [
        ("", f"{SATURDAY} 03:00", True),
        ("CLOSED", f"{MONDAY} 15:00", False),
        ("0930-1600", f"{MONDAY} 13:29", False),  # 9:29 in New York, with summer time
        ("0930-1600", f"{MONDAY} 13:30", True),
        ("0930-1600", f"{MONDAY} 20:00", False),
        ("0930-1600", f"{SATURDAY} 15:00", False),
    ],
)
def test_a_contract_trades_by_the_clock_of_its_exchange(hours, at, is_open):
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert Sessions(hours).is_open(CALL, now.timestamp()) is is_open


def test_hours_of_one_contract_come_before_those_of_all_until_these_are_set_again():
    sessions = Sessions("CLOSED")
    sessions.set(CALL.conid, "")
    assert sessions.is_open(CALL, 0.0)
    sessions.set(None, "CLOSED")
    assert not sessions.is_open(CALL, 0.0)


def test_days_are_listed_in_the_form_of_the_gateway():
    days = listing(date(2026, 3, 13), "0930-1600").split(";")
    assert days[:2] == ["20260313:0930-20260313:1600", "20260314:CLOSED"]
    assert listing(date(2026, 3, 13)).startswith("20260313:0000-20260314:0000;20260314:0000-")


@pytest.mark.parametrize("hours", ["1600-0930", "0930-0930", "0960-1600", "2400-2500", "closed"])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(ValueError, match="0930-1600"):
        checked(hours)
