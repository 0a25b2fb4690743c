"""The simulated market: a seeded walk of the underlyings, and quotes that follow from it.

Everything is a function of (book, seed, step): the same seed gives the same prices at the same
step, whoever looks and whenever.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, replace
from datetime import date

from position_sync_dagster.simulator.market.pricing import Greeks, black_scholes, round_to, skewed
from position_sync_dagster.simulator.protocol.contract import Contract, SecType

SECONDS_PER_STEP = 5.0
"""Trading time that passes in one step, so that a demo moves visibly."""

TRADING_SECONDS_PER_YEAR = 252 * 6.5 * 3600
PULL = 2e-4
"""How strongly a walk returns to its start in a step: a demo that runs for weeks stays sane."""

TRADE_EVERY = 4
"""A contract trades every fourth step, each conid at its own one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlying:
    """Hold one instrument that walks by itself."""

    symbol: str
    conid: int
    price: float
    volatility: float
    currency: str = "USD"
    exchange: str = "NASDAQ"
    sec_type: SecType = SecType.STK
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Hold a quote at given values; None means that this side does not exist."""

    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    mark: float | None = None
    no_mark: bool = False
    """Send no mark at all when `mark` is None, instead of a derived one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Hold what one contract shows at one step, in its quoted unit (cents where so quoted)."""

    bid: float | None
    ask: float | None
    last: float | None
    mark: float | None
    bid_size: int
    ask_size: int
    last_size: int
    volume: int
    open: float
    close: float
    greeks: Greeks | None
    underlying_price: float
    trade_step: int


def mix(*parts: int) -> int:
    """Return a well spread 32 bit number made of the parts (splitmix64), the same everywhere."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = (value ^ (part & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 29
    value = value * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) & 0xFFFFFFFF


class RandomWalk:
    """Walk one underlying; keeps the few last prices that trades refer to."""

    def __init__(self, underlying: Underlying, seed: int) -> None:
        self._start = underlying.price
        # str seeds are hashed by Random itself, independent of PYTHONHASHSEED.
        self._random = random.Random(f"{seed}:{underlying.symbol}")  # noqa: S311
        dt = SECONDS_PER_STEP / TRADING_SECONDS_PER_YEAR
        self._scale = underlying.volatility * math.sqrt(dt)
        self.close = underlying.price * (
            1 + 0.01 * self._random.uniform(-1, 1) * min(1.0, underlying.volatility)
        )
        self.recent: deque[float] = deque([underlying.price], maxlen=TRADE_EVERY)

    def step(self) -> None:
        price = self.recent[-1]
        shock = self._random.gauss(0.0, 1.0) * self._scale
        pull = PULL * math.log(self._start / price)
        self.recent.append(price * math.exp(shock + pull))

    def price(self, steps_back: int = 0) -> float:
        return self.recent[max(-len(self.recent), -1 - steps_back)]


