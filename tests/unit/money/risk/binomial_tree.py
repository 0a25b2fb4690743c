"""The price of an option by a binomial tree with discrete dividends: the oracle of the tests."""

import math

import numpy as np


def tree_price(
    *,
    call: bool,
    spot: float,
    strike: float,
    years: float,
    rate: float,
    volatility: float,
    american: bool = True,
    on_future: bool = False,
    dividends: tuple[tuple[float, float], ...] = (),
    steps: int = 2000,
) -> float:
    """Price by Cox, Ross and Rubinstein on the price less the present value of the dividends."""
    side = 1.0 if call else -1.0
    if years <= 0:
        return max(0.0, side * (spot - strike))

    dt = years / steps
    paid = [(at, amount) for at, amount in dividends if 0 < at <= years]
    start = spot - sum(amount * math.exp(-rate * at) for at, amount in paid)
    up = math.exp(volatility * math.sqrt(dt))
    growth = 1.0 if on_future else math.exp(rate * dt)
    chance = (growth - 1 / up) / (up - 1 / up)
    discount = math.exp(-rate * dt)

    # Each second one is a node of a layer, from -step to step: the powers are computed once.
    nodes = start * up ** np.arange(-steps, steps + 1, 1.0)
    value = np.maximum(0.0, side * (nodes[::2] - strike))
    for step in reversed(range(steps)):
        value = discount * (chance * value[1:] + (1 - chance) * value[:-1])
        if american:
            now = step * dt
            to_pay = sum(a * math.exp(-rate * (at - now)) for at, a in paid if at > now)
            prices = nodes[steps - step : steps + step + 1 : 2] + to_pay
            value = np.maximum(value, side * (prices - strike))
    return float(value[0])
