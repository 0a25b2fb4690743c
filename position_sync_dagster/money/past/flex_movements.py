"""The rows of a Flex statement as movements: the one place that interprets what the broker writes.

A multiplier, a unit and an amount are read from the row; what it does not say stays unknown. The
trading day and what only other sources know of a contract are added where movements are stored.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, time
from math import copysign
from operator import attrgetter
from typing import Any

from position_sync_dagster.domain.exchange_time import NEW_YORK, exchange_date
from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.instrument import OPTION_TYPES, RIGHTS
from position_sync_dagster.money.past.closes import EventKind, StatementEvent
from position_sync_dagster.money.past.flex_fields import (
    CONID,
    DAY,
    EXPIRY,
    NUMBER,
    TEXT,
    Fields,
    StatementError,
)
from position_sync_dagster.money.past.movements import (
    CANCELLED,
    CANCELS,
    CLOSED,
    COMMISSION_ADJUSTMENTS,
    DELIVERY_KINDS,
    EXERCISE_CODES,
    FACE_OF_BILL,
    OPTION_ENDS,
    SECTION_OF,
    Movement,
    MovementKind,
    MovementSource,
    Section,
    codes_of,
    movement_of,
    signed_transfer,
    times,
)

# The sign of what came with the end of an option, and of an end that says who held it: who was
# assigned was short, and who exercised was long. That of others follows from what was held.
_SIGNS = {"buy": 1.0, "sell": -1.0}
_SIGNS_OF_ENDS = {MovementKind.ASSIGNMENT: 1.0, MovementKind.EXERCISE: -1.0}

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
    COMMISSION_ADJUSTMENTS: MovementKind.FEE,
}
_OWN_CASH = frozenset({
    "deposits", "withdrawals", "deposits/withdrawals", "deposits & withdrawals",
})  # fmt: skip


def movements_of(fields: Fields, record: Execution | StatementEvent) -> list[Movement]:
    """Return what a row moved; a transfer may move a holding and cash.

    Args:
        fields: The row.
        record: The same as a row of `executions` or of `statement_events`.
    """
    if isinstance(record, Execution):
        return [_trade(fields, record)]

    base = _moved(
        fields,
        record,
        record.day,
        kind=MovementKind.OTHER,
        section=SECTION_OF[fields.element],
        at=record.time,
        fee=0.0,  # an event is booked without a commission
        fee_currency=record.currency,
        type=record.type,
        description=record.description,
    )
    match record.kind:
        case EventKind.CASH:
            return [_cash(base, record.amount)]
        case EventKind.TRANSFER:
            return _transfers(base, fields, record)
        case EventKind.CORPORATE_ACTION:
            return [_corporate_action(base, fields, record)]
        case _:
            return [_option_event(base, fields, record)]


def _moved(fields: Fields, record: Execution | StatementEvent, day: date, **named: Any) -> Movement:
    """Return the movement of a day that a row is, with what `named` says beside it."""
    if fields.has_report_date:
        day = _read(fields, DAY, "reportDate") or day

    # What cannot be read of a contract is not known.
    right = RIGHTS.get(fields.attributes.get("putCall", "").upper())
    expiry = _read(fields, EXPIRY, "expiry")
    strike = None
    if right is not None and (expiry is not None or "expiry" not in fields.attributes):
        strike = _read(fields, NUMBER, "strike")
    return movement_of(
        record,
        day,
        movement_id="",  # `joined` names it
        source=MovementSource.STATEMENT,
        statement=record.statement,
        right=right,
        strike=strike,
        expiry=expiry,
        multiplier=_read(fields, NUMBER, "multiplier"),
        trade_id=_read(fields, TEXT, "tradeID"),
        transaction_id=_read(fields, TEXT, "transactionID"),
        underlying_conid=_read(fields, CONID, "underlyingConid"),
        **named,
    )


def _read(fields: Fields, kind: Any, *names: str) -> Any:
    """Return a field; None if it is not there, or cannot be read."""
    try:
        return fields.get(kind, *names)
    except StatementError:
        return None


def _kind_of_trade(execution: Execution) -> MovementKind:
    """Return what a trade of a statement is, by its codes.

    Sources of the codes: ibflex 1.1, `enums.Code`; IB, "Notes/Legal Notes" of statements (GEA:
    exercise or assignment that results from offsetting positions).
    """
    codes = codes_of(execution.codes)
    booked_as = execution.transaction_type
    if execution.sec_type == "CASH":  # however it is booked (also AFx: an automatic conversion)
        return MovementKind.CONVERSION
    if CANCELLED in codes or booked_as in CANCELS:
        return MovementKind.TRADE

    kind = MovementKind.TRADE
    if "GEA" in codes:
        kind = MovementKind.EXERCISE if execution.change < 0 else MovementKind.ASSIGNMENT
    elif "A" in codes:
        kind = MovementKind.ASSIGNMENT
    elif codes & EXERCISE_CODES:
        kind = MovementKind.EXERCISE
    elif "Ep" in codes:
        kind = MovementKind.EXPIRATION
    elif codes & {"T", "I"} and booked_as == "BookTrade":
        kind = MovementKind.TRANSFER

    is_end = kind is MovementKind.EXPIRATION
    # A future with the code of a delivery was delivered.
    is_delivery_of_option = kind in DELIVERY_KINDS and execution.sec_type in OPTION_TYPES
    if execution.price and (is_end or is_delivery_of_option):
        return MovementKind.CASH_SETTLEMENT
    return kind


def _trade(fields: Fields, execution: Execution) -> Movement:
    kind = _kind_of_trade(execution)
    fee = times(execution.commission, -1.0)
    if fee is None and kind not in (MovementKind.TRADE, MovementKind.CONVERSION):
        fee = 0.0  # the broker charges none for what it books by itself
    # A day alone is stored with its midnight.
    is_timed = execution.time.astimezone(NEW_YORK).time() != time()

    movement = _moved(
        fields,
        execution,
        exchange_date(execution.time),
        kind=kind,
        section=Section.TRADES,
        at=execution.time if is_timed else None,
        quantity=execution.change,
        price=execution.price,
        cash=_cash_of_trade(fields, execution),
        fee=fee,
        fee_currency=execution.commission_currency,
        type=execution.transaction_type,
    )
    return _in_units(movement)


def _in_units(movement: Movement) -> Movement:
    """Return a movement of a bill in the units of a gateway: a statement has its face value."""
    if movement.sec_type != "BILL" or movement.quantity is None:
        return movement
    return replace(
        movement,
        quantity=movement.quantity / FACE_OF_BILL,
        multiplier=times(movement.multiplier, FACE_OF_BILL),
    )


def _cash_of_trade(fields: Fields, execution: Execution) -> float | None:
    """Return what a trade received, as stated, with its taxes and without its commission.

    Some queries state no notional of a future: its proceeds are 0 there.
    """
    proceeds = _read(fields, NUMBER, "proceeds")
    if proceeds is None or (execution.sec_type == "FUT" and proceeds == 0):
        return None
    # A trade without taxes names none.
    return float(proceeds + (_read(fields, NUMBER, "taxes") or 0.0))


def _cash(base: Movement, amount: float | None) -> Movement:
    words = (base.type or "").strip().lower()
    kind = _OF_CASH.get(words, MovementKind.OTHER)
    if words in _OWN_CASH:
        kind = _of_owner(amount or 0.0)
    return replace(base, kind=kind, cash=amount, multiplier=None)


def _of_owner(cash: float) -> MovementKind:
    return MovementKind.WITHDRAWAL if cash < 0 else MovementKind.DEPOSIT


def _transfers(base: Movement, fields: Fields, event: StatementEvent) -> list[Movement]:
    """Return the holding that a transfer brought or took, and the owner's cash in it."""
    movements: list[Movement] = []
    if event.quantity and event.sec_type != "CASH":
        in_kind = replace(
            base,
            kind=MovementKind.TRANSFER,
            price=_read(fields, NUMBER, "transferPrice") or None,  # 0 where the broker states none
            cash=0.0,  # it is not paid for
            value=_read(fields, NUMBER, "positionAmount"),
        )
        movements.append(_in_units(signed_transfer(in_kind, event.quantity)))

    cash = _read(fields, NUMBER, "cashTransfer")
    if cash:
        money = replace(base, conid=None, symbol=None, sec_type=None, multiplier=None)
        movements.append(replace(money, kind=_of_owner(cash), cash=cash))
    return movements


