"""Movements: what the broker did to holdings and cash of an account, each once; and which counts.

Several sources name the same trade: the gateway on its day, the statement of the night, and later
statements that correct it. `counting_movements` is the one rule that chooses among them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from math import copysign, fsum
from operator import attrgetter
from typing import Any

from polars import Expr, coalesce, col, when

from position_sync_dagster.domain.clock import A_DAY, NEVER
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import OPTION_TYPES
from position_sync_dagster.domain.leg import few


class MovementKind(StrEnum):
    """What moved a holding or cash.

    TRADE: bought or sold. ASSIGNMENT, EXERCISE: an option that ended by delivery, and what was
    delivered. EXPIRATION: an option that ended without value. CASH_SETTLEMENT: one that was paid in
    cash. TRANSFER: holdings that came from, or went to, another account or broker.
    CORPORATE_ACTION: a split, a merger and the like. CONVERSION: one currency for another.
    DIVIDEND: also a payment in lieu. WITHHOLDING: tax. INTEREST: also a coupon. FEE: any that is no
    commission. DEPOSIT, WITHDRAWAL: the owner's own cash, also that of a transfer. OTHER: cash of
    another type. UNEXPLAINED: what was gone, and no source says why; no row of `movements` has it.
    """

    TRADE = "TRADE"
    ASSIGNMENT = "ASSIGNMENT"
    EXERCISE = "EXERCISE"
    EXPIRATION = "EXPIRATION"
    CASH_SETTLEMENT = "CASH_SETTLEMENT"
    TRANSFER = "TRANSFER"
    CORPORATE_ACTION = "CORPORATE_ACTION"
    CONVERSION = "CONVERSION"
    DIVIDEND = "DIVIDEND"
    WITHHOLDING = "WITHHOLDING"
    INTEREST = "INTEREST"
    FEE = "FEE"
    DEPOSIT = "DEPOSIT"
    WITHDRAWAL = "WITHDRAWAL"
    OTHER = "OTHER"
    UNEXPLAINED = "UNEXPLAINED"


# The ends of options by delivery: the option has such a movement, and what was delivered another.
DELIVERY_KINDS = frozenset({MovementKind.ASSIGNMENT, MovementKind.EXERCISE})

# The face value of one bill: a statement counts its face value, a gateway its units.
FACE_OF_BILL = 1000.0

# What the broker writes of a row that takes another one back. Source: ibflex 1.1, `enums.Code`.
CANCELLED = "Ca"
CANCELS = frozenset({"TradeCancel", "FracShareCancel"})

# Types of corporate actions that are splits. Source: ibflex 1.1, `enums.Reorg`.
SPLITS = frozenset({"FS", "FI", "RS", "CS", "CC"})

EXERCISE_CODES = frozenset({"Ex", "AEx", "MEx"})


def codes_of(text: str | None) -> frozenset[str]:
    """Return the codes of a text of the broker.

    >>> sorted(codes_of("A;C"))
    ['A', 'C']
    """
    parts = re.split("[;,]", text or "")
    return frozenset(part.strip() for part in parts if part.strip())


# What ended an option, by the type of its event; what came with it has the type Buy or Sell.
OPTION_ENDS = {
    "assignment": MovementKind.ASSIGNMENT,
    "exercise": MovementKind.EXERCISE,
    "expiration": MovementKind.EXPIRATION,
    "cash settlement": MovementKind.CASH_SETTLEMENT,
}

# How options end that are not traded away, and what was delivered then.
ENDS = frozenset(OPTION_ENDS.values())

# The type of cash that corrects what a trade cost.
COMMISSION_ADJUSTMENTS = "commission adjustments"

# Cash that is profit, and of no quantity.
INCOME = frozenset({
    MovementKind.DIVIDEND, MovementKind.WITHHOLDING, MovementKind.INTEREST, MovementKind.FEE,
    MovementKind.OTHER,
})  # fmt: skip

# Cash that the owner brought or took: it is no profit.
OWNERS_CASH = frozenset({MovementKind.DEPOSIT, MovementKind.WITHDRAWAL})


class MovementSource(StrEnum):
    """Who says it: the gateway on its day, a statement, or the cause of a close that follows."""

    API = "API"
    STATEMENT = "STATEMENT"
    INFERRED = "INFERRED"


class Section(StrEnum):
    """A section of a statement; movements of other sources are in the one that would name them."""

    TRADES = "TRADES"
    OPTION_EVENTS = "OPTION_EVENTS"
    CORPORATE_ACTIONS = "CORPORATE_ACTIONS"
    TRANSFERS = "TRANSFERS"
    CASH = "CASH"


# The sections of elements, and of their rows.
SECTION_OF = {
    "OptionEAE": Section.OPTION_EVENTS,
    "CorporateActions": Section.CORPORATE_ACTIONS,
    "CorporateAction": Section.CORPORATE_ACTIONS,
    "Transfers": Section.TRANSFERS,
    "Transfer": Section.TRANSFERS,
    "CashTransactions": Section.CASH,
    "CashTransaction": Section.CASH,
}


# What closes what is held, as the broker writes it.
CLOSED = "C"


def is_cancellation(movement: "Movement") -> bool:
    """Return whether the broker took another booking back."""
    if movement.type in CANCELS:
        return True
    return movement.codes is not None and CANCELLED in codes_of(movement.codes)


# Account, first day, last day and time of a statement: what names it, in whatever file it is.
StatementName = tuple[str, date | None, date | None, datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One thing that the broker did to an account's holdings or cash: a row of `movements`.

    What follows from a cause of a close alone is no row of the table: `export movements` has it.

    Attributes:
        movement_id: Unique; it is the same each time the same sources are read.
        kind: TRADE, ASSIGNMENT, EXERCISE, EXPIRATION, CASH_SETTLEMENT, TRANSFER, CORPORATE_ACTION,
            CONVERSION, DIVIDEND, WITHHOLDING, INTEREST, FEE, DEPOSIT, WITHDRAWAL or OTHER.
        section: The section of a statement that names such a movement.
        account: IB account.
        day: Its report date; else the day of its time in the zone of the calendar.
        session_date: The trading day to which it belongs: `day`, or the next one with a session.
        at: When it happened (UTC); null where only a day is known.
        conid: IB's contract id; null of money alone. Of a dividend: the contract that pays.
        symbol: Symbol of the underlying, as IB writes it; null of money alone.
        sec_type: IB's security type: OPT, FOP, STK, FUT, …; null of money alone.
        right: CALL or PUT; null of what is no option, or where neither its source
            nor `contracts` says it.
        strike: Strike of an option. Unit: as the source writes it.
        expiry: Expiry of an option or a future, where the source says it.
        quantity: By how much the holding changed, with a sign; null of money alone, and where it is
            not known. Unit: contracts or shares; of a bond or a bill as its source counts it.
        price: Price of one unit; null where it is not known: no price is not 0. Unit: `currency`,
            also of what is quoted in cents; of a bond percent of its face.
        multiplier: As the execution, the statement or the contract states it; 1 of stocks,
            currencies and indices whose source leaves it empty; null where it is not known. Unit:
            units of the underlying in one contract.
        currency: ISO code of the currency of price and cash.
        cash: What was received for it, without `fee`; negative was paid; of a future the notional.
            Null where it is not known, 0 where nothing was paid. Unit: `currency`.
        value: What a transfer brought in kind, as stated; negative was taken out. Null of other
            kinds, and where it is not known. Unit: `currency`.
        fee: Commission; negative was paid. Null where it is not known yet, 0 where there is none.
            Unit: `fee_currency`.
        fee_currency: ISO code of the currency of the fee.
        realized_pnl: Realized profit, as the broker states it. Unit: `currency`.
        fx_rate_to_base: Rate of `currency`. Unit: base currency of the account per `currency`.
        source: API or STATEMENT; INFERRED of what follows from a cause of a close.
        execution_id: The broker's id of the execution; null of what is none.
        event_id: The id of the row of `statement_events`; null of others.
        change_id: The id of the row of `position_changes` of an inferred one; null of others.
        trade_id: The statement's id of the trade.
        transaction_id: The statement's id of the booking.
        corrects: The trade_id of the trade that this one cancels or corrects.
        action_id: The broker's id of a corporate action, the same of all that it takes and brings.
        order_id: The order's permanent id, equal for all legs of a combo order.
        underlying_conid: Contract id of the underlying, where it is known.
        counter_conid: Of a delivery: the other holding, the option's or what was delivered.
        type: What it is, as the broker writes it: ExchTrade, BookTrade, FS, ACATS, Dividends, …
        codes: The broker's codes, separated by semicolons: A, Ex, Ep, Ca, …
        open_close: Whether it opened or closed, as the broker says: O, C or C;O. C of a transfer
            that went out, and whose section writes no signs.
        description: The broker's words.
        statement: The statement that states it, the newest one: the file's name; else null.
        stated_at: When that statement was made, the gateway was asked, or the cause was judged.
        stated_first: The first day of that statement; null of others.
        stated_last: Its last day. Account, days and time name a statement, in whatever file it is.
    """

    movement_id: str
    kind: MovementKind
    section: Section
    account: str
    day: date
    session_date: date
    at: datetime | None = None
    conid: int | None = None
    symbol: str | None = None
    sec_type: str | None = None
    right: str | None = None
    strike: float | None = None
    expiry: date | None = None
    quantity: float | None = None
    price: float | None = None
    multiplier: float | None = None
    currency: str | None = None
    cash: float | None = None
    value: float | None = None
    fee: float | None = None
    fee_currency: str | None = None
    realized_pnl: float | None = None
    fx_rate_to_base: float | None = None
    source: MovementSource
    execution_id: str | None = None
    event_id: str | None = None
    change_id: str | None = None
    trade_id: str | None = None
    transaction_id: str | None = None
    corrects: str | None = None
    action_id: str | None = None
    order_id: str | None = None
    underlying_conid: int | None = None
    counter_conid: int | None = None
    type: str | None = None
    codes: str | None = None
    open_close: str | None = None
    description: str | None = None
    statement: str | None = None
    stated_at: datetime | None = None
    stated_first: date | None = None
    stated_last: date | None = None

    @property
    def stated_by(self) -> StatementName:
        """Return what names the statement that states it."""
        return self.account, self.stated_first, self.stated_last, self.stated_at

    @property
    def key(self) -> Key:
        """Return account and conid of the holding that it moved; 0 of money alone."""
        return self.account, self.conid or 0

    @property
    def change(self) -> float:
        """Return by how much it is known to have changed the holding; of money alone 0."""
        return self.quantity or 0.0

    @property
    def is_option(self) -> bool:
        """Return whether it is of an option."""
        return self.sec_type in OPTION_TYPES

    @property
    def is_sideless(self) -> bool:
        """Return whether a transfer closed what was held, and nothing says whether it was long."""
        return self.kind is MovementKind.TRANSFER and self.open_close == CLOSED

    @property
    def through(self) -> int | None:
        """Return the option that delivered it; None: none did."""
        if self.kind in DELIVERY_KINDS and not self.is_option:
            return self.counter_conid
        return None

    @property
    def booking(self) -> str | None:
        """Return the id that all statements give it; None: it has none."""
        return self.transaction_id or self.trade_id or self.execution_id


