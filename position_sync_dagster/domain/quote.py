"""The newest market data of one contract, and which parts of it count; pure."""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

# The longest time from the newest tick of the model to the newest change of bid or ask.
MODEL_SILENCE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedDividends:
    """The dividends of a stock as the gateway sends them, as quoted (tick type 59).

    Attributes:
        next_date, next_amount: The next ex-date and amount; None: not known.
        next_year: The sum of the next 12 months.
    """

    next_date: date | None
    next_amount: float | None
    next_year: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The newest market data of one contract; None where the gateway sent nothing usable.

    Attributes:
        bid, ask, last, mark: In the contract's price unit (cents for cent-quoted contracts).
        quote_time: When the newest price or size of bid, ask or last arrived here.
        moved_at: When bid or ask last changed here.
        mark_time: When the mark arrived here.
        last_time: The exchange's time of the last trade.
        received_at: When the newest tick of any kind arrived here; None before the first.
        market_data_type: 1 live, 2 frozen, 3 delayed, 4 delayed frozen.
        halted: Trading is halted (tick 49, or 90 of delayed data).
        implied_vol, delta, gamma, vega, theta, underlying_price: From IB's option model.
        model_price: The option price of that model (tick 13).
        pv_dividend: The present value of the dividends until expiry in that model.
        greeks_time: When the newest values of that model arrived here.
        min_tick: The smallest change of a price (message 81).
        dividends: Those of a stock.
    """

    received_at: datetime | None = None
    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    mark: float | None = None
    quote_time: datetime | None = None
    moved_at: datetime | None = None
    mark_time: datetime | None = None
    last_time: datetime | None = None
    market_data_type: int | None = None
    halted: bool = False
    implied_vol: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    underlying_price: float | None = None
    model_price: float | None = None
    pv_dividend: float | None = None
    greeks_time: datetime | None = None
    min_tick: float | None = None
    dividends: StatedDividends | None = None

    @property
    def is_live(self) -> bool:
        """Whether its ticks are true when they arrive.

        Those of frozen data were true when the market closed, those of delayed data some 15 minutes
        before they came, or at the close before. Source: IB, "Market Data Types".
        """
        return self.market_data_type not in (2, 3, 4)

    @property
    def is_delayed(self) -> bool:
        """Whether it is delayed data, 3 or 4."""
        return self.market_data_type in (3, 4)

    def counted(self, *, since: datetime) -> "Quote":
        """Return the quote with the parts that arrived after a moment; the others are unknown.

        Quote, mark and model come from different parts of a gateway, and one may end while the
        others go on (IBC issues/371: quotes without the model's ticks). The model follows the
        price: if bid or ask changed over `MODEL_SILENCE` after the model's last tick, it has ended.

        Args:
            since: What arrived at this moment or earlier does not count. What describes the
                contract or the kind of data (`halted`, `min_tick`, dividends) stays until it is
                sent anew.
        """

        def counts(at: datetime | None) -> bool:
            return at is not None and since < at

        unknown: dict[str, Any] = {}
        if not counts(self.quote_time):
            unknown |= dict.fromkeys(_QUOTE_PART)
        if not counts(self.mark_time):
            unknown |= dict.fromkeys(_MARK_PART)
        if not counts(self.greeks_time) or self._model_is_silent():
            unknown |= dict.fromkeys(_MODEL_PART)
        return replace(self, **unknown) if unknown else self

    def _model_is_silent(self) -> bool:
        """Return whether the model's ticks have ended: bid or ask changed long after the last."""
        if self.moved_at is None or self.greeks_time is None:
            return False
        return self.moved_at - self.greeks_time > MODEL_SILENCE


GREEK_FIELDS = ("implied_vol", "delta", "gamma", "vega", "theta", "underlying_price")

# The fields of a quote, by the part of a gateway that sends them.
_QUOTE_PART = ("bid", "ask", "last", "last_time", "quote_time", "moved_at")
_MARK_PART = ("mark", "mark_time")
_MODEL_PART = (*GREEK_FIELDS, "model_price", "pv_dividend", "greeks_time")
