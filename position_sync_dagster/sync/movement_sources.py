"""Movements as their sources say them: statements, executions and causes of closes; pure.

A multiplier, a unit and an amount are read from their source; what it does not say stays unknown.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, tzinfo
from math import copysign
from typing import Any

from position_sync_dagster.domain.causes import CAUSE_OF_OPTION_EVENT, EVENING, cause_of_execution
from position_sync_dagster.domain.closes import (
    Cause,
    Closure,
    EventKind,
    Execution,
    StatementEvent,
)
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.instrument import (
    RIGHTS,
    ContractDetails,
    Right,
    parse_expiry,
    usual_magnifier,
)
from position_sync_dagster.domain.movements import (
    DELIVERIES,
    BookedAmounts,
    Movement,
    MovementKind,
    MovementSource,
    Section,
)
from position_sync_dagster.errors import InvalidLegError, StatementError
from position_sync_dagster.gateway.flex import booked_amounts

# One unit of these is one of what it names: the broker leaves the multiplier empty.
SINGLE_TYPES = frozenset({"STK", "CASH", "IND"})

# What ends by a delivery or in cash. A future with the code of a delivery was delivered.
OPTION_TYPES = frozenset({"OPT", "FOP", "WAR", "IOPT"})

# The price of these is in percent of the face value, which is the quantity of a statement.
# Source: IB, "Flex Queries", bonds; TWS API, "Bonds".
PERCENT_TYPES = frozenset({"BOND", "BILL"})

# The elements of each section, and of its rows.
_SECTIONS = {
    "OptionEAE": Section.OPTION_EVENTS,
    "CorporateActions": Section.CORPORATE_ACTIONS,
    "CorporateAction": Section.CORPORATE_ACTIONS,
    "Transfers": Section.TRANSFERS,
    "Transfer": Section.TRANSFERS,
    "CashTransactions": Section.CASH,
    "CashTransaction": Section.CASH,
}
_ELEMENTS = {
    EventKind.OPTION_EVENT: "OptionEAE",
    EventKind.CORPORATE_ACTION: "CorporateAction",
    EventKind.TRANSFER: "Transfer",
    EventKind.CASH: "CashTransaction",
}

_OF_CAUSE = {
    Cause.ASSIGNED: MovementKind.ASSIGNMENT,
    Cause.EXERCISED: MovementKind.EXERCISE,
    Cause.EXPIRED_WORTHLESS: MovementKind.EXPIRATION,
    Cause.CASH_SETTLED: MovementKind.CASH_SETTLEMENT,
    Cause.TRANSFERRED: MovementKind.TRANSFER,
}

# Corporate actions that change the number of shares alone: a statement that leaves their proceeds
# out moved no cash. Source: ibflex 1.1, `enums.Reorg`: splits, stock dividend, spin-off.
_WITHOUT_CASH = frozenset({"FS", "FI", "RS", "CS", "CC", "HD", "SD", "SO", "IC", "NC"})

# Types of cash, as the broker writes them. Source: ibflex 1.1, `enums.CashAction`.
_OF_CASH = {
    "dividends": MovementKind.DIVIDEND,
    "payment in lieu of dividends": MovementKind.DIVIDEND,
    "withholding tax": MovementKind.WITHHOLDING,
    "871(m) withholding": MovementKind.WITHHOLDING,
    "broker interest paid": MovementKind.INTEREST,
    "broker interest received": MovementKind.INTEREST,
    "bond interest paid": MovementKind.INTEREST,
    "bond interest received": MovementKind.INTEREST,
    "other fees": MovementKind.FEE,
    "broker fees": MovementKind.FEE,
    "advisor fees": MovementKind.FEE,
    "commission adjustments": MovementKind.FEE,
}
_OWN_CASH = frozenset({
    "deposits", "withdrawals", "deposits/withdrawals", "deposits & withdrawals",
})  # fmt: skip

# Returns the trading day to which a day belongs.
SessionOf = Callable[[date], date]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is known of contracts beside what a source says of them.

    Attributes:
        session_of: Returns the trading day to which a day belongs.
        zone: The zone of the calendar.
        details: Contract details, by conid.
        multipliers: As the broker stated them with a holding, by conid.
        magnifiers: Divisors from quoted prices to the major unit, by conid.
    """

    session_of: SessionOf
    zone: tzinfo
    details: Mapping[int, ContractDetails] = field(default_factory=dict)
    multipliers: Mapping[int, float] = field(default_factory=dict)
    magnifiers: Mapping[int, float] = field(default_factory=dict)

    def multiplier_of(self, conid: int, sec_type: str | None) -> float | None:
        """Return the multiplier of a contract; None where it is not known."""
        stated = self.multipliers.get(conid)
        if stated is None and sec_type in SINGLE_TYPES:
            return 1.0
        return stated

    def magnifier_of(self, conid: int, sec_type: str | None, currency: str | None) -> float | None:
        """Return the divisor of a quoted price; None where it is not known."""
        usual = usual_magnifier(sec_type, currency)
        return self.magnifiers.get(conid, usual)