def signed_transfer(transfer: Movement, quantity: float) -> Movement:
    """Return a transfer of a quantity, of which its value has the sign."""
    value = transfer.value
    return replace(
        transfer,
        quantity=quantity,
        value=None if value is None else copysign(value, quantity),
    )


# When in its day, in New York, a trade counts as made, and a booking, of which only the day is
# known.
_TRADED_AT = time(12)
_BOOKED_AT = time(23, 59)


def moment_of(movement: Movement) -> datetime:
    """Return when a movement happened, as far as that is known."""
    if movement.at is not None:
        return movement.at
    usual = _TRADED_AT if movement.kind is MovementKind.TRADE else _BOOKED_AT
    return datetime.combine(movement.day, usual, NEW_YORK).astimezone(UTC)


def moment_in() -> Expr:
    """Return the same of rows of `movements`."""
    is_trade = col.kind == MovementKind.TRADE.value
    usual = when(is_trade).then(_TRADED_AT).otherwise(_BOOKED_AT)
    of_day = col.day.dt.combine(usual).dt.replace_time_zone(str(NEW_YORK))
    return coalesce("at", of_day.dt.convert_time_zone("UTC"))


# What says which contract a movement is of.
CONTRACT = ("symbol", "sec_type", "right", "strike", "expiry", "currency", "multiplier")

