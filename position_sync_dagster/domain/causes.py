"""Why a holding closed: from facts to a cause; pure.

The broker announces no assignment and no expiry: the position is just not there any more. A cause
is PROVISIONAL while it follows from what a gateway says, and STATED when a statement says it. What
no fact explains is UNEXPLAINED; a fact that is missing never makes a cause.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from math import copysign
from typing import Any

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.close_facts import (
    A_DAY,
    LAST_TRADES,
    NEAR,
    Delivered,
    Facts,
    Moneyness,
    Parts,
    covers,
    last_trade,
    moneyness,
    rounded,
    settles_in_cash,
)
from position_sync_dagster.domain.closures import (
    SLACK,
    TERMS,
    Cause,
    Closure,
    PositionChange,
    Stage,
)
from position_sync_dagster.domain.instrument import NEW_YORK, contract_name, digits
from position_sync_dagster.domain.statement import (
    FLEX,
    EventKind,
    Execution,
    StatementEvent,
    current_executions,
)

RESOLUTION = timedelta(seconds=1)
"""The times of executions are cut to whole seconds: a trade may be a part of a second later."""

BOOKED = timedelta(days=5)
"""Maximum time from the broker's booking of a change until the change is seen: an expiry on Friday,
a long weekend, and the position is gone on Tuesday."""

EVENING = timedelta(hours=24 - LAST_TRADES.hour)
"""Time from the end of a day's trades to midnight. Futures, options on them and index options are
traded then, as trades of the next day."""

_SPLITS = frozenset({"FS", "FI", "RS", "CS", "CC"})
"""Types of corporate actions that are splits. Source: ibflex 1.1, `enums.Reorg`."""

CODES = {
    "A", "AEx", "AFx", "Adj", "Al", "Aw", "B", "Bo", "C", "CD", "CP", "Ca", "Co", "Cx", "D",
    "ETF", "Ep", "Ex", "FP", "G", "GEA", "HC", "HFI", "HFR", "I", "IA", "INV", "IPO", "L", "LD",
    "LF", "LI", "LT", "Lo", "M", "MEx", "ML", "MLG", "MLL", "MSG", "MSL", "O", "P", "PI", "Po",
    "Pr", "R", "RED", "RI", "RP", "Re", "SI", "SL", "SO", "SS", "ST", "SY", "T",
}  # fmt: skip
"""The codes of trades that are known. Sources: ibflex 1.1, `enums.Code`; IB, "Notes/Legal Notes" of
statements (GEA: exercise or assignment that results from offsetting positions; IPO)."""

_EXERCISES = frozenset({"Ex", "AEx", "MEx"})
_TRADES = frozenset({None, "ExchTrade", "DvpTrade", "FracShare", "TradeCorrect"})
_OPTION_EVENTS = {
    "assignment": Cause.ASSIGNED,
    "exercise": Cause.EXERCISED,
    "expiration": Cause.EXPIRED_WORTHLESS,
    "cash settlement": Cause.CASH_SETTLED,
}


def codes_of(text: str | None) -> frozenset[str]:
    """Return the codes of a text of the broker.

    >>> sorted(codes_of("A;C"))
    ['A', 'C']
    """
    return frozenset(filter(None, (part.strip() for part in re.split("[;,]", text or ""))))


def cause_of_execution(one: Execution, *, long: bool) -> tuple[Cause, str]:
    """Return the cause that an execution states, with the reason in words.

    Args:
        one: The execution, which reduced a holding.
        long: Whether the holding was long.
    """
    codes, kind = codes_of(one.codes), one.transaction_type
    if one.source != FLEX:
        return (Cause.TRADED, "traded") if one.price else (Cause.UNEXPLAINED, "a trade at no price")
    unknown = sorted(codes - CODES)
    if unknown:
        return Cause.UNEXPLAINED, f"the statement's code {', '.join(unknown)} is not known"
    if "Ca" in codes or kind in ("TradeCancel", "FracShareCancel"):
        return Cause.CORRECTED, "the broker cancelled a trade"
    if "GEA" in codes:
        return (Cause.EXERCISED if long else Cause.ASSIGNED), "offset against another position"
    if "A" in codes:
        return Cause.ASSIGNED, "assigned"
    if codes & _EXERCISES:
        return Cause.EXERCISED, "exercised"
    if "Ep" in codes:
        if one.price:
            return Cause.CASH_SETTLED, f"expired, settled at {digits(one.price)}"
        return Cause.EXPIRED_WORTHLESS, "expired worthless"
    if codes & {"T", "I"} and kind == "BookTrade":
        return Cause.TRANSFERRED, "transferred"
    if kind in _TRADES and (one.price or kind is not None):
        return Cause.TRADED, "traded"
    return Cause.UNEXPLAINED, f"the statement books it as {kind or 'a trade at no price'}"


def says_why(one: Execution) -> bool:
    """Return whether a row is a statement's, with the fields that name a cause."""
    return one.source == FLEX and (one.codes is not None or one.transaction_type is not None)