def named_sections(elements: Iterable[str]) -> list[Section]:
    """Return the sections that elements of a statement are of, beside that of trades."""
    sections = {_SECTIONS[element] for element in elements if element in _SECTIONS}
    return sorted(sections)


def stated_movements(
    executions: Iterable[Execution], events: Iterable[StatementEvent], terms: Terms
) -> list[Movement]:
    """Return what a statement names, as it is; equal rows of one statement are several bookings."""
    movements = [_stated_trade(execution, terms) for execution in executions]
    for event in events:
        movements += _stated_event(event, terms)

    with_settlements = _with_settlements(movements)
    with_counterparts = _with_counterparts(with_settlements)
    return _with_ids(with_counterparts)


def _with_ids(movements: Iterable[Movement]) -> list[Movement]:
    """Return movements with an id each: that of the booking, and a number if it is there again."""
    counts = Counter[str]()
    named: list[Movement] = []
    for movement in movements:
        booking = movement.booking or movement.event_id
        name = f"{movement.source}:{movement.account}:{movement.section}:{booking}"
        counts[name] += 1
        if counts[name] > 1:
            name += f"#{counts[name]}"
        named.append(replace(movement, movement_id=name))
    return named


# What each source names in the same words as a movement, as far as it has it.
_SAME = (
    "account", "conid", "symbol", "sec_type", "right", "strike", "expiry", "currency",
    "realized_pnl", "fx_rate_to_base", "execution_id", "event_id", "change_id", "corrects",
    "order_id", "underlying_conid", "codes", "open_close", "stated_at",
)  # fmt: skip


def _movement_of(
    record: Execution | StatementEvent | Closure, day: date, terms: Terms, **named: Any
) -> Movement:
    """Return the movement of a day that a record of a source is.

    Args:
        named: What the record does not have in the same words; these count.
    """
    values: dict[str, Any] = {name: getattr(record, name, None) for name in _SAME}
    values["movement_id"] = ""
    values["day"] = day
    values["session_date"] = terms.session_of(day)
    values.update(named)
    return Movement(**values)


def _stated_ids(amounts: BookedAmounts) -> dict[str, Any]:
    """Return the ids that a statement gives a booking."""
    return {"trade_id": amounts.trade_id, "transaction_id": amounts.transaction_id}


def _amounts_of(attributes: str | None, element: str, file: str) -> BookedAmounts:
    """Return the amounts of a row; one that cannot be read makes all of them unknown."""
    written = json.loads(attributes or "{}")
    try:
        return booked_amounts(written, element, file)
    except StatementError:
        return booked_amounts({}, element, file)


