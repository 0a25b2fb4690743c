"""The simulated market: quotes that follow from the random walks of the underlyings.

Everything is a function of (book, seed, step): the same seed gives the same prices at the same
step, whatever the clients request and whenever.
"""

from __future__ import annotations

from datetime import date

from position_sync_dagster.simulator.market.noise import mix
from position_sync_dagster.simulator.market.pricing import Greeks, black_scholes, round_to, skewed
from position_sync_dagster.simulator.market.quote import Pin, Quote
from position_sync_dagster.simulator.market.underlying import (
    TRADE_EVERY,
    RandomWalk,
    Underlying,
)
from position_sync_dagster.simulator.protocol.contract import Contract, SecType


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
        return quote if pin is None else pin.applied_to(quote)