def _corporate_action(base: Movement, fields: Fields, event: StatementEvent) -> Movement:
    cash = _read(fields, NUMBER, "proceeds")
    if cash is None:
        cash = times(_read(fields, NUMBER, "amount"), -1.0)  # it is minus the proceeds
    if cash is None and event.type in _WITHOUT_CASH:
        cash = 0.0
    return _in_units(
        replace(
            base,
            kind=MovementKind.CORPORATE_ACTION,
            quantity=event.quantity,
            cash=cash,
            action_id=_read(fields, TEXT, "actionID"),
        )
    )


def _option_event(base: Movement, fields: Fields, event: StatementEvent) -> Movement:
    """Return the end of an option, or what came with it (rows of the type Buy and Sell)."""
    words = (event.type or "").strip().lower()
    kind = OPTION_ENDS.get(words, MovementKind.EXERCISE)
    if kind is MovementKind.EXPIRATION and event.price:
        kind = MovementKind.CASH_SETTLEMENT
    quantity = event.quantity
    sign = _SIGNS.get(words, _SIGNS_OF_ENDS.get(kind) if base.right else None)
    if quantity is not None and sign is not None:
        quantity = copysign(quantity, sign)

    cash = _read(fields, NUMBER, "proceeds")
    if cash is None and words in OPTION_ENDS and kind is not MovementKind.CASH_SETTLEMENT:
        cash = 0.0  # what it brings has a row of its own
    # The broker writes it so. A row without it was booked without a commission.
    fee = _read(fields, NUMBER, "commisionsAndTax", "commissionsAndTax")
    return replace(base, kind=kind, quantity=quantity, price=event.price, cash=cash, fee=fee or 0.0)


