"""The option model against a binomial tree of 2,000 steps that shares no code with it."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.model import Exercise, NoVolatility, VanillaOptions
from tests.support.extent import examples
from tests.unit.money.risk.binomial_tree import tree_price

NOW = datetime(2028, 6, 1, 15, 0, tzinfo=UTC)
QUARTERS = (0.03, 0.28, 0.53, 0.78, 1.03, 1.28, 1.53, 1.78)


@dataclass(frozen=True)
class Odd:
    """An option on an underlying at 100."""

    call: bool
    strike: float
    years: float
    rate: float
    volatility: float
    exercise: Exercise = Exercise.AMERICAN
    dividend: float = 0.0

    @property
    def dividends(self) -> tuple[tuple[float, float], ...]:
        is_paid = self.dividend and self.exercise is not Exercise.FUTURE
        return tuple((at, self.dividend) for at in QUARTERS if at < self.years and is_paid)

    def tree(self, spot: float, *, days: float = 0.0, vol: float = 0.0) -> float:
        passed = days / 365
        dividends = tuple((at - passed, amount) for at, amount in self.dividends)
        is_american = self.exercise is not Exercise.EUROPEAN
        is_on_future = self.exercise is Exercise.FUTURE
        return tree_price(
            call=self.call, spot=spot, strike=self.strike, years=self.years - passed,
            rate=self.rate, volatility=self.volatility + vol, american=is_american,
            on_future=is_on_future, dividends=dividends,
        )  # fmt: skip


def options_of(odd: list[Odd]) -> VanillaOptions:
    terms = []
    dividends = []
    for contract in odd:
        side = 1.0 if contract.call else -1.0
        exercise = contract.exercise
        money = (contract.strike, contract.years, contract.rate)
        terms.append((side, *money, exercise.is_early, exercise.is_on_future))
        dividends.append([(at, amount, 0.0) for at, amount in contract.dividends])
    return VanillaOptions.of(terms, dividends)


EUROPEAN = Exercise.EUROPEAN
NAMED = [
    Odd(call=False, strike=130, years=1.0, rate=0.05, volatility=0.2),
    Odd(call=False, strike=100, years=2 / 365, rate=0.05, volatility=0.3),
    Odd(call=True, strike=100, years=0.5, rate=0.04, volatility=0.25, dividend=2.0),
    Odd(call=True, strike=60, years=0.25, rate=0.04, volatility=0.35, dividend=1.5),
    Odd(call=True, strike=95, years=1.0, rate=-0.01, volatility=0.2),
    Odd(call=False, strike=105, years=2.0, rate=0.04, volatility=0.3, dividend=1.0),
    Odd(call=True, strike=105, years=0.5, rate=0.03, volatility=0.15, exercise=EUROPEAN),
    Odd(call=False, strike=110, years=0.7, rate=0.05, volatility=0.4, exercise=Exercise.FUTURE),
]


def more(count: int) -> list[Odd]:
    """Return odd options: deep, short-dated, high dividends, negative rates, index and future."""
    draw = random.Random(56)
    odd = []
    for _ in range(count):
        years = draw.choice((3 / 365, 10 / 365, 45 / 365, 0.3, 0.6, 1.0, 2.0))
        volatility = draw.choice((0.1, 0.2, 0.35, 0.8))
        kinds = [Exercise.AMERICAN] * 4 + [Exercise.FUTURE, Exercise.EUROPEAN]
        is_call = draw.random() < 0.5
        strike = 100 * np.exp(draw.uniform(-2, 2) * volatility * years**0.5)
        rate = draw.choice((0.05, 0.04, 0.02, 0.0, -0.01))

        exercise = draw.choice(kinds)
        dividend = draw.choice((0.0, 0.0, 0.5, 1.5, 3.0))
        odd.append(Odd(is_call, strike, years, rate, volatility, exercise, dividend))
    return odd


ODD = more(200)


def test_prices_scenarios_and_greeks_agree_with_the_tree() -> None:
    options = options_of(NAMED)
    volatility = np.array([[option.volatility] for option in NAMED])
    spots = np.tile([80.0, 100.0, 120.0], (len(NAMED), 1))
    now = model.prices(options, spots, volatility)
    later = model.prices(options.later(1.5), spots, volatility + 0.05)
    greeks_of_model = model.greeks(options, spots[:, 1:2], volatility)
    for n, option in enumerate(NAMED):
        close = 3e-4 * max(100.0, option.strike)
        base = option.tree(100.0)
        for m, spot in enumerate(spots[n]):
            assert now[n, m] == pytest.approx(option.tree(spot), abs=close), option

            moved = option.tree(spot, days=1.5, vol=0.05) - base
            assert later[n, m] - now[n, 1] == pytest.approx(moved, rel=0.01, abs=close), option
        step = max(0.5, 25 * option.volatility * option.years**0.5)
        up = option.tree(100.0 + step)
        down = option.tree(100.0 - step)
        bend = greeks_of_model.gamma[n, 0] * step**2
        assert bend == pytest.approx(up - 2 * base + down, abs=close, rel=0.15), option
        slope = (up - down) / (2 * step)
        assert greeks_of_model.delta[n, 0] == pytest.approx(slope, abs=0.02), option

        vega = (option.tree(100.0, vol=0.01) - option.tree(100.0, vol=-0.01)) / 2
        assert greeks_of_model.vega[n, 0] == pytest.approx(vega, abs=6e-3, rel=0.02), option
        hour = option.tree(100.0, days=1 / 24) - base
        assert greeks_of_model.theta[n, 0] / 24 == pytest.approx(hour, abs=2e-3, rel=0.05), option


def test_an_expired_option_is_worth_its_exercise() -> None:
    options = options_of([NAMED[0], NAMED[2]]).later(800)
    spots = np.array([[90.0, 140.0]] * 2)
    prices = model.prices(options, spots, np.array([[0.2], [0.2]]))
    assert prices.tolist() == [[40.0, 0.0], [0.0, 40.0]]


def test_a_share_as_dividend_is_the_same_as_its_amount_at_the_present_price() -> None:
    option = Odd(call=True, strike=100, years=0.5, rate=0.0, volatility=0.25)
    terms = [(1.0, 100.0, 0.5, 0.0, True, False)] * 2
    both = VanillaOptions.of(terms, [[(0.2, 1.0, 0.0)], [(0.2, 0.0, 0.01)]])
    volatility = np.full((2, 1), option.volatility)
    of_amount, of_share = model.prices(both, np.full((2, 1), 100.0), volatility)
    assert of_amount[0] == pytest.approx(of_share[0], abs=0.04)


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 199), st.floats(0.05, 2.0))
def test_a_price_gives_back_its_volatility_or_a_reason(number: int, near: float) -> None:
    option = ODD[number]
    options = options_of([option])
    spot = np.array([[100.0]])
    value = model.prices(options, spot, np.array([[option.volatility]]))
    found, reasons = model.implied_volatility(options, value, spot, np.array([[near]]))
    if reasons[0] is not None:
        assert np.isnan(found.item())
        return
    again = model.prices(options, spot, found)
    assert again.item() == pytest.approx(value.item(), abs=1e-3)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (4.0, NoVolatility.BELOW_INTRINSIC),
        (30.003, NoVolatility.NO_VEGA),
        (129.99, NoVolatility.OUT_OF_RANGE),
    ],
)
def test_a_value_that_shows_no_volatility_has_a_reason(value: float, reason: NoVolatility) -> None:
    options = options_of([NAMED[0]])
    values = np.array([[value]])
    spots = np.array([[100.0]])
    near = np.array([[0.3]])
    volatility, reasons = model.implied_volatility(options, values, spots, near)
    assert reasons == [reason]
    assert np.isnan(volatility.item())


@pytest.mark.parametrize("volatility", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_european_values_of_a_lattice_are_those_of_its_layers(volatility, side):
    steps, strike, discount = 288, 100.0, np.array([[0.9998]])
    width = volatility * np.sqrt(3 * 2.0 / steps)
    up = np.array([[np.exp(width)]])
    nodes = strike * np.exp(width * np.arange(-45, 46))[:, None]
    payoff = np.maximum(0.0, side * (nodes - strike))
    rise = discount / (3 * (1 + up))

    layer = payoff.copy()
    for _ in range(steps):
        inner = 2 / 3 * discount * layer[1:-1] + rise * layer[2:] + rise * up * layer[:-2]
        layer = np.concatenate([discount * layer[:1], inner, discount * layer[-1:]])
    at_once = model._expected_at_last(payoff, nodes, up, discount, steps)
    np.testing.assert_allclose(at_once, layer, rtol=1e-9, atol=1e-9)