def _stated_trade(execution: Execution, terms: Terms) -> Movement:
    amounts = _amounts_of(execution.attributes, "Trade", execution.statement)
    cause, _why = cause_of_execution(execution)
    kind = _OF_CAUSE.get(cause, MovementKind.TRADE)
    if execution.sec_type == "CASH":  # however it is booked (also AFx: an automatic conversion)
        kind = MovementKind.CONVERSION
    is_option = execution.sec_type in OPTION_TYPES
    if kind in DELIVERIES and is_option and execution.price:
        kind = MovementKind.CASH_SETTLEMENT

    traded_on = execution.time.astimezone(NEW_YORK).date()
    day = amounts.report_date or traded_on
    fee = _fee_of(execution)
    if fee is None and kind not in (MovementKind.TRADE, MovementKind.CONVERSION):
        fee = 0.0  # the broker charges none for what it books by itself
    movement = _movement_of(
        execution,
        day,
        terms,
        kind=kind,
        section=Section.TRADES,
        source=MovementSource.STATEMENT,
        at=_time_of(execution.time),
        **_contract_of(execution.attributes),
        **_stated_ids(amounts),
        quantity=execution.change,
        price=execution.price,
        multiplier=amounts.multiplier,
        cash=_stated_cash(execution, amounts),
        fee=fee,
        fee_currency=execution.commission_currency or execution.currency,
        type=execution.transaction_type,
        statement=execution.statement,
    )
    return completed(movement, terms)


def _fee_of(execution: Execution) -> float | None:
    """Return what a trade cost; None where its commission is not known."""
    if execution.commission is None:
        return None
    return 0.0 - execution.commission


def _time_of(moment: datetime) -> datetime | None:
    """Return a time of a statement; None if it is the midnight with which a day alone is stored."""
    local = moment.astimezone(NEW_YORK)
    return None if local.time() == time() else moment


def _contract_of(attributes: str | None) -> dict[str, Any]:
    """Return right, strike and expiry as a row has them; what cannot be read is not known."""
    written = json.loads(attributes or "{}")
    strike = None
    expiry = None
    try:
        if written.get("strike"):
            strike = float(written["strike"])
        if written.get("expiry"):
            expiry = parse_expiry(written["expiry"])
    except (ValueError, InvalidLegError):
        strike = None
        expiry = None

    right = RIGHTS.get(str(written.get("putCall", "")).upper())
    if right is None:
        strike = None
    return {"right": right, "strike": strike, "expiry": expiry}


def _stated_cash(execution: Execution, amounts: BookedAmounts) -> float | None:
    """Return what a trade received, as stated, with its taxes and without its commission.

    Some queries state no notional of a future: its proceeds are 0 there.
    """
    is_without_notional = execution.sec_type == "FUT" and amounts.proceeds == 0
    if amounts.proceeds is not None and not is_without_notional:
        return amounts.proceeds + (amounts.taxes or 0.0)  # a trade without taxes names none

    # The net cash of a future is its commission alone.
    if execution.sec_type == "FUT" or amounts.net_cash is None or execution.commission is None:
        return None
    charged_in = execution.commission_currency or execution.currency
    if charged_in != execution.currency:
        return None
    return amounts.net_cash + execution.commission


def completed(movement: Movement, terms: Terms) -> Movement:
    """Return a movement with the multiplier of its contract, and the cash that follows from it."""
    multiplier = movement.multiplier
    if multiplier is None and movement.conid is not None:
        multiplier = terms.multiplier_of(movement.conid, movement.sec_type)

    cash = movement.cash
    if cash is None and movement.kind is not MovementKind.TRANSFER:
        cash = _cash_of_trade(movement, multiplier)
    return replace(movement, multiplier=multiplier, cash=cash)