def closures_of(facts: Facts, now: datetime) -> list[Closure]:
    """Return the causes of all closes among the changes, as far as the facts show them."""
    versions = sorted(facts.events, key=lambda one: one.stated_at or NEVER)
    newest = {(one.account, one.conid, one.event_id): one for one in versions}
    facts = replace(facts, events=tuple(newest.values()))
    executions: defaultdict[Key, list[Execution]] = defaultdict(list)
    for one in current_executions(facts.executions):
        executions[one.account, one.conid].append(one)
    by_key: defaultdict[Key, list[PositionChange]] = defaultdict(list)
    for change in sorted(facts.changes, key=lambda one: (one.seen_at, one.change_id)):
        by_key[change.key].append(change)
    parts: dict[str, Parts] = {}
    events = _Events(facts)
    for key, changes in by_key.items():
        pool, of_key = executions[key], [Parts(change) for change in changes]
        # Exact matches come first: an execution whose time is a little off, or that was booked days
        # before, may fit two changes.
        for slack in (timedelta(), SLACK):
            for part in of_key:
                if not part.taken:
                    part.taken = _taken(part.change, pool, slack)
                    pool = [one for one in pool if one not in part.taken]
        for part in of_key:
            if not part.taken:
                part.events = events.of(part.change, (), whole=True)
        for part in of_key:
            if not part.taken and not part.events:
                part.taken = _taken(part.change, pool, SLACK, booked=True)
                pool = [one for one in pool if one not in part.taken]
        for part in of_key:
            part.events = part.events or events.of(part.change, part.taken)
            part.spare = any(
                abs(one.time - part.change.seen_at) <= A_DAY and one.change * part.change.by > 0
                for one in pool
            )
            parts[part.change.change_id] = part
        executions[key] = pool
    delivered = Delivered(facts, parts.values(), left=executions)
    found: list[Closure] = []
    for change in facts.changes:
        if change.closed:
            found += _judged(parts[change.change_id], facts, delivered, now)
    return found


def _begin(change: PositionChange) -> datetime:
    return change.since or change.seen_at - BOOKED


def _taken(
    change: PositionChange,
    pool: Sequence[Execution],
    slack: timedelta,
    *,
    booked: bool = False,
) -> list[Execution]:
    """Return the executions that make up a whole change, in order of time; none without a match.

    Args:
        slack: By how much their times may be off.
        booked: Whether times may be earlier, as `_lead` says. Then executions that explain only a
            part of the quantity are returned if none explain all of it: the rest has another cause.
    """
    begin, early = _begin(change), max(slack, RESOLUTION)
    near = [
        one
        for one in pool
        if begin - early - (_lead(one) if booked else timedelta())
        < one.time
        <= change.seen_at + slack
    ]
    old = sum(one.time <= begin - early for one in near)
    until = sum(one.time <= change.seen_at for one in near)
    before = sum(one.time <= change.seen_at - early for one in near)
    # Try all executions until then first, then add later ones, and last leave out the newest ones,
    # whose effect is the next change.
    counts = (*range(until, len(near) + 1), *range(until - 1, before - 1, -1))
    for first in range(old, -1, -1):
        for count in counts:
            found = near[first:count]
            if found and rounded(sum(one.change for one in found)) == rounded(change.by):
                return found
    if booked:
        for part in (near[old:until], near[:until]):
            explained = rounded(sum(one.change for one in part))
            if explained * change.by > 0 and abs(explained) < abs(change.by):
                return part
    return []


