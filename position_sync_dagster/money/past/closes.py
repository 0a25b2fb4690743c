"""Why holdings closed, and what the broker states of it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.domain.instrument import Right, contract_name
from position_sync_dagster.domain.position_change import ChangedHolding, PositionChange
from position_sync_dagster.money.past.movements import Movement, MovementKind

# Maximum delay of the time of an execution after its effect: there are two clocks, and messages
# wait.
SLACK = timedelta(minutes=2)

# What an order of the owner makes.
TRADES = frozenset({MovementKind.TRADE, MovementKind.CONVERSION})


# The source of rows from a Flex statement.
FLEX = "FLEX"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementPosition:
    """One holding at the end of a day, as the broker states it.

    Attributes:
        position: Signed quantity, negative when short.
        average_cost: Of one contract or share, including the multiplier.
        statement: The file's name.
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
    statement: str


class EventKind(StrEnum):
    """What a statement names besides positions and trades.

    OPTION_EVENT: an exercise, an assignment or an expiry (OptionEAE). CASH: interest, a fee, a
    dividend, a deposit (CashTransaction). PERIOD: the statement itself, where it names the trades
    of its days: what it does not name did not happen. SECTIONS: the days of a statement and the
    sections that it has, of whatever kind. NET_LIQUIDATION: the value of the account at the end of
    a day, in its base currency, with its parts. CASH_BALANCE: its cash of one currency at the end
    of a day. RATE: what a unit of a currency was worth in its base currency then. CLOSED_LOT: what
    a close closed of what was opened at once (Lot).
    """

    OPTION_EVENT = "OPTION_EVENT"
    CORPORATE_ACTION = "CORPORATE_ACTION"
    TRANSFER = "TRANSFER"
    CASH = "CASH"
    PERIOD = "PERIOD"
    SECTIONS = "SECTIONS"
    NET_LIQUIDATION = "NET_LIQUIDATION"
    CASH_BALANCE = "CASH_BALANCE"
    RATE = "RATE"
    CLOSED_LOT = "CLOSED_LOT"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEvent:
    """One event of a statement, and one row of the table `statement_events`.

    Attributes:
        event_id: The broker's id of the event; the same in each statement.
        kind: OPTION_EVENT, CORPORATE_ACTION, TRANSFER, CASH, PERIOD (the days of a statement),
            SECTIONS (its days and sections), NET_LIQUIDATION (its total is the amount),
            CASH_BALANCE, RATE (it is the amount; `type` is the base currency), or CLOSED_LOT
            (`time` is when it was opened, the amount what that cost or brought).
        account: IB account that it concerns.
        day: The day that the statement names; of a PERIOD or of SECTIONS the last one.
        attributes: JSON: every attribute of the element, as written; of SECTIONS their names,
            of NET_LIQUIDATION its parts.
        source: Where the row came from: FLEX.
        statement: The statement that named it first: the file's name.
        first_day: The first day of a PERIOD, and of SECTIONS.
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
        accounts: The accounts that it names and that are served.
        events: With those of its SECTIONS: it states everything of these for its days, and says
            nothing of a section that is absent. With that of the PERIOD, if it has the section of
            trades, and each can be read.
        movements: What its rows moved, as it states it.
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
    events: tuple[StatementEvent, ...] = ()
    movements: tuple[Movement, ...] = ()
    lacks_positions: bool = False
    left_out: tuple[tuple[str, str], ...] = ()

    def without_rows(self) -> "Statement":
        """Return what it covers, without its rows."""
        return replace(self, positions=(), executions=(), events=(), movements=())


class Cause(StrEnum):
    """Why a holding, or a part of it, closed.

    CASH_SETTLED: it expired with a value, which was paid. CORPORATE_ACTION: any but a split.
    CORRECTED: the broker cancelled or corrected the trade that had opened it.
    """

    TRADED = "TRADED"
    EXPIRED_WORTHLESS = "EXPIRED_WORTHLESS"
    ASSIGNED = "ASSIGNED"
    EXERCISED = "EXERCISED"
    CASH_SETTLED = "CASH_SETTLED"
    SPLIT = "SPLIT"
    CORPORATE_ACTION = "CORPORATE_ACTION"
    TRANSFERRED = "TRANSFERRED"
    CORRECTED = "CORRECTED"
    UNEXPLAINED = "UNEXPLAINED"


# Types whose holdings are not valued: a bill that matures, a bond, a currency. A close of one of
# these needs no person if its cause is not known.
NOT_VALUED = frozenset({"BILL", "BOND", "CASH"})


class Stage(StrEnum):
    """Whether a cause is provisional, or stated by the broker, which replaces the former."""

    PROVISIONAL = "PROVISIONAL"
    STATED = "STATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure(ChangedHolding):
    """The cause of a close, or of a part of it: a row of the table `closures`.

    Of the rows of a change those that were judged last count.

    Attributes:
        change_id: The change of position_changes that it explains.
        closed_at: When it was seen to be gone, or was traded (UTC).
        quantity: What was closed, with the sign it had. Unit: contracts or shares.
        price: Price of one unit; null where it is not known. Unit: as quoted.
        cause: TRADED, EXPIRED_WORTHLESS, ASSIGNED, EXERCISED, CASH_SETTLED, SPLIT,
            CORPORATE_ACTION, TRANSFERRED, CORRECTED or UNEXPLAINED.
        stage: PROVISIONAL, or STATED by a statement of the broker.
        detail: Why, in words.
        realized_pnl: Realized profit of what was closed: as the broker names it, or of a worthless
            expiry its cost. Unit: `currency`.
        currency: ISO code of the currency.
        executions: Evidence: ids of executions, separated by commas.
        order_ids: Evidence: the permanent ids of their orders, separated by commas.
        events: Evidence: ids of statement_events, separated by commas.
        statement: Evidence: the statement that says it.
        counter_conid: Evidence: the holding that came or went with it, by its conid.
        evidence: The ids of the rows of executions and of statement_events that say it, one each;
            null where none does.
        judged_at: When it was judged (UTC).
        run_id: The Dagster run that wrote the row.
    """

    closed_at: datetime
    quantity: float
    price: float | None = None
    cause: Cause
    stage: Stage
    detail: str
    realized_pnl: float | None = None
    currency: str
    executions: str | None = None
    order_ids: str | None = None
    events: str | None = None
    statement: str | None = None
    counter_conid: int | None = None
    judged_at: datetime | None = None
    run_id: str | None = None
    evidence: list[str] | None = None

    @property
    def name(self) -> str:
        """Return the contract as a trader writes it."""
        return contract_name(self)

    @property
    def needs_person(self) -> bool:
        """Return whether no fact says the cause, and somebody should look it up."""
        return self.cause is Cause.UNEXPLAINED and self.sec_type not in NOT_VALUED


_WORDS = {
    Cause.TRADED: "traded",
    Cause.EXPIRED_WORTHLESS: "expired",
    Cause.CASH_SETTLED: "expired and settled in cash",
    Cause.ASSIGNED: "assigned",
    Cause.EXERCISED: "exercised",
    Cause.SPLIT: "split",
    Cause.CORPORATE_ACTION: "closed by a corporate action",
    Cause.TRANSFERRED: "transferred",
    Cause.CORRECTED: "corrected by the broker",
}
_AT_EXPIRY = frozenset({Cause.EXPIRED_WORTHLESS, Cause.CASH_SETTLED})


def end_text(closures: Sequence[Closure]) -> str | None:
    """Return what ended a holding and when, such as "expired on 2026-11-20".

    Args:
        closures: The causes that count of its last change; none while it is not judged.

    Returns:
        None while it is not known.
    """
    causes = {closure.cause for closure in closures}
    if not causes or not causes <= _WORDS.keys():
        return None

    words = [_WORDS[closure.cause] for closure in closures]
    last = max(closures, key=lambda closure: closure.closed_at)
    day = exchange_date(last.closed_at)
    if causes <= _AT_EXPIRY and last.expiry is not None:
        day = last.expiry
    return f"{' and '.join(dict.fromkeys(words))} on {day}"


def counted_ends(texts: Iterable[str]) -> str | None:
    """Return what happened to several legs, with their number; None if there are none.

    >>> counted_ends(["traded on 2026-11-19", "expired on 2026-11-20", "traded on 2026-11-19"])
    'one expired on 2026-11-20, 2 traded on 2026-11-19'
    """
    counts = sorted(Counter(texts).items())
    numbered = [f"{'one' if count == 1 else count} {text}" for text, count in counts]
    return ", ".join(numbered) or None


def knows_more(new: Sequence[Closure], old: Sequence[Closure]) -> bool:
    """Return whether new causes of a close replace the ones that counted.

    A stated cause replaces a provisional one and never the other way round. A provisional cause is
    not replaced by causes that explain less: the gateway names executions only on their day.
    """
    if list(map(_content, new)) == list(map(_content, old)):
        return False
    if is_stated(new) or not old:
        return True
    return not is_stated(old) and _explained(new) >= _explained(old)


def is_stated(closures: Sequence[Closure]) -> bool:
    """Return whether a statement says the cause of all that was closed."""
    return bool(closures) and all(closure.stage is Stage.STATED for closure in closures)


def _explained(closures: Iterable[Closure]) -> float:
    """Return of how much of what was closed the cause is known."""
    unknown = Cause.UNEXPLAINED
    return sum(abs(closure.quantity) for closure in closures if closure.cause is not unknown)


def _content(closure: Closure) -> Closure:
    return replace(closure, judged_at=None, run_id=None)


def trades_of(change: PositionChange, movements: Iterable[Movement]) -> list[Movement]:
    """Return the trades that may have made a change: of its direction, while it was made."""
    begin = (change.since or change.seen_at) - SLACK
    end = change.seen_at + SLACK
    return [
        movement
        for movement in movements
        if movement.kind in TRADES
        and movement.change * change.by > 0
        and movement.at is not None
        and begin <= movement.at <= end
    ]
