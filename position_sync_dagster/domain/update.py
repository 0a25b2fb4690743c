"""The value of a position: one row of `position_updates`, and the protocol of its handlers."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Protocol, runtime_checkable

from position_sync_dagster.domain.column import Column
from position_sync_dagster.domain.instrument import Right


class PriceKind(StrEnum):
    """The price that valued the position; which one is used when: `domain.price`.

    PORTFOLIO is the price of the broker's portfolio row, MODEL that of the gateway's option model.
    """

    MARK = "MARK"
    LAST = "LAST"
    MID = "MID"
    PORTFOLIO = "PORTFOLIO"
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
    return TradingMode.PAPER if account.startswith("D") else TradingMode.LIVE


@dataclass(frozen=True, slots=True)
class PositionUpdate:
    """The value of one holding at one time, and one row of the table `position_updates`.

    None is unknown, zero is zero. This class is the one definition of the table's columns: types,
    descriptions and units. The schema, the codec and the coercion of callers' updates follow it.
    """

    conid: Annotated[int, Column("IB's contract id of the instrument.")]
    symbol: Annotated[str, Column("Symbol of the underlying, as IB writes it.")]
    right: Annotated[
        Right | None, Column("CALL or PUT; null for an instrument that is not an option.")
    ]
    position: Annotated[
        float,
        Column(
            "Signed quantity held, negative when short; 0 in the row that records a close.",
            unit="contracts or shares",
        ),
    ]
    market_price: Annotated[
        float | None,
        Column("The price that valued the position.", unit="as quoted (cents if quoted in cents)"),
    ]
    market_value: Annotated[
        float | None,
        Column(
            "position × market_price × multiplier / price magnifier of the contract. For a future "
            "this is the notional value: do not add it to the value of options.",
            unit="`currency`",
        ),
    ]
    average_cost: Annotated[
        float | None,
        Column(
            "Average cost of one contract or share, including multiplier and commissions.",
            unit="`currency`",
        ),
    ]
    unrealized_pnl: Annotated[
        float | None, Column("market_value − position × average_cost.", unit="`currency`")
    ]
    timestamp: Annotated[datetime, Column("When this system knew the value (UTC).")]
    account: Annotated[str, Column("IB account that holds the position.")] = ""
    sec_type: Annotated[str, Column("IB's security type: OPT, FOP, STK, FUT, …")] = "OPT"
    strike: Annotated[
        float | None,
        Column("Strike of the option; null for other instruments.", unit="as quoted"),
    ] = None
    expiry: Annotated[
        date | None, Column("Expiry of an option or a future; null where there is none.")
    ] = None
    multiplier: Annotated[
        float, Column("Units of the underlying in one contract; 1 for a stock.")
    ] = 100.0
    currency: Annotated[
        str, Column("ISO code of the currency of all money columns of this row.")
    ] = "USD"
    price_kind: Annotated[
        PriceKind | None,
        Column(
            "Which price market_price is: MARK, LAST, MID, MODEL (the gateway's option model) or "
            "PORTFOLIO (from the broker's portfolio row); null without a price."
        ),
    ] = None
    bid: Annotated[
        float | None, Column("Best bid at the time of the valuation.", unit="as quoted")
    ] = None
    ask: Annotated[
        float | None, Column("Best ask at the time of the valuation.", unit="as quoted")
    ] = None
    realized_pnl: Annotated[
        float | None,
        Column("Realized profit and loss, as the broker reports it.", unit="`currency`"),
    ] = None
    daily_pnl: Annotated[
        float | None,
        Column(
            "Profit and loss of the day, as the broker reports it (PnLSingle).", unit="`currency`"
        ),
    ] = None
    implied_vol: Annotated[
        float | None,
        Column(
            "Implied volatility of the option model; 0.2 is 20 percent.",
            unit="part of one, a year",
        ),
    ] = None
    delta: Annotated[
        float | None,
        Column(
            "Delta of one option on one unit of the underlying; whose model: `greeks_source`.",
            unit="`currency` per `currency` of the underlying",
        ),
    ] = None
    gamma: Annotated[
        float | None,
        Column(
            "Gamma of one option on one unit of the underlying; whose model: `greeks_source`.",
            unit="delta per `currency` of the underlying",
        ),
    ] = None
    vega: Annotated[
        float | None,
        Column(
            "Vega of one option on one unit of the underlying; whose model: `greeks_source`.",
            unit="`currency`",
        ),
    ] = None
    theta: Annotated[
        float | None,
        Column(
            "Theta a day of one option on one unit of the underlying; whose model: "
            "`greeks_source`.",
            unit="`currency`",
        ),
    ] = None
    underlying_price: Annotated[
        float | None, Column("Price of the underlying in the option model.", unit="as quoted")
    ] = None
    value_time: Annotated[
        datetime | None,
        Column("When the value was true at its source (UTC); null when the source gave no time."),
    ] = None
    source: Annotated[
        Source, Column("Which path wrote the row: STREAM (the stream) or QUEUE (a drain).")
    ] = Source.STREAM
    value_source: Annotated[
        ValueOrigin,
        Column(
            "Where the value came from: TICK (market data), PORTFOLIO (the broker's portfolio "
            "row), PNL_SINGLE (a profit and loss subscription) or NONE."
        ),
    ] = ValueOrigin.NONE
    market_data_type: Annotated[
        int | None,
        Column("IB's market data type: 1 live, 2 frozen, 3 delayed, 4 delayed and frozen."),
    ] = None
    gateway_id: Annotated[str, Column('"host:port" of the gateway that reported the holding.')] = ""
    trading_mode: Annotated[
        TradingMode | None,
        Column("LIVE, PAPER or SIMULATED; derived from the account when the writer leaves it out."),
    ] = None
    request_id: Annotated[
        str | None,
        Column("The request of position_queue that this row answers; null for streamed rows."),
    ] = None
    session_id: Annotated[
        str | None, Column("The session of gateway_sessions that owned the login.")
    ] = None
    fencing_token: Annotated[
        int | None, Column("Fencing token of that session; a later owner has a greater one.")
    ] = None
    run_id: Annotated[str | None, Column("The Dagster run that wrote the row.")] = None
    batch_id: Annotated[str, Column("One id for all rows of a commit.")] = ""
    update_id: Annotated[
        str,
        Column(
            "Unique id of the row. A row that answers a request has an id derived from it, so that "
            "it is written once."
        ),
    ] = ""
    greeks_time: Annotated[
        datetime | None,
        Column(
            "When the greeks of the gateway came, or the price of the underlying from which those "
            "of MODEL follow (UTC); null without greeks."
        ),
    ] = None
    trading_class: Annotated[
        str | None,
        Column("IB's trading class: tells SPXW from SPX; null where the broker gave none."),
    ] = None
    local_symbol: Annotated[
        str | None,
        Column(
            "IB's local symbol, such as the OCC symbol of an option; null where the broker gave "
            "none."
        ),
    ] = None
    note: Annotated[
        str | None,
        Column("Why this value is used, where it is not the usual one; null otherwise."),
    ] = None
    greeks_source: Annotated[
        GreeksSource | None,
        Column(
            "GATEWAY (IB's option model) or MODEL (computed by this package from the broker's "
            "value); null without greeks."
        ),
    ] = None
    greeks_method: Annotated[
        str | None,
        Column(
            "How greeks of MODEL were computed: how the option is exercised, the interest rate and "
            "the share of the price that dividends have; null otherwise."
        ),
    ] = None
    volatility_time: Annotated[
        datetime | None,
        Column(
            "When the broker's value was true from which the volatility of MODEL follows (UTC); "
            "null otherwise."
        ),
    ] = None


class OwnUpdates(tuple[PositionUpdate, ...]):
    """Updates that this package made: each field has the type of its column already."""

    __slots__ = ()


@runtime_checkable
class PositionUpdateHandler(Protocol):
    """An object that receives each streamed update.

    A handler that also has `async on_position_updates(updates)` receives each flush as one call.
    """

    async def on_position_update(self, update: PositionUpdate) -> None:
        """Receive one update."""
        ...