class Market:
    """Quote every contract of a book at the current step; advance with `step`."""

    def __init__(
        self,
        *,
        underlyings: dict[str, Underlying],
        contracts: dict[int, Contract],
        as_of: date,
        rate: float,
        seed: int,
        pins: dict[int, Pin] | None = None,
    ) -> None:
        self._underlyings = underlyings
        self._contracts = contracts
        self._as_of = as_of
        self._rate = rate
        self._seed = seed
        self._walks = {symbol: RandomWalk(item, seed) for symbol, item in underlyings.items()}
        self._cache: dict[int, Quote] = {}
        self._fixed: dict[int, tuple[float, float, float]] = {}
        self._terms: dict[int, tuple[float, float]] = {}
        self._trades: dict[int, tuple[int, float]] = {}
        self.pins: dict[int, Pin] = dict(pins or {})
        self.steps = 0

    def step(self) -> None:
        """Let one step of trading pass."""
        self.steps += 1
        for walk in self._walks.values():
            walk.step()
        self._cache.clear()

    def pin(self, conid: int, pin: Pin | None) -> None:
        """Hold a contract's quote at given values, or let it go again with None."""
        if pin is None:
            self.pins.pop(conid, None)
        else:
            self.pins[conid] = pin
        self._cache.pop(conid, None)

    def quote(self, conid: int) -> Quote:
        """Return the quote of a contract of the book at this step."""
        quote = self._cache.get(conid)
        if quote is None:
            quote = self._cache[conid] = self._quoted(self._contracts[conid])
        return quote

    def value_price(self, conid: int) -> float:
        """Return the price for portfolio values, in the major unit of the currency."""
        quote = self.quote(conid)
        candidates = (quote.mark, quote.last, quote.ask)
        price = next((value for value in candidates if value is not None), 0.0)
        return price / self._contracts[conid].price_magnifier

    def close_price(self, conid: int) -> float:
        """Return the previous close in the major unit of the currency."""
        return self.quote(conid).close / self._contracts[conid].price_magnifier

    def _theory(self, contract: Contract, spot: float) -> Greeks | None:
        if not contract.is_option:
            return None
        strike = contract.strike / contract.price_magnifier
        terms = self._terms.get(contract.conid)
        if terms is None:
            expiry = date.fromisoformat(contract.expiry)
            underlying = self._underlyings[contract.underlying]
            terms = (
                (expiry - self._as_of).days / 365.0,
                skewed(underlying.volatility, strike, underlying.price),
            )
            self._terms[contract.conid] = terms
        return black_scholes(
            spot=spot,
            strike=strike,
            years=terms[0],
            volatility=terms[1],
            rate=self._rate,
            call=contract.right == "C",
            on_future=contract.sec_type is SecType.FOP,
        )

    def _last(self, contract: Contract, walk: RandomWalk, fair: float) -> tuple[int, float]:
        """Return step and price of the newest trade."""
        back = min((self.steps + contract.conid) % TRADE_EVERY, self.steps)
        traded = self.steps - back
        known = self._trades.get(contract.conid)
        if known is None or known[0] != traded:
            at = self._fair(contract, walk.price(back)) if back else fair
            price = max(round_to(at, contract.min_tick, up=False), contract.min_tick)
            known = self._trades[contract.conid] = (traded, price)
        return known

    def _fair(self, contract: Contract, spot: float) -> float:
        theory = self._theory(contract, spot)
        return (spot if theory is None else theory.price) * contract.price_magnifier

    def _opened(self, contract: Contract, walk: RandomWalk) -> tuple[float, float, float]:
        """Return spread, open and close of the day: they do not change with the steps."""
        fixed = self._fixed.get(contract.conid)
        if fixed is None:
            underlying = self._underlyings[contract.underlying]
            opened = self._fair(contract, underlying.price)
            closed = self._fair(contract, walk.close)
            share = 0.02 if contract.is_option else 0.0002
            half = max(opened * share / 2, contract.min_tick / 2)
            tick = contract.min_tick
            fixed = (half, round_to(opened, tick, up=False), round_to(closed, tick, up=False))
            self._fixed[contract.conid] = fixed
        return fixed

    def _quoted(self, contract: Contract) -> Quote:
        walk = self._walks[contract.underlying]
        spot = walk.price()
        theory = self._theory(contract, spot)
        fair = (spot if theory is None else theory.price) * contract.price_magnifier
        half, opened, closed = self._opened(contract, walk)
        tick = contract.min_tick
        bid: float | None = round_to(fair - half, tick, up=False)
        ask: float | None = round_to(fair + half, tick, up=True)
        if bid is not None and bid <= 0:
            bid, ask = None, max(ask or 0.0, tick)
        noise = mix(self._seed, contract.conid, self.steps)
        traded, last = self._last(contract, walk, fair)
        trades = mix(self._seed, contract.conid) % 500 + traded // TRADE_EVERY
        quote = Quote(
            bid=bid,
            ask=ask,
            last=last,
            mark=round(fair, 4),
            bid_size=noise % 90 + 1,
            ask_size=(noise >> 8) % 90 + 1,
            last_size=mix(contract.conid, traded) % 9 + 1,
            volume=trades,
            open=opened,
            close=closed,
            greeks=theory,
            underlying_price=spot * contract.price_magnifier,
            trade_step=traded,
        )
        pin = self.pins.get(contract.conid)
        return quote if pin is None else _pinned(quote, pin)


def _pinned(quote: Quote, pin: Pin) -> Quote:
    mark = pin.mark
    if mark is None and not pin.no_mark:
        limits = [value for value in (pin.bid, pin.ask) if value is not None]
        mark = min(quote.mark or 0.0, max(limits)) if limits else quote.mark
    return replace(quote, bid=pin.bid, ask=pin.ask, last=pin.last, mark=mark)