def _cash_of_trade(movement: Movement, multiplier: float | None) -> float | None:
    """Return what a movement received by its price; None: not known."""
    if movement.quantity is None or movement.price is None or multiplier is None:
        return None
    parts_of_price = 100.0 if movement.sec_type in PERCENT_TYPES else 1.0
    size = movement.quantity * multiplier
    return 0.0 - size * movement.price / parts_of_price


def _stated_event(event: StatementEvent, terms: Terms) -> list[Movement]:
    """Return what an event moved; a transfer may move a holding and cash."""
    element = _ELEMENTS.get(event.kind)
    if element is None:
        return []

    amounts = _amounts_of(event.attributes, element, event.statement)
    day = amounts.report_date or event.day
    base = _movement_of(
        event,
        day,
        terms,
        kind=MovementKind.OTHER,
        section=_SECTIONS[element],
        source=MovementSource.STATEMENT,
        at=event.time,
        **_contract_of(event.attributes),
        **_stated_ids(amounts),
        fee=0.0,  # an event is booked without a commission
        fee_currency=event.currency,
        underlying_conid=_conid_in(event.attributes),
        type=event.type,
        description=event.description,
        statement=event.statement,
    )
    if event.kind is EventKind.CASH:
        return [_cash_movement(base, event.amount)]
    if event.kind is EventKind.TRANSFER:
        return _transfer_movements(base, event, amounts)
    if event.kind is EventKind.CORPORATE_ACTION:
        return [_corporate_action(base, event, amounts)]
    return [_option_event(base, event, amounts, terms)]


def _conid_in(attributes: str) -> int | None:
    text = str(json.loads(attributes).get("underlyingConid", ""))
    return int(text) if text.isdecimal() else None


def _cash_movement(base: Movement, amount: float | None) -> Movement:
    words = (base.type or "").strip().lower()
    kind = _OF_CASH.get(words, MovementKind.OTHER)
    if words in _OWN_CASH:
        is_taken = amount is not None and amount < 0
        kind = MovementKind.WITHDRAWAL if is_taken else MovementKind.DEPOSIT
    return replace(base, kind=kind, cash=amount)


def _transfer_movements(
    base: Movement, event: StatementEvent, amounts: BookedAmounts
) -> list[Movement]:
    """Return the holding that a transfer brought or took, and the owner's cash in it."""
    movements: list[Movement] = []
    sign = _sign_of(event)
    if event.quantity and event.sec_type != "CASH":
        quantity = copysign(event.quantity, sign)
        value = amounts.position_amount
        if value is not None:
            value = copysign(value, quantity)
        in_kind = replace(
            base,
            kind=MovementKind.TRANSFER,
            quantity=quantity,
            price=amounts.transfer_price or None,  # the broker writes 0 where it states none
            multiplier=amounts.multiplier,
            cash=0.0,  # it is not paid for
            value=value,
        )
        movements.append(in_kind)

    if amounts.cash_transfer:
        cash = amounts.cash_transfer
        kind = MovementKind.WITHDRAWAL if cash < 0 else MovementKind.DEPOSIT
        of_cash = replace(base, kind=kind, cash=cash, conid=None, symbol=None, sec_type=None)
        movements.append(of_cash)
    return movements


def _sign_of(event: StatementEvent) -> float:
    """Return whether a transfer came (1) or went (-1)."""
    if event.direction is None:
        return copysign(1.0, event.quantity or 0.0)
    direction = event.direction.strip().upper()
    return 1.0 if direction == "IN" else -1.0


def _corporate_action(base: Movement, event: StatementEvent, amounts: BookedAmounts) -> Movement:
    cash = amounts.amount if amounts.proceeds is None else amounts.proceeds
    if cash is None and event.type in _WITHOUT_CASH:
        cash = 0.0
    return replace(
        base,
        kind=MovementKind.CORPORATE_ACTION,
        quantity=event.quantity,
        multiplier=amounts.multiplier,
        cash=cash,
    )


# The sign of what an option event moved, by its type; that of any other type is as stated.
_SIGNS = {"buy": 1.0, "assignment": 1.0, "sell": -1.0, "exercise": -1.0}


