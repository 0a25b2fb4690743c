"""The newest market data of a contract."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The newest market data of one contract; None where the gateway sent nothing usable.

    Attributes:
        bid, ask, last, mark: In the contract's price unit (cents for cent-quoted contracts).
        mark_time: When the mark arrived here.
        last_time: The exchange's time of the last trade.
        received_at: When the newest tick arrived here; None before the first.
        market_data_type: 1 live, 2 frozen, 3 delayed, 4 delayed frozen.
        halted: Trading is halted (tick 49).
        implied_vol, delta, gamma, vega, theta, underlying_price: From IB's option model.
        model_price: The option price of that model (tick 13).
        greeks_time: When the newest values of that model arrived here.
        min_tick: The smallest change of a price (message 81).
    """

    conid: int
    received_at: datetime | None = None
    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    mark: float | None = None
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
    greeks_time: datetime | None = None
    min_tick: float | None = None

    @property
    def is_live(self) -> bool:
        """Whether its ticks are true when they arrive.

        Those of frozen data were true when the market closed, those of delayed data some 15 minutes
        before they came, or at the close before. Source: IB, "Market Data Types".
        """
        return self.market_data_type not in (2, 3, 4)
