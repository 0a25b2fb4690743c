"""Why a holding closed: from facts to a cause; pure.

The broker announces no assignment and no expiry: the position is just not there any more. A cause
is PROVISIONAL while it follows from what a gateway says, and STATED when a statement says it. What
no fact explains is UNEXPLAINED; a fact that is missing never makes a cause.
"""

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from math import copysign
from operator import attrgetter
from typing import Any

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.close_facts import (
    A_DAY,
    CLEAR,
    LAST_TRADES,
    NEAR,
    Facts,
    History,
    Moneyness,
    covers,
    last_trade,
    moneyness,
    names_all,
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
from position_sync_dagster.domain.instrument import NEW_YORK, Right, digits
from position_sync_dagster.domain.statement import (
    FLEX,
    EventKind,
    Execution,
    StatementEvent,
)

# The times of executions are cut to whole seconds: a trade may be a part of a second later.
RESOLUTION = timedelta(seconds=1)

# Maximum time from the broker's booking of a change until the change is seen: an expiry on Friday,
# a long weekend, and the position is gone on Tuesday.
BOOKED = timedelta(days=5)

# Time from the end of a day's trades to midnight. Futures, options on them and index options are
# traded then, as trades of the next day.
EVENING = timedelta(hours=24 - LAST_TRADES.hour)

# Types of corporate actions that are splits. Source: ibflex 1.1, `enums.Reorg`.
_SPLITS = frozenset({"FS", "FI", "RS", "CS", "CC"})

# The codes of trades that are known. Sources: ibflex 1.1, `enums.Code`; IB, "Notes/Legal Notes" of
# statements (GEA: exercise or assignment that results from offsetting positions; IPO).
CODES = {
    "A", "AEx", "AFx", "Adj", "Al", "Aw", "B", "Bo", "C", "CD", "CP", "Ca", "Co", "Cx", "D",
    "ETF", "Ep", "Ex", "FP", "G", "GEA", "HC", "HFI", "HFR", "I", "IA", "INV", "IPO", "L", "LD",
    "LF", "LI", "LT", "Lo", "M", "MEx", "ML", "MLG", "MLL", "MSG", "MSL", "O", "P", "PI", "Po",
    "Pr", "R", "RED", "RI", "RP", "Re", "SI", "SL", "SO", "SS", "ST", "SY", "T",
}  # fmt: skip

_BY_EXERCISE = frozenset({Cause.ASSIGNED, Cause.EXERCISED})
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


@dataclass(slots=True)
class Parts:
    """A change, the executions and the events that explain it."""

    change: PositionChange
    taken: list[Execution] = field(default_factory=list)
    events: list[tuple[StatementEvent, float]] = field(default_factory=list)
    # Whether an execution of the day that went the same way fits no change: its time may be wrong,
    # or a message lost.
    spare: bool = False

    @property
    def rest(self) -> float:
        """Return the part of the change that is not explained, with its sign."""
        explained = sum(one.change for one in self.taken) + sum(by for _event, by in self.events)
        return rounded(self.change.by - explained)


class _Pool:
    """The executions of a holding, in order of time, that explain no change yet."""

    def __init__(self, listed: Sequence[Execution]) -> None:
        self._listed = listed
        self._taken: set[int] = set()

    def between(self, first: datetime, last: datetime | None) -> list[Execution]:
        """Return those from one time to another; None: to the end."""
        begin = bisect_left(self._listed, first, key=attrgetter("time"))
        end = (
            len(self._listed)
            if last is None
            else bisect_right(self._listed, last, key=attrgetter("time"))
        )
        return [one for one in self._listed[begin:end] if id(one) not in self._taken]

    def take(self, found: list[Execution]) -> list[Execution]:
        """Return them; they explain no other change."""
        self._taken.update(map(id, found))
        return found


def closures_of(facts: Facts, now: datetime, only: Container[str] | None = None) -> list[Closure]:
    """Return the causes of closes among the changes, as far as the facts show them.

    Args:
        only: Ids of the changes to judge, all by default; the others are facts.
    """
    history = History(facts)
    pools = {key: _Pool(listed) for key, listed in history.executions.items()}
    events = _Events(history)
    parts: dict[str, Parts] = {}
    for key, changes in history.changes.items():
        pool, of_key = pools.get(key, _Pool(())), [Parts(change) for change in changes]
        # Exact matches come first: an execution whose time is a little off, or that was booked days
        # before, may fit two changes.
        for slack in (timedelta(), SLACK):
            for part in of_key:
                part.taken = part.taken or pool.take(_taken(part.change, pool, slack))
        for part in of_key:
            if not part.taken:
                part.events = events.of(part.change, (), whole=True)
        for part in of_key:
            if not part.taken and not part.events:
                part.taken = pool.take(_taken(part.change, pool, SLACK, booked=True))
        for part in of_key:
            part.events = part.events or events.of(part.change, part.taken)
            at = part.change.seen_at
            of_the_day = pool.between(at - A_DAY, at + A_DAY)
            part.spare = any(one.change * part.change.by > 0 for one in of_the_day)
            parts[part.change.change_id] = part
    delivered = _delivered(history, parts.values(), pools)
    found: list[Closure] = []
    for change in facts.changes:
        if change.closed and (only is None or change.change_id in only):
            counter = delivered.get(change.change_id)
            found += _judged(parts[change.change_id], history, counter, now)
    return found


def _begin(change: PositionChange) -> datetime:
    return change.since or change.seen_at - BOOKED


def _taken(
    change: PositionChange, pool: _Pool, slack: timedelta, *, booked: bool = False
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
        for one in pool.between(
            begin - early - (BOOKED if booked else timedelta()), change.seen_at + slack
        )
        if begin - early - (_lead(one) if booked else timedelta()) < one.time
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

    def __init__(self, history: History) -> None:
        self._of = {
            key: {one.event_id: one for one in listed if one.kind is not EventKind.CASH}
            for key, listed in history.events.items()
        }

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
        if not pool or not rest:
            return []
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


# What shares that came or went say of an option, or an option of its shares; the other one.
_Counter = tuple[Cause, int | None]


def _delivered(
    history: History, parts: Iterable[Parts], pools: Mapping[Key, _Pool]
) -> dict[str, _Counter]:
    """Return which options and shares explain each other without an execution, by the change."""
    by_under: defaultdict[Key, list[Parts]] = defaultdict(list)
    for part in parts:
        change = part.change
        under = history.under_conid(change) if change.is_option else change.conid
        if part.rest and under is not None and (change.closed or not change.is_option):
            by_under[change.account, under].append(part)
    found: dict[str, _Counter] = {}
    for (account, under), listed in by_under.items():
        if not any(one.change.is_option for one in listed):
            continue
        left = pools.get((account, under), _Pool(()))
        group: list[Parts] = []
        for one in sorted(listed, key=lambda one: one.change.seen_at):
            # A change seen after a gap may have happened right after the last confirmation.
            since = one.change.since
            if group and since is not None and since - group[-1].change.seen_at > NEAR:
                found |= _exercised(history, under, group, left)
                group = []
            group.append(one)
        found |= _exercised(history, under, group, left)
    return found


def _exercised(
    history: History, under: int, group: Sequence[Parts], left: _Pool
) -> dict[str, _Counter]:
    """Return what a group of options and shares of one underlying says; nothing if it is unclear.

    At its end an option is exercised if it was in the money, and worthless if it was out of it.
    Of one that is near its strike, shares with its multiplier are the sign; two such options are
    told apart by no sign. Before its end shares are the only sign.
    """
    options = [one for one in group if one.change.is_option]
    shares = [one for one in group if not one.change.is_option]
    if (
        not options
        or not all(covers(history.facts, one.change) and not one.spare for one in group)
        or settles_in_cash(history.details(options[0].change))
        # Shares may have come, and have been traded away, while nobody looked.
        or left.between(group[0].change.seen_at - A_DAY, None)
        # No exercise and no expiry turns a long position into a short one.
        or any(rounded(one.change.by + one.change.closed) for one in options)
    ):
        return {}
    # Before its end an option went for an exercise, or not at all.
    states = [
        (change, moneyness(change, history.facts) if _is_over(history, change) else Moneyness.IN)
        for change in (one.change for one in options)
    ]
    ended = [change for change, stood in states if stood is Moneyness.IN]
    unclear = [one for one in states if one[1] in (Moneyness.QUOTED_OUT, Moneyness.UNCLEAR)]
    came = [one.rest for one in shares]
    rest = rounded(sum(came) - sum(one.units or 0.0 for one in ended))
    is_complete = _is_complete(history, options, shares)
    if rest and is_complete and [rounded(one.units or 0.0) for one, _stood in unclear] == [rest]:
        ended, unclear, rest = [*ended, unclear[0][0]], [], 0.0
    # Before its end an option may also leave by a transfer: then shares are the only evidence.
    is_over = all(_is_over(history, one) for one in ended)
    units = sorted(rounded(one.units or 0.0) for one in ended)
    one_by_one = not is_over and units == sorted(map(rounded, came))
    if rest or not (came or is_over) or not (one_by_one or _may_be(ended)):
        return {}
    found: dict[str, _Counter] = {
        change.change_id: (Cause.EXPIRED_WORTHLESS, None)
        for change, stood in states
        if stood is Moneyness.OUT
    } | {change.change_id: (_by_exercise(change), under) for change in ended}
    if not all(is_complete and stood is Moneyness.QUOTED_OUT for _change, stood in unclear):
        return found
    found |= {change.change_id: (Cause.EXPIRED_WORTHLESS, None) for change, _stood in unclear}
    if len(causes := {_by_exercise(one) for one in ended}) == 1:
        of_shares = (causes.pop(), ended[-1].conid)
        found |= {one.change.change_id: of_shares for one in shares if one.change.closed}
    return found


def _is_over(history: History, option: PositionChange) -> bool:
    ended = last_trade(option, history.details(option))
    return ended is not None and option.seen_at >= ended


def _may_be(options: Iterable[PositionChange]) -> bool:
    """Return whether one price of the underlying, at their end, lets all of these be exercised."""
    listed = list(options)
    calls = [one.strike or 0.0 for one in listed if one.right is Right.CALL]
    puts = [one.strike or 0.0 for one in listed if one.right is Right.PUT]
    return not calls or not puts or max(calls) <= min(puts) * (1 + CLEAR)


def _is_complete(history: History, options: Sequence[Parts], shares: Sequence[Parts]) -> bool:
    """Return whether all shares that belong to these options must have come by now.

    Shares and options that changed in a longer gap may have come and gone at any time in it, and
    for other reasons.
    """
    at_once = [
        one.change.since is not None and one.change.seen_at - one.change.since <= NEAR
        for one in (*options, *shares)
    ]
    last = max(one.change.seen_at for one in options)
    _begin, asked_at = history.facts.asked.get(options[0].change.account, (last, last))
    return (
        asked_at >= last + NEAR
        and all(names_all(history.facts, one.change) for one in options)
        and (not shares or all(at_once))
    )


def _by_exercise(option: PositionChange) -> Cause:
    return Cause.EXERCISED if option.closed > 0 else Cause.ASSIGNED


def _judged(
    part: Parts, history: History, counter: _Counter | None, now: datetime
) -> list[Closure]:
    """Return the causes of one close, whose quantities add up to what was closed."""
    change = part.change
    found: list[Closure] = []
    settled = _settled_in_cash(change, history)
    groups: dict[tuple[Cause, Stage, str], list[Execution]] = {}
    for one in part.taken:
        if one.change * change.closed < 0:  # it reduced the holding
            cause, why = cause_of_execution(one, long=change.closed > 0)
            if settled and cause in _BY_EXERCISE:
                cause, why = Cause.CASH_SETTLED, "settled in cash"
            stage = Stage.STATED if says_why(one) else Stage.PROVISIONAL
            if one.source == FLEX and stage is Stage.PROVISIONAL:
                why = "a trade of a statement without the fields Notes/Codes and Transaction Type"
            groups.setdefault((cause, stage, why), []).append(one)
    explained = [_traded(change, *of_group, ones) for of_group, ones in groups.items()]
    explained += [_stated(change, event, by, history) for event, by in part.events]
    open_quantity = abs(change.closed)
    for closure in explained:
        quantity = min(open_quantity, abs(closure.quantity))
        open_quantity = rounded(open_quantity - quantity)
        if quantity:
            found.append(replace(closure, quantity=copysign(quantity, change.closed)))
    if open_quantity:
        found.append(_inferred(part, open_quantity, history, counter))
    under = history.under_conid(change) if change.is_option else None
    came = under if under is not None and history.moved_with(change, under) else None
    return [
        replace(
            one,
            judged_at=now,
            counter_conid=one.counter_conid or (came if one.cause in _BY_EXERCISE else None),
        )
        for one in found
    ]


def _settled_in_cash(change: PositionChange, history: History) -> bool:
    """Return whether a statement names the cash settlement of the contract in these days."""
    last = change.seen_at.astimezone(NEW_YORK).date()
    return any(
        _type_of(one) == "cash settlement" and last - BOOKED <= one.day <= last
        for one in history.events.get(change.key, ())
    )


def _closure(
    change: PositionChange, cause: Cause, stage: Stage, why: str, quantity: float, **known: Any
) -> Closure:
    of_change: dict[str, Any] = {name: getattr(change, name) for name in TERMS} | {
        "closed_at": change.seen_at, "price": None, "realized_pnl": None,
        "currency": change.currency,
    }  # fmt: skip
    signed = copysign(quantity, change.closed)
    return Closure(**of_change | known, quantity=signed, cause=cause, stage=stage, detail=why)


def _traded(
    change: PositionChange, cause: Cause, stage: Stage, why: str, ones: Sequence[Execution]
) -> Closure:
    quantity = sum(one.quantity for one in ones)
    paid = _sum(None if one.price is None else one.price * one.quantity for one in ones)
    return _closure(
        change,
        cause,
        stage,
        why,
        quantity,
        closed_at=max(one.time for one in ones),
        price=None if paid is None else paid / quantity,
        realized_pnl=_sum(one.realized_pnl for one in ones),
        executions=",".join(one.execution_id for one in ones),
        order_ids=_joined(one.order_id for one in ones),
        statement=_joined(one.statement for one in ones),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    listed = list(values)
    return None if None in listed else sum(value or 0.0 for value in listed)


def _stated(change: PositionChange, event: StatementEvent, by: float, history: History) -> Closure:
    cause, why = _cause_of_event(event)
    return _closure(
        change,
        cause,
        Stage.STATED,
        why,
        abs(by),
        price=event.price,
        realized_pnl=event.realized_pnl,
        events=event.event_id,
        statement=event.statement,
        counter_conid=history.counter_of(event),
    )


def _joined(texts: Iterable[str | None]) -> str | None:
    return ",".join(dict.fromkeys(filter(None, texts))) or None


def _inferred(part: Parts, quantity: float, history: History, counter: _Counter | None) -> Closure:
    """Return the cause of what no execution and no event explains."""
    change, facts = part.change, history.facts
    if _is_stated(change, facts):
        why = "the statement of these days names no trade, no event and no transfer of it"
        return _closure(change, Cause.UNEXPLAINED, Stage.STATED, why, quantity)

    def provisional(cause: Cause, why: str, **known: Any) -> Closure:
        return _closure(change, cause, Stage.PROVISIONAL, why, quantity, **known)

    cause, other = counter or (None, None)
    if cause is not None and not change.is_option:
        return provisional(
            cause, f"with the option {other}, without an execution", counter_conid=other
        )
    if not change.is_option or part.taken or part.events or part.spare:
        return provisional(Cause.UNEXPLAINED, _why_not(change, facts))
    if cause is not None and cause is not Cause.EXPIRED_WORTHLESS:
        units = change.units or 0.0
        why = f"{units:+g} of the underlying came without an execution, as the option has them"
        return provisional(cause, why, counter_conid=other, price=0.0)
    details = history.details(change)
    ended = last_trade(change, details)
    if ended is not None and change.seen_at >= ended and covers(facts, change):
        in_cash, where = settles_in_cash(details), moneyness(change, facts)
        if in_cash and where is Moneyness.IN:
            return provisional(Cause.CASH_SETTLED, "an index option, in the money at its end")
        if cause is Cause.EXPIRED_WORTHLESS or (in_cash and where is Moneyness.OUT):
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
