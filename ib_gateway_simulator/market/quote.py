"""The quote of one contract, and pins that hold a quote at given values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ib_gateway_simulator.market.pricing import Greeks


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The values at which a quote is held; None means that this side does not exist."""

    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    mark: float | None = None
    # The time of the last trade, in seconds since 1970; None lets trades go on at `last`.
    traded_at: int | None = None
    # Send no mark when `mark` is None, instead of one that follows from the sides.
    no_mark: bool = False

    def applied_to(self, quote: Quote) -> Quote:
        """Return a quote with the values of this pin."""
        mark = self.mark
        if mark is None and not self.no_mark:
            limits = [value for value in (self.bid, self.ask) if value is not None]
            mark = min(quote.mark or 0.0, max(limits)) if limits else quote.mark
        pinned = replace(quote, bid=self.bid, ask=self.ask, last=self.last, mark=mark)
        if self.traded_at is None:
            return pinned
        return replace(pinned, traded_at=self.traded_at, trade_step=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The quote of one contract at one step, in the unit in which it is quoted.

    That unit is a cent where `price_magnifier` is 100. `trade_step` is the step of the last trade.
    """

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
    # The time of the last trade, in seconds since 1970; None stands for the time of sending.
    traded_at: int | None = None