def joined(
    movements: Sequence[Movement], events: Iterable[StatementEvent], first: date, last: date
) -> tuple[Movement, ...]:
    """Return what the rows of one statement say together; equal rows are several bookings.

    Each gets an id: that of the booking, and a number if it is there again.

    Args:
        movements: What each row moved.
        events: Its events; those of transfers have a direction.
        first, last: The days of the statement.
    """
    counts = Counter[str]()
    named: list[Movement] = []
    for movement in _with_counterparts(_with_signs_of_transfers(movements, events)):
        booking = movement.booking or movement.event_id
        name = f"{movement.source}:{movement.account}:{movement.section}:{booking}"
        counts[name] += 1
        if counts[name] > 1:
            name += f"#{counts[name]}"
        named.append(replace(movement, movement_id=name, stated_first=first, stated_last=last))
    return tuple(named)


_WAYS = {"IN": 1.0, "OUT": -1.0}


def _with_signs_of_transfers(
    movements: Sequence[Movement], events: Iterable[StatementEvent]
) -> Sequence[Movement]:
    """Return transfers with the sign of what they moved.

    A section that writes signs gives a transfer that was taken back the sign opposite to its
    direction. In one that writes none the direction says it, and the code of what is taken back.
    Whether a section writes signs is not known of what went out alone, without one: what was held
    says it, long or short; it closes that.
    """
    ways = {event.event_id: _WAYS.get((event.direction or "").strip().upper()) for event in events}
    directed = [movement for movement in movements if ways.get(movement.event_id or "")]
    if any(movement.change < 0 for movement in directed):
        return movements
    return [_directed(movement, ways.get(movement.event_id or "")) for movement in movements]


def _directed(movement: Movement, way: float | None) -> Movement:
    """Return a transfer with the sign of its direction; None: it has none."""
    if way is None or movement.quantity is None:
        return movement
    if CANCELLED in codes_of(movement.codes):
        way = -way
    elif way < 0:
        return replace(movement, open_close=CLOSED)
    return signed_transfer(movement, copysign(movement.quantity, way))


def _with_counterparts(movements: Sequence[Movement]) -> list[Movement]:
    """Return movements where deliveries name the other holding, if only one can be meant.

    Of several options that deliver one underlying on a day, the strike says which one did.
    The rows Buy and Sell of option events get the kind of the option's row.
    """
    deliveries = [movement for movement in movements if movement.kind in DELIVERY_KINDS]
    options = grouped(attrgetter("account", "day", "underlying_conid"), deliveries)

    def linked(movement: Movement) -> Movement:
        if movement.kind not in DELIVERY_KINDS:
            return movement
        ended = options[movement.account, movement.day, movement.conid]
        likely = [option for option in ended if option.strike == movement.price] or ended
        kinds = {option.kind for option in likely}
        conids = {option.conid for option in likely}
        kind = movement.kind
        if len(kinds) == 1:
            [kind] = kinds
        counter_conid = movement.underlying_conid
        if len(conids) == 1:
            [counter_conid] = conids
        return replace(movement, counter_conid=counter_conid, kind=kind)

    return [*map(linked, movements)]