def _lead(one: Execution) -> timedelta:
    """Return how much earlier the time of an execution may be than its effect.

    The broker may have booked it long before the gateway shows its effect. A statement without the
    field Date/Time names the day alone.
    """
    if one.source == FLEX and (one.transaction_type == "BookTrade" or not one.price):
        return BOOKED
    is_day = one.source == FLEX and one.time.astimezone(NEW_YORK).time() == time()
    return A_DAY if is_day else timedelta()


class _Events:
    """The events of statements, each of which explains one change."""

    def __init__(self, facts: Facts) -> None:
        self._of: defaultdict[Key, dict[str, StatementEvent]] = defaultdict(dict)
        for one in sorted(facts.events, key=lambda one: (one.day, one.event_id)):
            if one.conid is not None and one.kind is not EventKind.CASH:
                self._of[one.account, one.conid][one.event_id] = one

    def of(
        self, change: PositionChange, taken: Sequence[Execution], *, whole: bool = False
    ) -> list[tuple[StatementEvent, float]]:
        """Return the events that explain what the executions leave open, each with its part.

        Args:
            whole: Return only events of the days of the change, and only if they explain all of it.
        """
        rest = rounded(change.by - sum(one.change for one in taken))
        early = timedelta() if whole else BOOKED
        first = (_begin(change) - early).astimezone(NEW_YORK).date()
        last = change.seen_at.astimezone(NEW_YORK).date()
        found: list[tuple[StatementEvent, float]] = []
        pool = self._of.get(change.key, {})
        near = [
            (one, by)
            for one in pool.values()
            if first <= one.day <= last
            # The event of an option has a row of the shares that came with it: Buy, Sell.
            and (one.kind is not EventKind.OPTION_EVENT or _type_of(one) in _OPTION_EVENTS)
            and (by := _signed(one, rest))
        ]
        if rest and rounded(sum(by for _one, by in near)) == rest:
            found = near  # a split takes the old shares away and brings the new ones
        elif whole:
            found = [(one, by) for one, by in near if rounded(by) == rest][:1]
        else:
            for one, by in near:
                if abs(by) <= abs(rest) and by * rest > 0:
                    found.append((one, by))
                    rest = rounded(rest - by)
        for one, _by in found:
            del pool[one.event_id]
        return found


def _type_of(one: StatementEvent) -> str:
    return (one.type or "").strip().lower()


def _signed(one: StatementEvent, rest: float) -> float:
    """Return by how much an event changed the position; 0 where that is not known.

    In statements of different accounts an option's event has either sign; it ends a holding in both
    cases.
    """
    if one.quantity is None:
        return 0.0
    if one.kind is EventKind.OPTION_EVENT:
        return abs(one.quantity) * (1 if rest > 0 else -1)
    if one.kind is EventKind.TRANSFER and one.direction is not None:
        return abs(one.quantity) * (1 if one.direction.strip().upper() == "IN" else -1)
    return one.quantity


def _cause_of_event(one: StatementEvent) -> tuple[Cause, str]:
    if one.kind is EventKind.OPTION_EVENT:
        cause = _OPTION_EVENTS[_type_of(one)]
        if cause is Cause.EXPIRED_WORTHLESS and one.price:
            cause = Cause.CASH_SETTLED
        return cause, f"the statement says: {one.type}"
    if one.kind is EventKind.TRANSFER:
        return Cause.TRANSFERRED, f"transferred ({one.type or 'of an unknown type'})"
    words = " ".join(part for part in (one.type, one.description) if part) or "of an unknown type"
    cause = Cause.SPLIT if one.type in _SPLITS else Cause.CORPORATE_ACTION
    return cause, f"corporate action {words[:200]}"