# What sources name in the same words as a movement, as far as they have it.
_SAME = (
    "account", "conid", "symbol", "sec_type", "right", "strike", "expiry", "currency",
    "realized_pnl", "fx_rate_to_base", "execution_id", "event_id", "change_id", "corrects",
    "order_id", "underlying_conid", "codes", "open_close", "stated_at",
)  # fmt: skip


def movement_of(record: object, day: date, **named: Any) -> Movement:
    """Return the movement of a day that a record of a source is.

    Args:
        named: What the record does not have in the same words; these count.
    """
    same: dict[str, Any] = {name: getattr(record, name, None) for name in _SAME}
    return Movement(**same | {"day": day, "session_date": day} | named)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedSection:
    """A section that a statement has: it states everything of these days.

    Attributes:
        account: IB account.
        section: The section.
        first, last: The report dates that it covers.
        statement: The file's name.
        stated_at: When the statement was made; None: it does not say.
    """

    account: str
    section: Section
    first: date
    last: date
    statement: str
    stated_at: datetime | None

    @property
    def name(self) -> StatementName:
        """Return what names the statement."""
        return self.account, self.first, self.last, self.stated_at


def _age_of(name: StatementName) -> tuple[datetime, date, date]:
    """Return what is greater in the newer of two statements."""
    _account, first, last, stated_at = name
    return stated_at or NEVER, last or date.min, first or date.min


