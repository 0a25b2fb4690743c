"""The value of one holding at one time: a row of `position_updates`, and who receives it."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from position_sync_dagster.domain.instrument import Right


class PriceKind(StrEnum):
    """The price that valued the position; which one is used when: `domain.valuation`.

    PORTFOLIO is the price of the broker's portfolio row, VALUE follows from the broker's value of
    the position (PnLSingle), MODEL is that of the gateway's option model.
    """

    MARK = "MARK"
    LAST = "LAST"
    MID = "MID"
    PORTFOLIO = "PORTFOLIO"
    VALUE = "VALUE"
    MODEL = "MODEL"


class Source(StrEnum):
    """The path that wrote the row: the stream, or a drain of the queue."""

    STREAM = "STREAM"
    QUEUE = "QUEUE"


class ValueOrigin(StrEnum):
    """Where the value came from (column `value_source`).

    TICK is market data, PORTFOLIO the broker's portfolio row, PNL_SINGLE a subscription for the
    profit and loss of one position, and NONE stands for a row without a value from a source.
    """

    TICK = "TICK"
    PORTFOLIO = "PORTFOLIO"
    PNL_SINGLE = "PNL_SINGLE"
    NONE = "NONE"


class GreeksSource(StrEnum):
    """Where the greeks came from: the gateway's option model, or the model of this package."""

    GATEWAY = "GATEWAY"
    MODEL = "MODEL"


class TradingMode(StrEnum):
    """The kind of account; a lake holds data of one kind only."""

    LIVE = "LIVE"
    PAPER = "PAPER"
    SIMULATED = "SIMULATED"


def trading_mode_of(account: str) -> TradingMode:
    """Return the trading mode of an account, by its id.

    The simulator's accounts start with DUSIM, IB's paper accounts with D (DU…, DF…).
    Source: IB, "Paper Trading Account" (paper accounts carry the prefix D).
    """
    if account.startswith("DUSIM"):
        return TradingMode.SIMULATED
    if account.startswith("D"):
        return TradingMode.PAPER

    return TradingMode.LIVE


@dataclass(frozen=True, slots=True)
class PositionUpdate:
    """The value of one holding at one time, and one row of the table `position_updates`.

    None is unknown, zero is zero. This class is the one definition of the table's columns: types,
    descriptions and units. The schema, the codec and the coercion of callers' updates follow it.

    Attributes:
        conid: IB's contract id of the instrument.
        symbol: Symbol of the underlying, as IB writes it.
        right: CALL or PUT; null for an instrument that is not an option.
        position: Signed quantity held, negative when short; 0 in the row that records a close.
            Unit: contracts or shares.
        market_price: The price that valued the position. Unit: as quoted (cents if quoted in
            cents).
        market_value: position × market_price × multiplier / price magnifier of the contract, or the
            broker's own value (PORTFOLIO, PNL_SINGLE). For a future this is the notional value: do
            not add it to the value of options. Unit: `currency`.
        average_cost: Average cost of one contract or share, including multiplier and commissions.
            Unit: `currency`.
        unrealized_pnl: market_value − position × average_cost; of the broker's own value, as the
            broker reports it. Unit: `currency`.
        timestamp: When this system knew the value (UTC).
        account: IB account that holds the position.
        sec_type: IB's security type: OPT, FOP, STK, FUT, …
        strike: Strike of the option; null for other instruments. Unit: as quoted.
        expiry: Expiry of an option or a future; null where there is none.
        multiplier: Units of the underlying in one contract; 1 for a stock.
        currency: ISO code of the currency of all money columns of this row.
        price_kind: Which price market_price is: MARK, LAST, MID, MODEL (the gateway's option
            model), PORTFOLIO (from the broker's portfolio row) or VALUE (the broker's value of
            PnLSingle, which is rounded to cents, for one unit); null without a price.
        bid: Best bid at the time of the valuation. Unit: as quoted.
        ask: Best ask at the time of the valuation. Unit: as quoted.
        realized_pnl: Realized profit and loss, as the broker reports it. Unit: `currency`.
        daily_pnl: Profit and loss of the day, as the broker reports it (PnLSingle). Unit:
            `currency`.
        implied_vol: Implied volatility of the option model; 0.2 is 20 percent. Unit: part of one, a
            year.
        delta: Delta of one option on one unit of the underlying; whose model: `greeks_source`.
            Unit: `currency` per `currency` of the underlying.
        gamma: Gamma of one option on one unit of the underlying; whose model: `greeks_source`.
            Unit: delta per `currency` of the underlying.
        vega: Vega of one option on one unit of the underlying; whose model: `greeks_source`. Unit:
            `currency`.
        theta: Theta a day of one option on one unit of the underlying; whose model:
            `greeks_source`. Unit: `currency`.
        underlying_price: Price of the underlying in the option model. Unit: as quoted.
        value_time: When the value was true at its source (UTC), of PNL_SINGLE when its newest
            message came; null when the source gave no time.
        source: Which path wrote the row: STREAM (the stream) or QUEUE (a drain).
        value_source: Where the value came from: TICK (market data), PORTFOLIO (the broker's
            portfolio row), PNL_SINGLE (a profit and loss subscription) or NONE.
        market_data_type: IB's market data type: 1 live, 2 frozen, 3 delayed, 4 delayed and frozen.
        gateway_id: The login that reported the holding: its name in the gateways file, or
            "host:port" without one.
        trading_mode: LIVE, PAPER or SIMULATED; derived from the account when the writer leaves it
            out.
        request_id: The request of position_queue that this row answers; null for streamed rows.
        session_id: The session of gateway_sessions that owned the login.
        fencing_token: Fencing token of that session; a later owner has a greater one.
        run_id: The Dagster run that wrote the row.
        batch_id: One id for all rows of a commit.
        update_id: Unique id of the row. A row that answers a request has an id derived from it, so
            that it is written once.
        greeks_time: When the greeks of the gateway came, or the price of the underlying from which
            those of MODEL follow (UTC); null without greeks, and where that says nothing of their
            age, as of delayed data.
        trading_class: IB's trading class: tells SPXW from SPX; null where the broker gave none.
        local_symbol: IB's local symbol, such as the OCC symbol of an option; null where the broker
            gave none.
        note: Why this value is used, where it is not the usual one; null otherwise.
        greeks_source: GATEWAY (IB's option model) or MODEL (computed by this package from the
            broker's value); null without greeks.
        greeks_method: How greeks of MODEL were computed: how the option is exercised, the interest
            rate and the share of the price that dividends have; null otherwise.
        volatility_time: When the broker's value was true from which the volatility of MODEL follows
            (UTC); null otherwise.
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
    greeks_time: datetime | None = None
    trading_class: str | None = None
    local_symbol: str | None = None
    note: str | None = None
    greeks_source: GreeksSource | None = None
    greeks_method: str | None = None
    volatility_time: datetime | None = None


@runtime_checkable
class PositionUpdateHandler(Protocol):
    """An object that receives each streamed update.

    A handler that also has `async on_position_updates(updates)` receives each flush as one call.
    """

    async def on_position_update(self, update: PositionUpdate) -> None:
        """Receive one update."""
        ...
