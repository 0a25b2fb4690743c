"""Underlyings, and the random walks of their prices."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass

from ib_gateway_simulator.protocol.contract import SecType

SECONDS_PER_STEP = 5.0
"""Trading time that passes in one step, so that a demo moves visibly."""

TRADING_SECONDS_PER_YEAR = 252 * 6.5 * 3600
PULL = 2e-4
"""How strongly a price returns to its start in a step, so that a demo can run for weeks."""

TRADE_EVERY = 4
"""A contract trades every fourth step; which one depends on its conid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlying:
    """An instrument whose price walks by itself; `volatility` is per year."""

    symbol: str
    conid: int
    price: float
    volatility: float
    currency: str = "USD"
    exchange: str = "NASDAQ"
    sec_type: SecType = SecType.STK
    name: str = ""


class RandomWalk:
    """The random walk of one underlying's price.

    `close` is the price at the previous close.
    """

    def __init__(self, underlying: Underlying, seed: int) -> None:
        self._start = underlying.price
        # str seeds are hashed by Random itself, independent of PYTHONHASHSEED.
        self._random = random.Random(f"{seed}:{underlying.symbol}")  # noqa: S311
        dt = SECONDS_PER_STEP / TRADING_SECONDS_PER_YEAR
        self._scale = underlying.volatility * math.sqrt(dt)
        self.close = underlying.price * (
            1 + 0.01 * self._random.uniform(-1, 1) * min(1.0, underlying.volatility)
        )
        self._recent: deque[float] = deque([underlying.price], maxlen=TRADE_EVERY)

    def step(self) -> None:
        """Move the price by one step."""
        price = self._recent[-1]
        shock = self._random.gauss(0.0, 1.0) * self._scale
        pull = PULL * math.log(self._start / price)
        self._recent.append(price * math.exp(shock + pull))

    def price(self, steps_back: int = 0) -> float:
        """Return the price now, or a few steps ago (at most TRADE_EVERY - 1)."""
        return self._recent[max(-len(self._recent), -1 - steps_back)]