def _option_event(
    base: Movement, event: StatementEvent, amounts: BookedAmounts, terms: Terms
) -> Movement:
    """Return the end of an option, or what came with it (rows of the type Buy and Sell)."""
    words = (event.type or "").strip().lower()
    cause = CAUSE_OF_OPTION_EVENT.get(words, Cause.EXERCISED)
    quantity = event.quantity
    if quantity is not None and words in _SIGNS:
        quantity = copysign(quantity, _SIGNS[words])

    cash = amounts.proceeds
    if cash is None and words in ("assignment", "exercise", "expiration"):
        cash = 0.0  # what it brings has a row of its own
    moved = replace(
        base,
        kind=_OF_CAUSE[cause],
        quantity=quantity,
        price=event.price,
        multiplier=amounts.multiplier,
        cash=cash,
    )
    return completed(moved, terms)


# Account and day of an option's end, and the contract.
_End = tuple[str, date, int | None]


def _end_of(movement: Movement, conid: int | None) -> _End:
    return movement.account, movement.day, conid


def _with_settlements(movements: Sequence[Movement]) -> list[Movement]:
    """Return movements where an option that was settled in cash ends once.

    Where option events name its end as well, that has the quantity; they have no time: that of the
    end is in the trades.
    """
    ended: set[_End] = set()
    ended_at: dict[_End, datetime | None] = {}
    for movement in movements:
        end = _end_of(movement, movement.conid)
        if movement.section is not Section.OPTION_EVENTS:
            if movement.kind in DELIVERIES:
                ended_at[end] = movement.at
        elif movement.kind is not MovementKind.CASH_SETTLEMENT:
            ended.add(end)

    single: list[Movement] = []
    for movement in movements:
        is_event = movement.section is Section.OPTION_EVENTS
        if not is_event or movement.kind is not MovementKind.CASH_SETTLEMENT:
            single.append(movement)
            continue

        end = _end_of(movement, movement.conid)
        quantity = 0.0 if end in ended else movement.quantity
        settled_at = movement.at or ended_at.get(end)
        single.append(replace(movement, quantity=quantity, at=settled_at))
    return single


def _with_counterparts(movements: Sequence[Movement]) -> list[Movement]:
    """Return movements where deliveries name the other holding, if only one can be meant.

    The rows Buy and Sell of option events get the kind of the option's row.
    """
    options: defaultdict[_End, list[Movement]] = defaultdict(list)
    for movement in movements:
        if movement.kind in DELIVERIES and movement.underlying_conid:
            end = _end_of(movement, movement.underlying_conid)
            options[end].append(movement)

    linked: list[Movement] = []
    for movement in movements:
        if movement.kind not in DELIVERIES:
            linked.append(movement)
            continue

        conids: set[int | None] = set()
        kinds: set[MovementKind] = set()
        end = _end_of(movement, movement.conid)
        for option in options.get(end, ()):
            conids.add(option.conid)
            kinds.add(option.kind)

        counter_conid = conids.pop() if len(conids) == 1 else movement.underlying_conid
        kind = kinds.pop() if len(kinds) == 1 else movement.kind
        linked.append(replace(movement, counter_conid=counter_conid, kind=kind))
    return linked


def reported_movement(execution: Execution, terms: Terms) -> Movement:
    """Return an execution that a gateway reported on its day."""
    written = json.loads(execution.attributes or "{}")
    stated = str(written.get("multiplier") or "")
    is_number = stated.replace(".", "", 1).isdecimal()
    multiplier = float(stated) if is_number else None
    magnifier = terms.magnifier_of(execution.conid, execution.sec_type, execution.currency)
    price = None
    if execution.price is not None and magnifier is not None:
        price = execution.price / magnifier

    is_conversion = execution.sec_type == "CASH"
    kind = MovementKind.CONVERSION if is_conversion else MovementKind.TRADE
    local = execution.time.astimezone(terms.zone)
    day = (local + EVENING).date()
    movement = _movement_of(
        execution,
        day,
        terms,
        movement_id=f"{MovementSource.API}:{execution.account}:{execution.execution_id}",
        kind=kind,
        section=Section.TRADES,
        source=MovementSource.API,
        at=execution.time,
        quantity=execution.change,
        price=price,
        multiplier=multiplier,
        fee=_fee_of(execution),
        fee_currency=execution.commission_currency,
    )
    return completed(movement, terms)


