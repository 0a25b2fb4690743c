"""The content of a broker's statement: holdings, trades, cash, and what else happened."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

from position_sync_dagster.domain.column import Column
from position_sync_dagster.domain.instrument import Right

FLEX = "FLEX"
"""The source of rows from a Flex statement."""

GATEWAY = "GATEWAY"
"""The source of executions that a gateway reported on their day."""


class Side(StrEnum):
    """Whether an execution bought or sold."""

    BUY = "BUY"
    SELL = "SELL"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementPosition:
    """One holding at the end of a day, as the broker states it.

    Attributes:
        position: Signed quantity, negative when short.
        average_cost: Of one contract or share, including the multiplier.
    """

    account: str
    day: date
    conid: int
    symbol: str
    sec_type: str
    right: Right | None
    strike: float | None
    expiry: date | None
    multiplier: float
    currency: str
    local_symbol: str | None
    position: float
    market_price: float | None
    market_value: float | None
    average_cost: float | None
    unrealized_pnl: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One trade, or what the broker booked as one; a row of the table `executions`.

    A trade has a row of each source that names it, and a new row where a later statement says
    something else of it. `current_executions` returns the rows that count.
    """

    execution_id: Annotated[str, Column("The broker's id of the execution; unique.")]
    account: Annotated[str, Column("IB account that traded.")]
    conid: Annotated[int, Column("IB's contract id of the instrument.")]
    symbol: Annotated[str, Column("Symbol of the underlying, as IB writes it.")]
    sec_type: Annotated[str, Column("IB's security type: OPT, FOP, STK, FUT, …")]
    time: Annotated[datetime, Column("When it was executed (UTC).")]
    side: Annotated[Side, Column("BUY or SELL.")]
    quantity: Annotated[float, Column("How much, without a sign.", unit="contracts or shares")]
    price: Annotated[float | None, Column("Price of one unit.", unit="as quoted")]
    commission: Annotated[
        float | None,
        Column("What the broker charged; positive is a cost.", unit="`commission_currency`"),
    ]
    commission_currency: Annotated[str | None, Column("ISO code of the commission's currency.")]
    realized_pnl: Annotated[
        float | None, Column("Realized profit and loss of the trade.", unit="`currency`")
    ]
    currency: Annotated[str, Column("ISO code of the currency of the contract.")]
    source: Annotated[
        str,
        Column("Where the row came from: GATEWAY (on its day, provisional) or FLEX (a statement)."),
    ]
    statement: Annotated[
        str, Column("The statement that named it first: the file's name; empty of a gateway.")
    ]
    run_id: Annotated[str | None, Column("The Dagster run that wrote the row.")] = None
    codes: Annotated[
        str | None,
        Column("The broker's codes as it writes them, separated by semicolons: A, Ex, Ep, Ca, …"),
    ] = None
    open_close: Annotated[
        str | None, Column("Whether it opened or closed, as the broker says: O, C or C;O.")
    ] = None
    transaction_type: Annotated[
        str | None,
        Column("The broker's type: ExchTrade, BookTrade, TradeCancel, TradeCorrect, …"),
    ] = None
    order_id: Annotated[
        str | None, Column("The order's permanent id, equal for all legs of a combo order.")
    ] = None
    brokerage_order_id: Annotated[str | None, Column("The order's id at the broker.")] = None
    trade_id: Annotated[str | None, Column("The statement's id of the trade.")] = None
    corrects: Annotated[
        str | None, Column("The trade_id of the trade that this one cancels or corrects.")
    ] = None
    fx_rate_to_base: Annotated[
        float | None,
        Column("Rate of the currency.", unit="base currency of the account per `currency`"),
    ] = None
    underlying_conid: Annotated[int | None, Column("Contract id of the underlying.")] = None
    attributes: Annotated[
        str | None, Column("JSON: everything that the source said of it, as it wrote it.")
    ] = None
    stated_at: Annotated[
        datetime | None,
        Column("When the statement was made, or the gateway was asked: the later row counts."),
    ] = None

    @property
    def change(self) -> float:
        """Return by how much it changed the position, with a sign."""
        return self.quantity if self.side is Side.BUY else -self.quantity


