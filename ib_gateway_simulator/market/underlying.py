"""Underlyings, and the random walks of their prices and volatilities."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ib_gateway_simulator.market.noise import mix
from ib_gateway_simulator.market.pricing import DAYS_PER_YEAR
from ib_gateway_simulator.protocol.contract import SecType

# Trading time that passes in one step, so that a demo moves visibly.
SECONDS_PER_STEP = 5.0

TRADING_SECONDS_PER_YEAR = 252 * 6.5 * 3600
# How strongly a price returns to its start in a step, so that a demo can run for weeks.
PULL = 2e-4

DIVIDENDS_PER_YEAR = 4

# When a stock trades without its dividend for the first time.
OPENING = time(9, 30)
NEW_YORK = ZoneInfo("America/New_York")

# A contract trades every fourth step; which one depends on its conid.
TRADE_EVERY = 4


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
    # Dividends per year as a share of the price; each quarter pays the same.
    dividend_yield: float = 0.0
    # The next ex-date; None: it follows from the conid.
    ex_dividend: date | None = None
    # By which share the price is expected to move, besides, before the first expiry.
    earnings_move: float = 0.0

    def volatility_until(self, years: float) -> float:
        """Return the volatility per year of the time to an expiry, with the move of the earnings.

        What is expected of one day counts more, the shorter the time is.
        """
        if not self.earnings_move or years <= 0:
            return self.volatility
        return math.sqrt(self.volatility**2 + self.earnings_move**2 / years)

    def ex_dates(self, years: float, now: date) -> tuple[float, ...]:
        """Return when the dividends of this time are deducted from the price, in years from now.

        Args:
            years: The time.
            now: A moment, or a day.
        """
        if not self.dividend_yield:
            return ()
        quarter = 1 / DIVIDENDS_PER_YEAR
        first = quarter * (mix(self.conid) % 90 + 1) / 91
        if self.ex_dividend is not None:
            first = _days_until(self.ex_dividend, now) / DAYS_PER_YEAR
        count = math.ceil(max(0.0, years - first) / quarter)
        dates = [first + number * quarter for number in range(count)]
        return tuple(at for at in dates if at > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionMarket:
    """How options are priced in a realistic market: with early exercise and moving volatilities.

    Options on indices are European, all others American. `volatility_walk` is the volatility per
    year of the level of each underlying's volatilities, and `skew_walk` that of their slope by
    strike. `seed` decides these walks; those of the prices stay as they are.
    """

    volatility_walk: float = 0.8
    skew_walk: float = 0.3
    seed: int = 1


def _days_until(day: date, now: date) -> float:
    if isinstance(now, datetime):
        return (datetime.combine(day, OPENING, NEW_YORK) - now) / timedelta(days=1)
    return float((day - now).days)


class VolatilityWalk:
    """The random walk of one underlying's volatilities; without `market` they stand still."""

    def __init__(self, underlying: Underlying, market: OptionMarket | None) -> None:
        market = market or OptionMarket(volatility_walk=0.0, skew_walk=0.0)
        self._random = random.Random(f"{market.seed}:{underlying.symbol}:volatility")  # noqa: S311
        dt = SECONDS_PER_STEP / TRADING_SECONDS_PER_YEAR
        self._level_scale = market.volatility_walk * math.sqrt(dt)
        self._tilt_scale = market.skew_walk * math.sqrt(dt)
        self._recent: deque[tuple[float, float]] = deque([(1.0, 0.0)], maxlen=TRADE_EVERY)
        # What is added to every volatility.
        self.shifted = 0.0

    def shift(self, points: float) -> None:
        """Raise every volatility by some points, from now on."""
        self.shifted += points / 100

    def step(self) -> None:
        """Move level and slope by one step; both are pulled back as prices are."""
        level, tilt = self._recent[-1]
        shock = self._random.gauss(0.0, 1.0) * self._level_scale
        turn = self._random.gauss(0.0, 1.0) * self._tilt_scale
        self._recent.append((level ** (1 - PULL) * math.exp(shock), tilt * (1 - PULL) + turn))

    def level_and_tilt(self, steps_back: int = 0) -> tuple[float, float]:
        """Return the factor of all volatilities and what is added to their slope by strike."""
        return self._recent[max(-len(self._recent), -1 - steps_back)]


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

    def jump(self, factor: float) -> None:
        """Multiply the price, now and for the time to come."""
        self._start *= factor
        self._recent[-1] *= factor

    def step(self) -> None:
        """Move the price by one step."""
        price = self._recent[-1]
        shock = self._random.gauss(0.0, 1.0) * self._scale
        pull = PULL * math.log(self._start / price)
        self._recent.append(price * math.exp(shock + pull))

    def price(self, steps_back: int = 0) -> float:
        """Return the price now, or a few steps ago (at most TRADE_EVERY - 1)."""
        return self._recent[max(-len(self._recent), -1 - steps_back)]
