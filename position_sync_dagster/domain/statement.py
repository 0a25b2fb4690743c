"""The content of a broker's statement: holdings, trades, cash, and what else happened."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum

from position_sync_dagster.domain.broker_position import AccountSummary
from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.instrument import Right

# The source of rows from a Flex statement.
FLEX = "FLEX"

# The source of executions that a gateway reported on their day.
GATEWAY = "GATEWAY"


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

    Attributes:
        execution_id: The broker's id of the execution, unique in an account; all of its rows
            have it.
        account: IB account that traded.
        conid: IB's contract id of the instrument.
        symbol: Symbol of the underlying, as IB writes it.
        sec_type: IB's security type: OPT, FOP, STK, FUT, …
        time: When it was executed (UTC).
        side: BUY or SELL.
        quantity: How much, without a sign. Unit: contracts or shares.
        price: Price of one unit. Unit: as quoted.
        commission: What the broker charged; positive is a cost. Unit: `commission_currency`.
        commission_currency: ISO code of the commission's currency.
        realized_pnl: Realized profit and loss of the trade. Unit: `currency`.
        currency: ISO code of the currency of the contract.
        source: Where the row came from: GATEWAY (on its day, provisional) or FLEX (a statement).
        statement: The statement that named it first: the file's name; empty of a gateway.
        run_id: The Dagster run that wrote the row.
        codes: The broker's codes as it writes them, separated by semicolons: A, Ex, Ep, Ca, …
        open_close: Whether it opened or closed, as the broker says: O, C or C;O.
        transaction_type: The broker's type: ExchTrade, BookTrade, TradeCancel, TradeCorrect, …
        order_id: The order's permanent id, equal for all legs of a combo order.
        brokerage_order_id: The order's id at the broker.
        trade_id: The statement's id of the trade.
        corrects: The trade_id of the trade that this one cancels or corrects.
        fx_rate_to_base: Rate of the currency. Unit: base currency of the account per `currency`.
        underlying_conid: Contract id of the underlying.
        attributes: JSON: everything that the source said of it, as it wrote it.
        stated_at: When the statement was made, or the gateway was asked: the later row counts.
    """

    execution_id: str
    account: str
    conid: int
    symbol: str
    sec_type: str
    time: datetime
    side: Side
    quantity: float
    price: float | None
    commission: float | None
    commission_currency: str | None
    realized_pnl: float | None
    currency: str
    source: str
    statement: str
    run_id: str | None = None
    codes: str | None = None
    open_close: str | None = None
    transaction_type: str | None = None
    order_id: str | None = None
    brokerage_order_id: str | None = None
    trade_id: str | None = None
    corrects: str | None = None
    fx_rate_to_base: float | None = None
    underlying_conid: int | None = None
    attributes: str | None = None
    stated_at: datetime | None = None

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
    """One event of a statement, and one row of the table `statement_events`.

    Attributes:
        event_id: The broker's id of the event; the same in each statement.
        kind: OPTION_EVENT, CORPORATE_ACTION, TRANSFER, CASH or PERIOD (the days of a statement).
        account: IB account that it concerns.
        day: The day that the statement names; of a PERIOD the last one.
        attributes: JSON: every attribute of the element, as written.
        source: Where the row came from: FLEX.
        statement: The statement that named it first: the file's name.
        first_day: The first day of a PERIOD.
        time: When it happened (UTC); null with a day alone.
        type: What it is, as the broker writes it: Assignment, Expiration, FS (forward split),
            ACATS, Broker Interest Paid, …
        conid: IB's contract id; null of money alone.
        symbol: Symbol of the underlying; null of money alone.
        sec_type: IB's security type.
        currency: ISO code of the currency.
        quantity: By how much the position changed, as stated. Unit: contracts or shares.
        price: Price of one unit. Unit: as quoted.
        amount: Money received; negative was paid. Unit: `currency`.
        realized_pnl: Realized profit and loss. Unit: `currency`.
        codes: The broker's codes, as it writes them.
        direction: IN or OUT of a transfer.
        fx_rate_to_base: Rate of the currency. Unit: base currency of the account per `currency`.
        description: The broker's words.
        stated_at: When that statement was made.
        run_id: The Dagster run that wrote the row.
    """

    event_id: str
    kind: EventKind
    account: str
    day: date
    attributes: str
    source: str
    statement: str
    first_day: date | None = None
    time: datetime | None = None
    type: str | None = None
    conid: int | None = None
    symbol: str | None = None
    sec_type: str | None = None
    currency: str | None = None
    quantity: float | None = None
    price: float | None = None
    amount: float | None = None
    realized_pnl: float | None = None
    codes: str | None = None
    direction: str | None = None
    fx_rate_to_base: float | None = None
    description: str | None = None
    stated_at: datetime | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The content of one file for one account.

    Attributes:
        file: The name of the file.
        first, last: The days that it covers.
        days: The days whose positions it states. Without the section of positions, an account
            without positions is not known to be flat.
        accounts: The accounts that it names.
        events: With that of the PERIOD, if it has the section of trades, and each can be read.
        lacks_positions: Whether a position cannot be read: what it does not list may be held.
        left_out: The rows that cannot be read: for each, what is wrong and the remedy.
    """

    file: str
    account: str
    first: date
    last: date
    generated_at: datetime | None
    days: frozenset[date]
    accounts: frozenset[str]
    positions: tuple[StatementPosition, ...] = ()
    executions: tuple[Execution, ...] = ()
    cash: tuple[AccountSummary, ...] = ()
    events: tuple[StatementEvent, ...] = ()
    lacks_positions: bool = False
    left_out: tuple[tuple[str, str], ...] = ()

    def without_rows(self) -> "Statement":
        """Return what it covers, without its rows."""
        return replace(self, positions=(), executions=(), cash=(), events=())


def current_executions(executions: Iterable[Execution]) -> list[Execution]:
    """Return, for each execution, the row that counts; in order of time.

    If an execution has several rows, a row of a statement counts before a row of a gateway, and a
    later row before an earlier one. The answer of a gateway may come before the commission: such a
    row replaces none that has it. A gateway corrects an execution by another one whose id differs
    only in its last part: the execution with the greatest last part replaces the others. A
    statement corrects a trade by further rows: one that cancels it, with the opposite quantity, and
    one as it should be, which may have the id of the first. All of these count, so that their sum
    is right. A row without the id of its booking says the same as one that has it.
    """
    newest = {_name(one): one for one in sorted(executions, key=_rank)}
    booked = {name[:2] for name in newest if name[2]}
    stated = [
        one
        for name, one in newest.items()
        if one.source == FLEX and (name[2] or name[:2] not in booked)
    ]
    of_gateway = (one for one in newest.values() if one.source != FLEX)
    last = {_uncorrected(one): one for one in sorted(of_gateway, key=_revision)}
    for one in stated:  # a statement names only the last revision
        last.pop(_uncorrected(one), None)
    return sorted((*stated, *last.values()), key=lambda one: (one.time, one.execution_id))


_Name = tuple[str, str, str]


def _name(one: Execution) -> _Name:
    """Return account, id and booking.

    An order that an advisor allocates is executed in several accounts, and a trade that a statement
    corrects may be booked again with the same id: then its transactionID differs.
    """
    _, _, rest = (one.attributes or "").partition('"transactionID": "')
    return one.account, one.execution_id, rest.partition('"')[0] if one.source == FLEX else ""


def _uncorrected(one: Execution) -> _Name:
    """Return account and id without its last part, the number of the correction, if it has one."""
    base, _, revision = one.execution_id.rpartition(".")
    return one.account, base if base and revision.isdecimal() else one.execution_id, ""


def _rank(one: Execution) -> tuple[bool, bool, datetime]:
    is_stated = one.source == FLEX
    return (is_stated, is_stated or one.commission is not None, one.stated_at or NEVER)


def _revision(one: Execution) -> int:
    last = one.execution_id.rpartition(".")[2]
    return int(last) if last.isdecimal() and len(last) < 10 else 0
