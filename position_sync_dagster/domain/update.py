"""A value of a position: one row of `position_updates`, and who hears of it."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from position_sync_dagster.domain.instrument import Right


class PriceKind(StrEnum):
    """Which price valued the position."""

    MARK = "MARK"
    LAST = "LAST"
    MID = "MID"
    PORTFOLIO = "PORTFOLIO"
    MODEL = "MODEL"


class Source(StrEnum):
    """Which path wrote the row."""

    STREAM = "STREAM"
    QUEUE = "QUEUE"


class ValueOrigin(StrEnum):
    """Where the value came from (column `value_source`)."""

    TICK = "TICK"
    PORTFOLIO = "PORTFOLIO"
    PNL_SINGLE = "PNL_SINGLE"
    NONE = "NONE"


class TradingMode(StrEnum):
    """What kind of account the money is in; a lake holds one kind."""

    LIVE = "LIVE"
    PAPER = "PAPER"
    SIMULATED = "SIMULATED"


def trading_mode_of(account: str) -> TradingMode:
    """Tell an account's trading mode by its id.

    The simulator's accounts start with DUSIM, IB's paper accounts with D (DU…, DF…).
    Source: IB, "Paper Trading Account" (paper accounts carry the prefix D).
    """
    if account.startswith("DUSIM"):
        return TradingMode.SIMULATED
    return TradingMode.PAPER if account.startswith("D") else TradingMode.LIVE


@dataclass(frozen=True, slots=True)
class PositionUpdate:
    """The value of one holding at one time; None is unknown, zero is zero.

    Attributes:
        right: CALL, PUT, or None for what is no option.
        position: Signed units; 0.0 is the explicit row of a closed position.
        market_price: As quoted (in cents for a cent-quoted contract).
        market_value: position × market_price × multiplier / price_magnifier, in `currency`.
        average_cost: Per unit, including multiplier and commissions, in `currency`.
        unrealized_pnl: In `currency`.
        timestamp: When we knew.
        value_time: When it was true at the source; None when the source gave no time.
        update_id: Unique; a drained row's is derived from its request.
        gateway_id: "host:port" of the gateway that told.
        trading_mode: By default what the account says, when the row is written.
        batch_id: One per commit.
    """

    conid: int
    symbol: str
    right: Right | None
    position: float
    market_price: float | None
    market_value: float | None
    average_cost: float | None
    unrealized_pnl: float | None
    timestamp: datetime
    account: str = ""
    sec_type: str = "OPT"
    strike: float | None = None
    expiry: date | None = None
    multiplier: float = 100.0
    currency: str = "USD"
    price_kind: PriceKind | None = None
    bid: float | None = None
    ask: float | None = None
    realized_pnl: float | None = None
    daily_pnl: float | None = None
    implied_vol: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    underlying_price: float | None = None
    value_time: datetime | None = None
    source: Source = Source.STREAM
    value_source: ValueOrigin = ValueOrigin.NONE
    market_data_type: int | None = None
    gateway_id: str = ""
    trading_mode: TradingMode | None = None
    request_id: str | None = None
    session_id: str | None = None
    fencing_token: int | None = None
    run_id: str | None = None
    batch_id: str = ""
    update_id: str = ""


@runtime_checkable
class PositionUpdateHandler(Protocol):
    """Hear each streamed update.

    A handler that also has `async on_position_updates(updates)` gets each flush as one call.
    """

    async def on_position_update(self, update: PositionUpdate) -> None:
        """Take one update."""
        ...
