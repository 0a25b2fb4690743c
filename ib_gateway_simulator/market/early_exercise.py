"""What the right to exercise early adds to the price of an option, from trinomial trees.

A tree for each option and step would take most of a core. Therefore the addition is kept as a
function of spot / strike and volatility: one tree gives it for all strikes of an expiry at one
volatility, and an option is priced by the European formula and an interpolation. Trees are made
when first needed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from ib_gateway_simulator.market.pricing import DAYS_PER_YEAR, Greeks

# Steps of a tree. More make it more exact: it takes 6 ms with 160 and 20 ms with 350.
STEPS = 160

# How many standard deviations a tree reaches to each side.
WIDTH = 5.0

# The ratio of two successive volatilities for which there are trees.
RATIO = 1.1

# An option is exercised if its price exceeds what exercise gives by less than this share of its
# strike.
NEGLIGIBLE = 2e-5


class Addition(NamedTuple):
    """The addition and its slopes, as shares of the strike.

    `slope` and `curvature` are by the logarithm of the spot, `by_volatility` and `by_time` per 1.0
    of volatility and per year that passes.
    """

    value: float
    slope: float
    curvature: float
    by_volatility: float
    by_time: float


class _Tree(NamedTuple):
    """The additions at the nodes of one tree; `step` is the distance of their logarithms."""

    step: float
    values: list[float]
    by_time: list[float]


class EarlyExercise:
    """The addition for all strikes of one underlying, expiry and right.

    Args:
        years: The time to expiry.
        rate: The interest rate per year.
        carry: The growth of the underlying per year: the rate, and 0 for a future.
        call: The right.
        dividends: When each dividend is deducted from the price, in years from now, and its share
            of the price.
    """

    def __init__(
        self,
        *,
        years: float,
        rate: float,
        carry: float,
        call: bool,
        dividends: tuple[tuple[float, float], ...] = (),
    ) -> None:
        self._years = years
        self._rate = rate
        self._carry = carry
        self._side = 1.0 if call else -1.0
        step = years / STEPS
        # The share of the price that is left after the dividends, at each step.
        self._kept = [
            math.prod(1 - share for at, share in dividends if at <= layer * step)
            for layer in range(STEPS + 1)
        ]

        # By the step before a dividend: the share of the price and the discount of the strike, if
        # a call is exercised just before it, or a put just after.
        self._at_dividends: dict[int, tuple[float, float]] = {}
        for at, share in dividends:
            layer = min(int(at / step), STEPS - 1)
            left = 1.0 if call else 1 - share
            discount = math.exp(-rate * (at - layer * step))
            self._at_dividends[layer] = (self._kept[layer] * left, discount)
        self._trees: dict[int, _Tree] = {}

    def priced(self, european: Greeks, *, spot: float, strike: float) -> Greeks:
        """Return price and greeks of an American option, given those of the European one."""
        added = self.addition(math.log(spot / strike), european.implied_vol)
        exercised = max(0.0, self._side * (spot - strike))
        price = european.price + strike * max(0.0, added.value)
        if exercised and price - exercised < NEGLIGIBLE * strike:
            return replace(
                european, price=exercised, delta=self._side, gamma=0.0, vega=0.0, theta=0.0
            )
        delta = strike / spot * added.slope
        gamma = strike / spot**2 * (added.curvature - added.slope)
        vega = strike * added.by_volatility / 100
        theta = strike * added.by_time / DAYS_PER_YEAR
        return replace(
            european,
            price=price,
            delta=european.delta + delta,
            gamma=european.gamma + gamma,
            vega=european.vega + vega,
            theta=european.theta + theta,
        )

    def addition(self, moneyness: float, volatility: float) -> Addition:
        """Return the addition for one spot / strike; `moneyness` is the logarithm of this ratio."""
        place = math.log(volatility) / math.log(RATIO)
        below = math.floor(place)
        weight = place - below
        low = self._at(below, moneyness)
        high = self._at(below + 1, moneyness)
        mixed = [
            (1 - weight) * low_value + weight * high_value
            for low_value, high_value in zip(low, high, strict=True)
        ]
        slope = (high[0] - low[0]) / (volatility * math.log(RATIO))
        return Addition(mixed[0], mixed[1], mixed[2], slope, mixed[3])

    def _at(self, exponent: int, moneyness: float) -> tuple[float, float, float, float]:
        """Return value, slope, curvature and change by time at one of the volatilities."""
        tree = self._trees.get(exponent)
        if tree is None:
            tree = self._trees[exponent] = self._tree(RATIO**exponent)
        step, values, by_time = tree
        place = moneyness / step + (len(values) - 1) / 2
        node = math.floor(place)
        if not 1 <= node < len(values) - 2:
            return 0.0, 0.0, 0.0, 0.0

        x = place - node
        a, b, c, d = values[node - 1 : node + 3]
        # The cubic through b and c with the slopes of their neighbours (Catmull and Rom).
        first_order = c - a
        two = 2 * a - 5 * b + 4 * c - d
        three = 3 * (b - c) + d - a
        value = b + 0.5 * x * (first_order + x * (two + x * three))
        slope = 0.5 * (first_order + x * (2 * two + 3 * x * three)) / step

        bent_at_b = a - 2 * b + c
        bent_at_c = b - 2 * c + d
        curvature = ((1 - x) * bent_at_b + x * bent_at_c) / step**2
        change = (1 - x) * by_time[node] + x * by_time[node + 1]
        return value, slope, curvature, change

    def _tree(self, volatility: float) -> _Tree:
        """Return the American less the European values, both of one tree, at the first layer."""
        length = self._years / STEPS
        step = volatility * math.sqrt(3 * length)
        reach = math.ceil(WIDTH * math.sqrt(STEPS / 3))
        tilt = (self._carry - volatility**2 / 2) * math.sqrt(length / 12) / volatility
        discount = math.exp(-self._rate * length)
        weights = (discount * (1 / 6 - tilt), discount * 2 / 3, discount * (1 / 6 + tilt))
        spots = [math.exp(node * step) for node in range(-reach, reach + 1)]
        american = european = self._exercised(spots, STEPS)
        later: list[float] = []

        for layer in reversed(range(STEPS)):
            time_left = (STEPS - layer) * length
            forward = self._kept[-1] * math.exp(self._carry * time_left)
            to_end = math.exp(-self._rate * time_left)
            ends = [
                to_end * max(0.0, self._side * (spot * forward - 1))
                for spot in (spots[0], spots[-1])
            ]
            european = self._held(european, weights, ends)
            held = self._held(american, weights, ends)
            american = list(map(max, held, self._exercised(spots, layer)))
            if layer == 2:
                later = [one - two for one, two in zip(american, european, strict=True)]

        values = [one - two for one, two in zip(american, european, strict=True)]
        by_time = [(b - a) / (2 * length) for a, b in zip(values, later, strict=True)]
        return _Tree(step, values, by_time)

    @staticmethod
    def _held(
        later: list[float], weights: tuple[float, float, float], ends: list[float]
    ) -> list[float]:
        """Return what holding on is worth at each node of a layer, from the layer after it."""
        down, level, up = weights
        inner = [
            down * lower + level * same + up * higher
            for lower, same, higher in zip(later, later[1:], later[2:], strict=False)
        ]
        return [ends[0], *inner, ends[1]]

    def _exercised(self, spots: list[float], layer: int) -> list[float]:
        kept = self._kept[layer]
        side = self._side
        if layer not in self._at_dividends:
            return [max(0.0, side * (spot * kept - 1)) for spot in spots]

        later, strike = self._at_dividends[layer]
        return [
            max(0.0, side * (spot * kept - 1), side * (spot * later - strike)) for spot in spots
        ]