def inferred_movements(closure: Closure, terms: Terms) -> list[Movement]:
    """Return what follows from the cause of a close that no execution and no statement says.

    An option on a stock delivers its multiplier in shares, one on a future one future, and one on
    an index cash.
    """
    kind = _OF_CAUSE.get(closure.cause)
    is_said = closure.executions or closure.events
    if is_said or kind is None or kind is MovementKind.TRANSFER:
        return []
    is_option = closure.right is not None and closure.strike is not None
    if kind in DELIVERIES and not is_option:
        return []  # of what is delivered the option says it, at its strike

    multiplier = terms.multiplier_of(closure.conid, closure.sec_type)
    magnifier = terms.magnifier_of(closure.conid, closure.sec_type, closure.currency)
    details = terms.details.get(closure.conid)
    if kind in DELIVERIES and details is not None and details.under_sec_type == "IND":
        kind = MovementKind.CASH_SETTLEMENT

    day = closure.closed_at.astimezone(NEW_YORK).date()
    under_conid = details.under_conid if details is not None else None
    counter_conid = closure.counter_conid or under_conid
    base = _movement_of(
        closure,
        day,
        terms,
        movement_id=f"{MovementSource.INFERRED}:{closure.change_id}:{kind}",
        kind=kind,
        section=Section.OPTION_EVENTS,
        source=MovementSource.INFERRED,
        at=closure.closed_at,
        quantity=-closure.quantity,
        multiplier=multiplier,
        fee=0.0,  # the broker charges none for what it books by itself
        fee_currency=closure.currency,
        underlying_conid=under_conid,
        stated_at=closure.judged_at,
    )
    if kind is MovementKind.EXPIRATION:
        return [replace(base, price=0.0, cash=0.0)]
    if kind is MovementKind.CASH_SETTLEMENT:
        price = None
        if closure.price is not None and magnifier is not None:
            price = closure.price / magnifier
        settled = replace(base, price=price)
        return [completed(settled, terms)]

    ended = replace(base, price=0.0, cash=0.0, counter_conid=counter_conid)
    if counter_conid is None:
        return [ended]
    delivery = _delivery(ended, counter_conid, magnifier, terms)
    return [ended, delivery]


def _delivery(option: Movement, conid: int, magnifier: float | None, terms: Terms) -> Movement:
    """Return what an option that was assigned or exercised delivered, at its strike."""
    is_future = option.sec_type == "FOP"
    # One future for an option on it, whose multiplier is that of the option.
    units = 1.0 if is_future else option.multiplier
    side = 1.0 if option.right == Right.CALL else -1.0
    # An option that is gone was held with the opposite sign of the change.
    held = -(option.quantity or 0.0)
    quantity = None if units is None else side * held * units
    price = None
    if option.strike is not None and magnifier is not None:
        price = option.strike / magnifier

    delivery = replace(
        option,
        movement_id=f"{option.movement_id}:{conid}",
        conid=conid,
        counter_conid=option.conid,
        underlying_conid=None,
        sec_type="FUT" if is_future else "STK",
        right=None,
        strike=None,
        expiry=None,
        quantity=quantity,
        price=price,
        multiplier=option.multiplier if is_future else 1.0,
        cash=None,
        realized_pnl=None,
    )
    return completed(delivery, terms)
