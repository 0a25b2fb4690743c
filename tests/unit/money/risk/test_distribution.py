"""Probability of profit and expected value, beside formulas and sums of their own."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.risk.curve import CurveRow, Distribution, curves_of
from position_sync_dagster.money.risk.payoff import payoffs
from position_sync_dagster.money.risk.scenario_file import Point
from tests.unit.money.risk.test_payoff import leg, priced

VOLATILITY = 0.25
RATE = 0.04
STRIKES = ((90.0, "PUT", 1.0), (95.0, "PUT", -1.0), (105.0, "CALL", -1.0), (110.0, "CALL", 1.0))
COSTS = (0.9, 1.9, 1.8, 0.7)


def curve_of(*rows: PositionUpdate, **given: object) -> CurveRow:
    legs = priced(list(rows), rates={"USD": RATE}, **given)
    (curve,) = curves_of(legs, Point())
    return curve


def condor(**values: object) -> list[PositionUpdate]:
    usual: dict[str, object] = {"implied_vol": VOLATILITY}
    return [
        leg(conid, right, strike, quantity, cost, **usual | values)
        for conid, ((strike, right, quantity), cost) in enumerate(zip(STRIKES, COSTS, strict=True))
    ]


def expected(curve: CurveRow, profit_of: object) -> tuple[float, float]:
    """Return the chance of a gain and the mean gain by a plain sum over 40,000 even chances."""
    deviation = curve.expected_move / 100.0
    years = (deviation / VOLATILITY) ** 2
    forward = 100.0 * math.exp(RATE * years)
    standard = NormalDist()
    count = 40_000
    gains = []
    for n in range(count):
        z = standard.inv_cdf((n + 0.5) / count)
        gains.append(profit_of(forward * math.exp(deviation * z - deviation**2 / 2)))  # type: ignore[operator]
    return sum(gain > 0 for gain in gains) / count, math.fsum(gains) / count


def test_the_odds_of_a_condor_are_those_of_a_plain_sum_over_the_prices():
    def profit(price: float) -> float:
        total = 100 * (1.9 + 1.8 - 0.9 - 0.7)
        for strike, right, quantity in STRIKES:
            worth = max(0.0, strike - price if right == "PUT" else price - strike)
            total += 100 * quantity * worth
        return total

    curve = curve_of(*condor())
    chance, mean = expected(curve, profit)
    assert curve.probability_of_profit == pytest.approx(chance, abs=1e-4)
    assert curve.expected_value == pytest.approx(mean, abs=0.05)


def test_the_odds_of_a_short_put_are_those_of_blacks_formula():
    put = leg(1, "PUT", 95.0, -2.0, 3.0, implied_vol=VOLATILITY)
    curve = curve_of(put)
    deviation = curve.expected_move / 100.0
    forward = 100.0 * math.exp(RATE * (deviation / VOLATILITY) ** 2)
    normal = NormalDist().cdf

    even = (math.log(forward / 92.0) - deviation**2 / 2) / deviation
    assert curve.probability_of_profit == pytest.approx(normal(even), abs=1e-9)
    d1 = math.log(forward / 95.0) / deviation + deviation / 2
    worth = 95.0 * normal(deviation - d1) - forward * normal(-d1)
    assert curve.expected_value == pytest.approx(200 * (3.0 - worth), abs=1e-6)


def test_a_calendar_is_weighed_by_what_its_later_leg_is_worth_then():
    near = leg(1, "CALL", 100.0, -1.0, 3.0, implied_vol=VOLATILITY)
    far = leg(2, "CALL", 100.0, 1.0, 4.5, implied_vol=VOLATILITY)
    rows = [near, replace(far, expiry=far.expiry.replace(year=2027))]
    curve = curve_of(*rows)
    chance, mean = expected(curve, _interpolated(rows))
    assert curve.probability_of_profit == pytest.approx(chance, abs=0.002)
    assert curve.expected_value == pytest.approx(mean, abs=1.0)


def _interpolated(rows: list[PositionUpdate]) -> object:
    (payoff,) = payoffs(priced(rows, rates={"USD": RATE}))
    assert payoff.profit_at is not None
    places = np.linspace(20.0, 400.0, 4001)
    profits = payoff.profit_at(places)
    return lambda price: float(np.interp(price, places, profits))


def test_the_chances_of_all_prices_are_one_and_their_mean_is_the_forward():
    distribution = Distribution(forward=104.0, deviation=0.3)
    chance, mean = distribution.below(distribution.typical_prices[-1:] * 10)
    assert chance[0] == pytest.approx(1.0)
    assert mean[0] == pytest.approx(104.0)


@pytest.mark.parametrize("values", [{"implied_vol": None}, {"implied_vol": 0.0}])
def test_without_a_volatility_there_are_no_odds_and_no_move(values):
    curve = curve_of(*condor(**values))
    assert curve.probability_of_profit is None
    assert curve.expected_value is None
    assert curve.expected_move is None
    assert curve.at_expiry is not None, "what expires needs no model"


def test_what_is_reached_is_a_part_of_the_greatest_profit():
    rows = condor()
    rows[0] = replace(rows[0], unrealized_pnl=84.0)
    curve = curve_of(*rows)
    assert curve.greatest_profit == pytest.approx(210.0)
    assert curve.reached == pytest.approx(0.4)
    unbounded = curve_of(leg(1, "CALL", 100.0, 1.0, 3.0, implied_vol=VOLATILITY))
    assert unbounded.reached is None