class EventKind(StrEnum):
    """What a statement names besides positions and trades.

    OPTION_EVENT: an exercise, an assignment or an expiry (OptionEAE). CASH: interest, a fee, a
    dividend, a deposit (CashTransaction). PERIOD: the statement itself, where it names the trades
    of its days: what it does not name did not happen.
    """

    OPTION_EVENT = "OPTION_EVENT"
    CORPORATE_ACTION = "CORPORATE_ACTION"
    TRANSFER = "TRANSFER"
    CASH = "CASH"
    PERIOD = "PERIOD"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEvent:
    """One event of a statement, and one row of the table `statement_events`."""

    event_id: Annotated[str, Column("The broker's id of the event; the same in each statement.")]
    kind: Annotated[
        EventKind,
        Column(
            "OPTION_EVENT, CORPORATE_ACTION, TRANSFER, CASH or PERIOD (the days of a statement)."
        ),
    ]
    account: Annotated[str, Column("IB account that it concerns.")]
    day: Annotated[date, Column("The day that the statement names; of a PERIOD the last one.")]
    attributes: Annotated[str, Column("JSON: every attribute of the element, as written.")]
    source: Annotated[str, Column("Where the row came from: FLEX.")]
    statement: Annotated[str, Column("The statement that named it first: the file's name.")]
    first_day: Annotated[date | None, Column("The first day of a PERIOD.")] = None
    time: Annotated[datetime | None, Column("When it happened (UTC); null with a day alone.")] = (
        None
    )
    type: Annotated[
        str | None,
        Column(
            "What it is, as the broker writes it: Assignment, Expiration, FS (forward split), "
            "ACATS, Broker Interest Paid, …"
        ),
    ] = None
    conid: Annotated[int | None, Column("IB's contract id; null of money alone.")] = None
    symbol: Annotated[str | None, Column("Symbol of the underlying; null of money alone.")] = None
    sec_type: Annotated[str | None, Column("IB's security type.")] = None
    currency: Annotated[str | None, Column("ISO code of the currency.")] = None
    quantity: Annotated[
        float | None,
        Column("By how much the position changed, as stated.", unit="contracts or shares"),
    ] = None
    price: Annotated[float | None, Column("Price of one unit.", unit="as quoted")] = None
    amount: Annotated[
        float | None, Column("Money received; negative was paid.", unit="`currency`")
    ] = None
    realized_pnl: Annotated[
        float | None, Column("Realized profit and loss.", unit="`currency`")
    ] = None
    codes: Annotated[str | None, Column("The broker's codes, as it writes them.")] = None
    direction: Annotated[str | None, Column("IN or OUT of a transfer.")] = None
    fx_rate_to_base: Annotated[
        float | None,
        Column("Rate of the currency.", unit="base currency of the account per `currency`"),
    ] = None
    description: Annotated[str | None, Column("The broker's words.")] = None
    stated_at: Annotated[datetime | None, Column("When that statement was made.")] = None
    run_id: Annotated[str | None, Column("The Dagster run that wrote the row.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementCash:
    """Net liquidation and cash of an account at the end of a day, in its base currency."""

    account: str
    day: date
    currency: str | None
    net_liquidation: float | None
    cash: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The content of one file for one account.

    Attributes:
        file: The name of the file.
        first, last: The days that it covers.
        states_positions: Whether it has the section of positions. Without it, an account without
            positions is not known to be flat.
        states_trades: Whether it has the section of trades.
    """

    file: str
    account: str
    first: date
    last: date
    generated_at: datetime | None
    states_positions: bool
    states_trades: bool
    positions: tuple[StatementPosition, ...]
    executions: tuple[Execution, ...]
    cash: tuple[StatementCash, ...]
    events: tuple[StatementEvent, ...] = ()

    def period(self) -> StatementEvent | None:
        """Return the days whose trades it names, as an event; None without that section."""
        if not self.states_trades:
            return None
        return StatementEvent(
            event_id=f"{EventKind.PERIOD}:{self.account}:{self.first}:{self.last}",
            kind=EventKind.PERIOD,
            account=self.account,
            day=self.last,
            first_day=self.first,
            attributes="{}",
            source=FLEX,
            statement=self.file,
            stated_at=self.generated_at,
        )

    @property
    def days(self) -> frozenset[date]:
        """Return the days whose positions it states."""
        stated = {one.day for one in self.positions}
        return frozenset(stated | {self.last} if self.states_positions else stated)


def current_executions(executions: Iterable[Execution]) -> list[Execution]:
    """Return the row that counts of each execution, in order of time.

    Of several rows of one execution a statement's counts before a gateway's, and the one that was
    made later before the others. A gateway corrects an execution by one whose id differs in its
    last part alone, the greater one: it replaces the earlier ones. A statement corrects a trade by
    further rows: one that cancels it, with the opposite quantity, and one as it should be. All of
    these count, so that their sum is right.
    """
    newest: dict[str, Execution] = {}
    for one in executions:
        before = newest.get(one.execution_id)
        if before is None or _rank(one) > _rank(before):
            newest[one.execution_id] = one
    last: dict[str, Execution] = {}
    for one in newest.values():
        base, _, revision = one.execution_id.rpartition(".")
        name = base if one.source == GATEWAY and revision.isdecimal() else one.execution_id
        before = last.get(name)
        if before is None or _revision(one) > _revision(before):
            last[name] = one
    # A statement names the last revision alone.
    stated = {one.execution_id.rpartition(".")[0] for one in last.values() if one.source == FLEX}
    return sorted(
        (
            one
            for one in last.values()
            if one.source == FLEX or one.execution_id.rpartition(".")[0] not in stated
        ),
        key=lambda one: (one.time, one.execution_id),
    )


_NEVER = datetime.min.replace(tzinfo=UTC)


def _rank(one: Execution) -> tuple[bool, datetime]:
    return (one.source == FLEX, one.stated_at or _NEVER)


def _revision(one: Execution) -> int:
    last = one.execution_id.rpartition(".")[2]
    return int(last) if last.isdecimal() and len(last) < 10 else 0