def _judged(part: Parts, facts: Facts, delivered: Delivered, now: datetime) -> list[Closure]:
    """Return the causes of one close, whose quantities add up to what was closed."""
    change = part.change
    found: list[Closure] = []
    settled = _settled_in_cash(part, facts)
    groups: dict[tuple[Cause, Stage, str], list[Execution]] = {}
    for one in part.taken:
        if one.change * change.closed < 0:  # it reduced the holding
            cause, why = cause_of_execution(one, long=change.closed > 0)
            if settled and cause in (Cause.ASSIGNED, Cause.EXERCISED):
                cause, why = Cause.CASH_SETTLED, "settled in cash"
            stage = Stage.STATED if says_why(one) else Stage.PROVISIONAL
            if one.source == FLEX and stage is Stage.PROVISIONAL:
                why = "a trade of a statement without the fields Notes/Codes and Transaction Type"
            groups.setdefault((cause, stage, why), []).append(one)
    explained = [_traded(change, *of_group, ones) for of_group, ones in groups.items()]
    explained += [_stated(change, event, by, facts) for event, by in part.events]
    open_quantity = abs(change.closed)
    for closure in explained:
        quantity = min(open_quantity, abs(closure.quantity))
        open_quantity = rounded(open_quantity - quantity)
        if quantity:
            found.append(replace(closure, quantity=copysign(quantity, change.closed)))
    if open_quantity:
        found.append(_inferred(part, open_quantity, facts, delivered))
    counters = delivered.stated_counter(change)
    return [
        replace(
            one,
            judged_at=now,
            counter_conid=counters
            if one.counter_conid is None and one.cause in (Cause.ASSIGNED, Cause.EXERCISED)
            else one.counter_conid,
        )
        for one in found
    ]


def _settled_in_cash(part: Parts, facts: Facts) -> bool:
    """Return whether a statement names the cash settlement of the contract in these days."""
    last = part.change.seen_at.astimezone(NEW_YORK).date()
    return any(
        one.conid == part.change.conid
        and one.account == part.change.account
        and _type_of(one) == "cash settlement"
        and last - BOOKED <= one.day <= last
        for one in facts.events
    )


def _closure(
    change: PositionChange, cause: Cause, stage: Stage, why: str, quantity: float
) -> Closure:
    return Closure(
        **{name: getattr(change, name) for name in TERMS},
        closed_at=change.seen_at,
        quantity=copysign(quantity, change.closed),
        price=None,
        cause=cause,
        stage=stage,
        detail=why,
        realized_pnl=None,
        currency=change.currency,
    )


def _traded(
    change: PositionChange, cause: Cause, stage: Stage, why: str, ones: Sequence[Execution]
) -> Closure:
    prices = [one.price for one in ones]
    quantity = sum(one.quantity for one in ones)
    profits = [one.realized_pnl for one in ones]
    return replace(
        _closure(change, cause, stage, why, quantity),
        closed_at=max(one.time for one in ones),
        price=None
        if None in prices
        else sum((one.price or 0.0) * one.quantity for one in ones) / quantity,
        realized_pnl=None if None in profits else sum(profit or 0.0 for profit in profits),
        executions=",".join(one.execution_id for one in ones),
        order_ids=_joined(one.order_id for one in ones),
        statement=_joined(one.statement for one in ones),
    )


def _stated(change: PositionChange, event: StatementEvent, by: float, facts: Facts) -> Closure:
    cause, why = _cause_of_event(event)
    return replace(
        _closure(change, cause, Stage.STATED, why, abs(by)),
        price=event.price,
        realized_pnl=event.realized_pnl,
        events=event.event_id,
        statement=event.statement,
        counter_conid=_counter_of(event, facts),
    )


def _joined(texts: Iterable[str | None]) -> str | None:
    return ",".join(dict.fromkeys(filter(None, texts))) or None


