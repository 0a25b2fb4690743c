"""The option model against QuantLib, over random contracts: price, delta, theta and vega."""

import random
from dataclasses import asdict, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.model import Exercise, Greeks, VanillaOptions
from tests.support.extent import EVERYTHING, examples
from tests.unit.money.risk.quantlib_oracle import Contract, Reference, reference

# Greeks below these are compared with these: a day's decay, and a point of volatility, per 100.
SMALL_THETA = 0.002
SMALL_VEGA = 0.01


def exercise_of(contract: Contract) -> Exercise:
    if contract.is_on_future:
        return Exercise.FUTURE
    if contract.is_american:
        return Exercise.AMERICAN

    return Exercise.EUROPEAN


def modelled(contracts: list[Contract]) -> Greeks:
    terms = []
    dividends = []
    for contract in contracts:
        exercise = exercise_of(contract)
        side = 1.0 if contract.is_call else -1.0
        kind = (exercise.is_early, exercise.is_on_future)
        terms.append((side, contract.strike, contract.days / 365, contract.rate, *kind))
        dividends.append([(days / 365, amount, 0.0) for days, amount in contract.dividends])
    spot = np.array([[contract.spot] for contract in contracts])
    volatility = np.array([[contract.volatility] for contract in contracts])
    greeks = model.greeks(VanillaOptions.of(terms, dividends), spot, volatility)
    return Greeks(**{name: column[:, 0] for name, column in asdict(greeks).items()})


def random_contracts(count: int) -> list[Contract]:
    draw = random.Random(66)
    contracts = []
    for _ in range(count):
        days = draw.choice((5, 10, 21, 45, 90, 180, 365, 730))
        volatility = draw.choice((0.1, 0.15, 0.25, 0.4, 0.8))
        kind = draw.choice(("share", "share", "share", "share", "future", "index"))
        dividend = draw.choice((0.0, 0.0, 0.0, 0.5, 1.0, 2.0)) if kind != "future" else 0.0
        first = draw.randrange(3, 91)
        ex_dates = range(first, days, 91) if dividend else ()
        spread = draw.uniform(-1.5, 1.5) * volatility * (days / 365) ** 0.5
        contracts.append(
            Contract(
                is_call=draw.random() < 0.5,
                spot=100.0,
                strike=round(100 * float(np.exp(spread)), 2),
                days=days,
                rate=draw.choice((0.05, 0.04, 0.02, 0.005)),
                volatility=volatility,
                is_american=kind != "index",
                is_on_future=kind == "future",
                dividends=tuple((day, dividend) for day in ex_dates),
            )
        )
    return contracts


# The part of contracts within the bounds. A fourth of them may have twice as many outliers.
WITHIN = 0.99 if EVERYTHING else 0.98


def largest(errors: NDArray[np.float64]) -> float:
    return float(np.quantile(errors, WITHIN))


def part_of(
    found: NDArray[np.float64], right: NDArray[np.float64], least: float
) -> NDArray[np.float64]:
    return np.abs(found - right) / np.maximum(np.abs(right), least)


@pytest.mark.variation
@pytest.mark.timeout(600)
def test_random_contracts_agree_with_quantlib() -> None:
    """`TESTS=all` compares two thousand of them."""
    drawn = random_contracts(examples(2000))
    compared = [(contract, reference(contract)) for contract in drawn]
    # No option bends down: where QuantLib's grid says so, it is at fault.
    compared = [(contract, right) for contract, right in compared if right.gamma > -1e-4]
    assert len(compared) >= 0.99 * len(drawn)
    contracts = [contract for contract, _right in compared]
    references = [right for _contract, right in compared]
    greeks = modelled(contracts)
    strike = np.array([contract.strike for contract in contracts])

    def right(name: str) -> NDArray[np.float64]:
        return np.array([getattr(each, name) for each in references])

    assert largest(np.abs(greeks.price - right("price")) / strike) <= 0.0002
    assert largest(np.abs(greeks.delta - right("delta"))) <= 0.002
    assert largest(part_of(greeks.theta, right("theta"), SMALL_THETA)) <= 0.02
    assert largest(part_of(greeks.vega, right("vega"), SMALL_VEGA)) <= 0.02
    for name, least in (("delta", 0.0), ("theta", SMALL_THETA), ("vega", SMALL_VEGA)):
        counts = np.abs(right(name)) > least
        assert not np.any(counts & (getattr(greeks, name) * right(name) < 0)), name


def only(contract: Contract) -> tuple[Greeks, Reference]:
    return modelled([contract]), reference(contract)


def test_decay_with_cash_dividends_is_that_of_the_price_less_the_dividends() -> None:
    paid = tuple((day, 1.5) for day in range(60, 730, 91))
    put = Contract(
        is_call=False, spot=100.0, strike=100.0, days=730, rate=0.04, volatility=0.35,
        is_american=False, dividends=paid,
    )  # fmt: skip
    greeks, right = only(put)
    assert greeks.theta[0] == pytest.approx(right.theta, rel=0.01)
    nearer = tuple((day - 1, amount) for day, amount in paid)
    tomorrow = modelled([replace(put, days=729, dividends=nearer)])
    assert greeks.theta[0] == pytest.approx(tomorrow.price[0] - greeks.price[0], rel=0.01)


def test_beside_the_exercise_boundary_greeks_do_not_snap() -> None:
    put = Contract(
        is_call=False, spot=620.0, strike=640.5, days=5, rate=0.04, volatility=0.15
    )  # fmt: skip
    greeks, right = only(put)
    assert greeks.theta[0] == pytest.approx(-0.028, abs=0.002)
    assert greeks.gamma[0] == pytest.approx(right.gamma, rel=0.02)
    assert greeks.delta[0] == pytest.approx(right.delta, abs=0.001)


def test_without_a_dividend_nothing_gains_by_the_passing_of_time() -> None:
    puts = [
        Contract(is_call=False, spot=620.0, strike=strike, days=5, rate=0.04, volatility=0.15)
        for strike in range(580, 680)
    ]
    greeks = modelled(puts)
    assert greeks.theta.max() <= 0.0
    assert np.all(np.diff(greeks.delta) <= 2e-4)


def test_a_dividend_on_the_day_of_a_layer_of_the_lattice_is_paid_once() -> None:
    """Its ex-date is at two thirds of the life: a layer of each lattice is there."""
    put = Contract(
        is_call=False, spot=100.0, strike=103.02, days=180, rate=0.02, volatility=0.1,
        dividends=((29, 0.5), (120, 0.5)),
    )  # fmt: skip
    greeks, right = only(put)
    assert greeks.delta[0] == pytest.approx(right.delta, abs=0.002)
