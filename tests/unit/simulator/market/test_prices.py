"""Prices: Black and Scholes, random walks, and the quotes that follow from them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ib_gateway_simulator import Book, load_book
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.market.pricing import Greeks, black_scholes, round_to


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
    call, put = price(True, **terms), price(False, **terms)
    forward = spot - 100 * math.exp(-0.05 * years)
    assert call.price - put.price == pytest.approx(forward, abs=1e-9)
    assert call.delta - put.delta == pytest.approx(1)
    assert call.gamma == pytest.approx(put.gamma)


@pytest.mark.parametrize("call", [True, False])
@pytest.mark.parametrize("on_future", [True, False])
def test_greeks_are_the_slopes_of_the_price(call, on_future):
    def at(**changes: float) -> float:
        terms = {"spot": 105.0, "strike": 100.0, "years": 0.7, "volatility": 0.3, "rate": 0.04}
        terms.update(changes)
        return black_scholes(call=call, on_future=on_future, **terms).price

    greeks = black_scholes(
        spot=105, strike=100, years=0.7, volatility=0.3, rate=0.04, call=call, on_future=on_future
    )
    h = 1e-4
    assert greeks.delta == pytest.approx((at(spot=105 + h) - at(spot=105 - h)) / (2 * h), rel=1e-5)
    assert greeks.vega == pytest.approx(
        (at(volatility=0.3 + h) - at(volatility=0.3 - h)) / (2 * h) / 100, rel=1e-5
    )
    assert greeks.theta == pytest.approx(
        (at(years=0.7 - h) - at(years=0.7 + h)) / (2 * h) / 365, rel=1e-5
    )
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


def market(book: Book, seed: int = 7) -> Market:
    return Market(
        underlyings=book.underlyings, contracts=book.contracts, as_of=book.as_of, rate=book.rate,
        seed=seed, pins=book.pins,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_quotes_whichever_are_read():
    book = load_book("small")
    busy, lazy, other = market(book), market(book), market(book, seed=8)
    for _ in range(57):
        for each in (busy, lazy, other):
            each.step()
        for conid in book.contracts:
            busy.quote(conid)
    for conid in book.contracts:
        assert busy.quote(conid) == lazy.quote(conid)
    assert other.quote(920000001) != lazy.quote(920000001)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), steps=st.integers(0, 60))
def test_quotes_stay_consistent_on_every_walk(seed, steps):
    book = load_book("small")
    simulated = market(book, seed)
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