def _counter_of(event: StatementEvent, facts: Facts) -> int | None:
    """Return the other contract of a corporate action, by the action's id."""
    action = json.loads(event.attributes).get("actionID")
    others = {
        one.conid
        for one in facts.events
        if action
        and one.account == event.account
        and one.conid not in (None, event.conid)
        and json.loads(one.attributes).get("actionID") == action
    }
    return others.pop() if len(others) == 1 else None


def _inferred(part: Parts, quantity: float, facts: Facts, delivered: Delivered) -> Closure:
    """Return the cause of what no execution and no event explains."""
    change, found = part.change, delivered.of(part.change)
    if _is_stated(change, facts):
        why = "the statement of these days names no trade, no event and no transfer of it"
        return _closure(change, Cause.UNEXPLAINED, Stage.STATED, why, quantity)

    def provisional(cause: Cause, why: str, **known: Any) -> Closure:
        return replace(_closure(change, cause, Stage.PROVISIONAL, why, quantity), **known)

    cause, counter = found or (None, None)
    if cause is not None and not change.is_option:
        why = f"with the option {counter}, without an execution"
        return provisional(cause, why, counter_conid=counter)
    if not change.is_option or part.taken or part.events or part.spare:
        return provisional(Cause.UNEXPLAINED, _why_not(change, facts))
    if cause is not None and cause is not Cause.EXPIRED_WORTHLESS:
        units = change.units or 0.0
        why = f"{units:+g} of the underlying came without an execution, as the option has them"
        return provisional(cause, why, counter_conid=counter, price=0.0)
    details = facts.contracts.get(change.conid)
    ended = last_trade(change, details)
    if ended is not None and change.seen_at >= ended and covers(facts, change):
        in_cash, where = settles_in_cash(details), moneyness(change, facts)
        if in_cash and where is Moneyness.IN:
            return provisional(Cause.CASH_SETTLED, "an index option, in the money at its end")
        nothing_came = found is not None and where in (Moneyness.OUT, Moneyness.QUOTED_OUT)
        if nothing_came or (in_cash and where is Moneyness.OUT):
            day = f"{ended:%Y-%m-%d}"
            why = f"out of the money at its end ({day}), and nothing came of the underlying"
            cost, held = change.average_cost, copysign(quantity, change.closed)
            lost = None if cost is None else -held * cost + 0.0
            return provisional(Cause.EXPIRED_WORTHLESS, why, price=0.0, realized_pnl=lost)
    return provisional(Cause.UNEXPLAINED, _why_not(change, facts))


def _why_not(change: PositionChange, facts: Facts) -> str:
    """Return why there is no provisional cause, for people."""
    if not covers(facts, change):
        return "the executions of the time in which it closed are not known"
    arrived = [
        one
        for one in facts.changes
        if one.account == change.account
        and one.conid != change.conid
        and one.symbol == change.symbol
        and abs(one.after) > abs(one.before)
        and abs(one.seen_at - change.seen_at) <= NEAR
    ]
    if arrived:
        first = arrived[0]
        name = contract_name(first)
        return f"no execution; {first.by:+g} {name} (conid {first.conid}) came at the same time"
    return "no execution, and nothing that came with it, explains it"


def _is_stated(change: PositionChange, facts: Facts) -> bool:
    """Return whether statements cover every weekday in which the position may have closed.

    A statement that was made on a day covers that day until it was made; the trades of a day end at
    `LAST_TRADES`, and what is traded in the `EVENING` is a trade of the next one.
    """
    if change.since is None:
        return False
    known = facts.stated.get(change.account, {})
    day, last = (at.astimezone(NEW_YORK).date() for at in (change.since, change.seen_at + EVENING))
    wanted = [
        found
        for step in range((last - day).days + 1)
        if (found := day + timedelta(days=step)).weekday() < 5
    ]
    return bool(wanted) and all(
        day in known
        and known[day] >= min(change.seen_at, datetime.combine(day, LAST_TRADES, NEW_YORK))
        for day in wanted
    )