# How much later than the broker books a change it may be seen, or the end of an option be booked:
# an expiry on Friday, a long weekend, and the position is gone on Tuesday.
BOOKED = timedelta(days=5)


def lead_of(movement: Movement) -> timedelta:
    """Return how much earlier its time may be than the effect that a gateway shows."""
    if movement.source is MovementSource.API:
        return timedelta()
    is_trade = movement.kind is MovementKind.TRADE and movement.section is Section.TRADES
    if movement.type == "BookTrade" or not movement.price or not is_trade:
        return BOOKED
    # Without the field Date/Time a statement names the day alone.
    if movement.at is None:
        return A_DAY
    return timedelta()


# The sections of statements, by account and section.
_Coverage = defaultdict[tuple[str, Section], list[StatedSection]]


def counting_movements(
    movements: Iterable[Movement], coverage: Iterable[StatedSection]
) -> list[Movement]:
    """Return those movements that count, each once, in order of day.

    For each account, report date and section that a statement has, the newest statement states
    everything: what it does not name is gone. Equal rows of one statement are several bookings. A
    section that is absent says nothing. Where no statement covers the day, or it was made before
    an execution, what the gateway says counts, and without that what follows from the cause of a
    close.

    A statement may also name what has another day than its own: what was booked late. Of such a
    booking the newest row counts, unless a newer statement covers its day. The end of an option is
    in two sections: the one of trades counts. If it was settled in cash it delivers nothing, though
    a statement calls it an exercise or an assignment as well.

    Args:
        movements: Of all sources and of all statements.
        coverage: The sections of all statements.
    """
    covering = grouped(attrgetter("account", "section"), coverage)
    for statements in covering.values():
        statements.sort(key=lambda covered: _age_of(covered.name), reverse=True)

    stated = []
    unstated = []
    for movement in movements:
        newest = newest_of(covering[movement.account, movement.section], movement.day)
        if movement.source is MovementSource.STATEMENT:
            stated_at = movement.stated_at or NEVER
            if (
                newest is None
                or newest.name == movement.stated_by
                or stated_at > (newest.stated_at or NEVER)
            ):
                stated.append(movement)
        elif _may_be_unnamed(movement, newest, covering):
            unstated.append(movement)

    counting = _with_single_ends(_newest_bookings(stated), covering)
    # What no statement names, also not under another day: a trade of the evening. Of several
    # answers of the gateway about an execution the last revision counts, and of that the newest one
    # with its commission: an answer may come before it.
    named = set(map(_execution_of, counting))
    newest_of_gateway = {_execution_of(row): row for row in sorted(unstated, key=_newness)}
    counting += [row for execution, row in newest_of_gateway.items() if execution not in named]
    return sorted(counting, key=attrgetter("day", "movement_id"))


def newest_of(statements: Iterable[StatedSection], day: date) -> StatedSection | None:
    """Return the first statement that covers a day."""
    for covered in statements:
        if covered.first <= day <= covered.last:
            return covered
    return None


def _may_be_unnamed(
    movement: Movement,
    newest: StatedSection | None,
    covering: _Coverage,
) -> bool:
    """Return whether a movement counts though no statement names it.

    No statement covers its day, or the one that does was made before the gateway's execution. The
    trades of a statement name all ends of options too, which are inferred without them, and are
    seen later than they happen.
    """
    if movement.source is MovementSource.INFERRED:
        statements = covering[movement.account, Section.TRADES]
        return newest is None and newest_of(statements, movement.day) is None
    if newest is None:
        return True
    if movement.at is None or newest.stated_at is None:
        return False
    return movement.at > newest.stated_at


def _newest_bookings(stated: Iterable[Movement]) -> list[Movement]:
    """Return of each booking the rows of the newest statement that names it."""
    of_booking = grouped(
        lambda row: (row.account, row.section, row.booking or row.event_id), stated
    )
    newest: list[Movement] = []
    for rows in of_booking.values():
        last = max((row.stated_by for row in rows), key=_age_of)
        newest += [row for row in rows if row.stated_by == last]
    return newest


def _with_single_ends(stated: Sequence[Movement], covering: _Coverage) -> list[Movement]:
    """Return movements where each end of an option, and what it delivered, is once."""
    ends = grouped(attrgetter("key"), [end for end in stated if end.kind in ENDS])
    beside = (_beside(movement, ends[movement.key], covering) for movement in stated)
    return [*filter(None, beside)]


def _beside(
    movement: Movement, of_contract: Sequence[Movement], covering: _Coverage
) -> Movement | None:
    """Return a movement as it counts beside the ends of its contract; None: one of trades has it.

    Where no section of trades covers its day, those of other days are other ends.
    """
    if movement.kind not in ENDS:
        return movement

    ends = [end for end in of_contract if abs(end.day - movement.day) <= BOOKED]
    is_event = movement.section is Section.OPTION_EVENTS
    if is_event and movement.kind is MovementKind.CASH_SETTLEMENT:
        return _settlement_beside(movement, ends)

    is_covered = newest_of(covering[movement.account, Section.TRADES], movement.day)
    same = [
        abs(end.change)
        for end in ends
        if end.section is Section.TRADES and (is_covered or end.day == movement.day)
    ]
    if is_event and abs(movement.change) in same:
        return None
    # What an option delivered, such as a future, may itself be settled in cash soon after.
    is_settled = any(end.kind is MovementKind.CASH_SETTLEMENT for end in ends)
    if is_settled and (movement.is_option or movement.sec_type is None):
        return replace(movement, kind=MovementKind.CASH_SETTLEMENT, counter_conid=None)
    return movement


def _settlement_beside(event: Movement, ends: Sequence[Movement]) -> Movement | None:
    """Return the event of a settlement; None: its cash is the price of an end in the trades."""
    for end in ends:
        if end.kind is not MovementKind.CASH_SETTLEMENT:
            # The quantity is that of the other end: its cash is there alone.
            event = replace(event, quantity=0.0, at=event.at or end.at)
        elif end.section is Section.TRADES and end.price:
            return None
    return event


def _execution_of(movement: Movement) -> tuple[str, str | None]:
    """Return the account and the execution of a movement, whatever its correction."""
    return movement.account, uncorrected(movement.execution_id) or movement.movement_id


def _newness(movement: Movement) -> tuple[int, str, bool, datetime]:
    execution_id = movement.execution_id or ""
    return len(execution_id), execution_id, movement.fee is not None, movement.stated_at or NEVER


def uncorrected(execution_id: str | None) -> str | None:
    """Return an id without its last part, the number of the correction, if it has one.

    >>> uncorrected("0000e1.01"), uncorrected("77"), uncorrected(None)
    ('0000e1', '77', None)
    """
    base, _, revision = (execution_id or "").rpartition(".")
    if base and revision.isdecimal():
        return base
    return execution_id


def rounded(quantity: float) -> float:
    """Return a quantity without the error of a binary sum; cryptocurrencies have eight digits."""
    return round(quantity, 9) + 0.0


def times(amount: float | None, factor: float) -> float | None:
    """Return an amount times a factor; None if it is not known.

    >>> times(2.0, -1.5), times(0.0, -1.0), times(None, 2.0)
    (-3.0, 0.0, None)
    """
    if amount is None:
        return None
    return amount * factor + 0.0


def known_sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of amounts; None if one of them is not known.

    >>> known_sum([1.0, 2.0]), known_sum([1.0, None]), known_sum([])
    (3.0, None, 0.0)
    """
    amounts = [*values]
    return None if None in amounts else fsum(amounts)  # type: ignore[arg-type]


# How many reasons are named where an amount is not known.
MOST_REASONS = 3


def first_reasons(reasons: Sequence[str]) -> str:
    """Return the first reasons why an amount is not known, and how many others there are.

    >>> first_reasons(["no fee", "no price"]), first_reasons(["a", "b", "c", "d"])
    ('no fee; no price', 'a; b; c and 1 more')
    """
    return few(reasons, MOST_REASONS, "; ")
