"""Why a holding closed: from facts to a cause; pure.

The broker announces no assignment and no expiry: the position is just not there any more. A cause
is PROVISIONAL while it follows from what a gateway says, and STATED when a statement says it. What
no fact explains is UNEXPLAINED; a fact that is missing never makes a cause.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from itertools import chain
from math import copysign
from operator import attrgetter
from typing import Any

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.closes import (
    FLEX,
    SLACK,
    TERMS,
    Cause,
    Closure,
    EventKind,
    Execution,
    PositionChange,
    Stage,
    StatementEvent,
    current_executions,
)
from position_sync_dagster.domain.exchange_time import NEW_YORK, expiry_moment, parse_trading_hours
from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import ContractDetails, Right, digits

# Holdings that close and arrive within this time may belong to one event of the broker.
ONE_EVENT = timedelta(minutes=15)

# A price of this time before the end of an option says where it stood.
LAST_PRICE = timedelta(minutes=15)

A_DAY = timedelta(days=1)

# An option that was quoted at this price or below, right before its end, was out of the money,
# unless that is much for its strike: an option on a currency is quoted at 0.02 for one of 1.05.
WORTHLESS = 0.05

CLEAR = 0.01
# An option is clearly in or out of the money if its underlying is at least this far from the
# strike, as a part of the strike. Options that are settled at the open do not trade in the night
# before.
CLEAR_AT_THE_OPEN = 0.05

# When the last session of listed options in the US ends (Cboe, curb session), in New York.
LAST_TRADES = time(17)

# The time of an option's last trade, if its contract names none; in New York.
USUAL_CLOSE = time(16, 15)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known when a close is judged.

    Attributes:
        changes: All changes of positions near the closes, also those that opened something.
        executions: Rows of `executions`.
        events: Rows of `statement_events`.
        contracts: Contract details, by conid.
        asked: From when and until when the gateway named all executions of an account. Without it
            the absence of an execution proves nothing.
        prices: The last price of the underlying right before the end of options, by the option's
            conid.
    """

    changes: Sequence[PositionChange]
    executions: Sequence[Execution] = ()
    events: Sequence[StatementEvent] = ()
    contracts: Mapping[int, ContractDetails] = field(default_factory=dict)
    asked: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    prices: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """An execution or an event, which may explain a change or a part of it.

    Attributes:
        at: Its time; of an event the beginning of its day in New York.
        by: By how much it changed the position; of an option's event it has no sign: in statements
            of different accounts it has either, and ends a holding in both cases.
        lead: How much earlier `at` may be than the effect that a gateway shows.
    """

    at: datetime
    by: float
    lead: timedelta
    of: Execution | StatementEvent

    def by_of(self, change: PositionChange) -> float:
        """Return by how much it changed the position, if it is a part of a change."""
        is_event = isinstance(self.of, StatementEvent) and self.of.kind is EventKind.OPTION_EVENT
        return copysign(self.by, change.by) if is_event else self.by


def _row_of(one: Execution) -> _Row:
    lead = timedelta()
    if one.source == FLEX and (one.transaction_type == "BookTrade" or not one.price):
        lead = BOOKED
    elif one.source == FLEX and one.time.astimezone(NEW_YORK).time() == time():
        lead = A_DAY  # without the field Date/Time a statement names the day alone
    return _Row(one.time, one.change, lead, one)


def _row_of_event(one: StatementEvent) -> _Row | None:
    """Return the row of an event; None if it explains no change, or by how much is not known."""
    is_option = one.kind is EventKind.OPTION_EVENT
    # The event of an option has a row of the shares that came with it: Buy, Sell.
    is_other = is_option and _type_of(one) not in _OPTION_EVENTS
    if one.kind is EventKind.CASH or is_other or not one.quantity:
        return None
    by = one.quantity
    if one.kind is EventKind.TRANSFER and one.direction is not None:
        by = abs(by) * (1 if one.direction.strip().upper() == "IN" else -1)
    return _Row(datetime.combine(one.day, time(), NEW_YORK).astimezone(UTC), by, BOOKED, one)


# What shares that came or went say of an option, or an option of its shares; the other one.
_Counter = tuple[Cause | None, int | None]


@dataclass(slots=True, eq=False)
class _Case:
    """A change, what is known of its contract, and what explains it.

    Attributes:
        details: The contract details.
        ended: When it could be traded last; None where it does not expire.
        asked: From when and until when the gateway named all executions of the account.
        rows: The executions and events that explain it.
        spare: Whether an execution of the day that went the same way fits no change: its time may
            be wrong, or a message lost.
        counter: What explains it without an execution.
    """

    change: PositionChange
    details: ContractDetails | None
    ended: datetime | None
    asked: tuple[datetime, datetime]
    rows: list[_Row] = field(default_factory=list)
    spare: bool = False
    counter: _Counter = (None, None)

    @property
    def rest(self) -> float:
        """Return the part of the change that is not explained, with its sign."""
        return rounded(self.change.by - sum(row.by_of(self.change) for row in self.rows))

    @property
    def is_over(self) -> bool:
        """Return whether it was seen after the last trade of the contract."""
        return self.ended is not None and self.change.seen_at >= self.ended

    @property
    def under_conid(self) -> int | None:
        """Return the contract id of an option's underlying."""
        return self.details.under_conid if self.change.is_option and self.details else None


class _History:
    """The facts, by holding and in order of time; each look-up costs what it finds."""

    def __init__(self, facts: Facts) -> None:
        self.prices = facts.prices
        self.cases: defaultdict[Key, list[_Case]] = defaultdict(list)
        for change in sorted(facts.changes, key=lambda one: (one.seen_at, one.change_id)):
            details, never = facts.contracts.get(change.conid), (change.seen_at, NEVER)
            asked = facts.asked.get(change.account, never)
            case = _Case(change, details, last_trade(change, details), asked)
            self.cases[change.key].append(case)
        versions = sorted(facts.events, key=lambda one: one.stated_at or NEVER)
        newest = {(one.account, one.conid, one.event_id): one for one in versions}
        events = sorted(newest.values(), key=lambda one: (one.day, one.event_id))
        executions = map(_row_of, current_executions(facts.executions))
        # Those that explain no change yet.
        found = filter(None, chain(map(_row_of_event, events), executions))
        self.rows = grouped(
            attrgetter("of.account", "of.conid"), sorted(found, key=attrgetter("at"))
        )
        # By the broker's id of a corporate action.
        self._actions = grouped(_action_of, events)
        periods = (one for one in events if one.kind is EventKind.PERIOD)
        self.periods = grouped(attrgetter("account"), periods)

    def moved_with(self, change: PositionChange, conid: int | None) -> bool:
        """Return whether another holding of the account changed at about the same time."""
        others = self.cases.get((change.account, conid or 0), ())
        return any(abs(one.change.seen_at - change.seen_at) <= ONE_EVENT for one in others)

    def counter_of(self, one: Execution | StatementEvent) -> int | None:
        """Return the other contract of a corporate action; None if it is not known."""
        action = _action_of(one) if isinstance(one, StatementEvent) else None
        others = {it.conid for it in self._actions[action]} - {one.conid} if action else set()
        return others.pop() if len(others) == 1 else None


def _action_of(one: StatementEvent) -> tuple[str, str] | None:
    found = json.loads(one.attributes).get("actionID")
    is_action = one.kind is EventKind.CORPORATE_ACTION and found
    return (one.account, str(found)) if is_action else None


def _between(rows: Sequence[_Row], first: datetime, last: datetime) -> Sequence[_Row]:
    begin = bisect_left(rows, first, key=attrgetter("at"))
    return rows[begin : bisect_right(rows, last, key=attrgetter("at"))]


def rounded(quantity: float) -> float:
    """Return a quantity without the error of a binary sum; fractions of shares have four digits."""
    return round(quantity, 6) + 0.0


class Moneyness(StrEnum):
    """Where an option stood when it was last known.

    QUOTED_OUT: out of the money by its own price alone. Near the strike its holder may exercise it
    all the same, and its shares come minutes later.
    """

    IN = "IN"
    OUT = "OUT"
    QUOTED_OUT = "QUOTED_OUT"
    UNCLEAR = "UNCLEAR"


def last_trade(change: PositionChange, details: ContractDetails | None) -> datetime | None:
    """Return when a derivative could be traded last; None where it does not expire."""
    day = details.last_trade_date if details and details.last_trade_date else change.expiry
    if day is None:
        return None
    clock, zone = (details.last_trade_time, details.time_zone) if details else (None, None)
    return expiry_moment(day, clock, zone, usual=USUAL_CLOSE).astimezone(UTC)


def settles_in_cash(details: ContractDetails | None) -> bool | None:
    """Return whether an option is settled in cash, as all options on an index; None: not known."""
    kind = details.under_sec_type if details is not None else None
    return None if not kind else kind == "IND"


def _moneyness(case: _Case, prices: Mapping[int, float]) -> Moneyness:
    """Return where an option stood at its end, only if it is clear; see `Facts` for the prices."""
    change, details, ended = case.change, case.details, case.ended
    if ended is None or change.strike is None or change.right is None:
        return Moneyness.UNCLEAR
    price, since = change.market_price, change.since
    at_the_open = details is not None and details.is_settled_at_the_open
    clear = change.strike * (CLEAR_AT_THE_OPEN if at_the_open else CLEAR)
    above = prices.get(change.conid, change.strike) - change.strike
    if abs(above) >= clear:
        return Moneyness.IN if (above > 0) is (change.right is Right.CALL) else Moneyness.OUT
    # Without details its price is in dollars, and its strike perhaps in cents.
    if details is None or price is None or since is None or since < ended - LAST_PRICE:
        return Moneyness.UNCLEAR
    own = price * details.price_magnifier
    if own >= clear and own > WORTHLESS:
        return Moneyness.IN
    quoted_out = own <= min(WORTHLESS, clear) and not at_the_open
    return Moneyness.QUOTED_OUT if quoted_out else Moneyness.UNCLEAR


def _covers(case: _Case) -> bool:
    """Return whether every execution that may have made a change would be known.

    That is so if the contract had ended when the previous quantity was confirmed, or if the
    gateway named all executions from then until the change was seen or the contract ended.
    """
    since, until = case.change.since, min(case.change.seen_at, case.ended or case.change.seen_at)
    if since is None or (case.ended is not None and since >= case.ended):
        return since is not None
    return case.asked[1] >= until and _names_all(case)


def _names_all(case: _Case) -> bool:
    """Return whether the gateway named all executions since the quantity before was confirmed."""
    since, (begin, _end), details = case.change.since, case.asked, case.details
    if since is None or begin <= since:
        return since is not None
    hours = parse_trading_hours(details.trading_hours, details.time_zone) if details else None
    if hours is None or not hours.begins <= since <= begin < hours.ends:
        return False
    return not any(opens < begin and closes > since for opens, closes in hours.sessions)


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


def _type_of(one: Execution | StatementEvent) -> str:
    return (one.type or "").strip().lower() if isinstance(one, StatementEvent) else ""


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


# How rows are looked for, one way after the other: by how much their times may be off, how much
# earlier the broker may have booked them, and whether a part of the quantity is enough. Exact
# matches come first: what is a little off, or was booked days before, may fit two changes.
_WAYS = (
    (timedelta(), timedelta(), False),
    (SLACK, timedelta(), False),
    (SLACK, A_DAY, False),
    (SLACK, BOOKED, True),
)


def closures_of(facts: Facts, now: datetime, only: Container[str] | None = None) -> list[Closure]:
    """Return the causes of closes among the changes, as far as the facts show them.

    Args:
        only: Ids of the changes to judge, all by default; the others are facts.
    """
    history = _History(facts)
    for key, cases in history.cases.items():
        left = history.rows[key]
        for way in _WAYS:
            for case in cases:
                if not case.rows:
                    case.rows = _matching(case.change, left, *way)
                    for row in case.rows:
                        left.remove(row)
        for case in cases:
            at = case.change.seen_at
            case.spare = any(
                row.by * case.change.by > 0 and isinstance(row.of, Execution)
                for row in _between(left, at - A_DAY, at + A_DAY)
            )
    _explain_deliveries(history)
    case_of = {case.change.change_id: case for case in chain.from_iterable(history.cases.values())}
    due = [one.change_id for one in facts.changes if one.closed]
    judged = [_judged(case_of[one], history, now) for one in due if only is None or one in only]
    return [*chain.from_iterable(judged)]


def _matching(
    change: PositionChange, rows: Sequence[_Row], slack: timedelta, most: timedelta, partly: bool
) -> list[_Row]:
    """Return the rows that make up a whole change, in order of time; none without a match."""
    begin, early = change.since or change.seen_at - BOOKED, max(slack, RESOLUTION)
    near = [
        row
        for row in _between(rows, begin - early - most, change.seen_at + slack)
        if begin - early - min(most, row.lead) < row.at
    ]

    def explained(found: Sequence[_Row]) -> float:
        return rounded(sum(row.by_of(change) for row in found))

    old = sum(row.at <= begin - early for row in near)
    until = sum(row.at <= change.seen_at for row in near)
    before = sum(row.at <= change.seen_at - early for row in near)
    # Try all rows until then first, then add later ones, and last leave out the newest ones, whose
    # effect is the next change.
    counts = (*range(until, len(near) + 1), *range(until - 1, before - 1, -1))
    runs = (near[first:count] for first in range(old, -1, -1) for count in counts)
    alone = ([row] for row in near if most)
    for found in chain(runs, alone):
        if found and explained(found) == rounded(change.by):
            return found
    for found in (near[old:until], near[:until]):
        if partly and 0 < explained(found) / change.by < 1:
            return found
    return []


def _explain_deliveries(history: _History) -> None:
    """Find which options and shares explain each other without an execution."""
    by_under: defaultdict[Key, list[_Case]] = defaultdict(list)
    for case in chain.from_iterable(history.cases.values()):
        change = case.change
        under = case.under_conid if change.is_option else change.conid
        if case.rest and under is not None and (change.closed or not change.is_option):
            by_under[change.account, under].append(case)
    for key, listed in by_under.items():
        groups: list[list[_Case]] = []
        for one in sorted(listed, key=lambda one: one.change.seen_at):
            # A change seen after a gap may have happened right after the last confirmation.
            since = one.change.since
            if not groups or (since and since - groups[-1][-1].change.seen_at > ONE_EVENT):
                groups.append([])
            groups[-1].append(one)
        for group in groups:
            _explain_group(history, key, group)


def _explain_group(history: _History, under: Key, group: Sequence[_Case]) -> None:
    """Find what a group of options and shares of one underlying says; nothing if it is unclear.

    The sign of an exercise are exactly the shares of the option. Each option in the money at its
    end, or gone before it, has its own; without such an option it is one near its strike.
    """
    options = [one for one in group if one.change.is_option]
    shares = [one for one in group if not one.change.is_option]
    if (
        not options
        or not all(_covers(one) and not one.spare for one in group)
        or settles_in_cash(options[0].details)
        # Shares may have come, and have been traded away, while nobody looked.
        or any(
            row.at >= group[0].change.seen_at - A_DAY and isinstance(row.of, Execution)
            for row in history.rows[under]
        )
        # No exercise and no expiry turns a long position into a short one.
        or any(rounded(one.change.by + one.change.closed) for one in options)
    ):
        return
    stood = grouped(
        lambda one: _moneyness(one, history.prices) if one.is_over else Moneyness.IN, options
    )
    ended, worthless = stood[Moneyness.IN], stood[Moneyness.OUT]
    near = stood[Moneyness.QUOTED_OUT] + stood[Moneyness.UNCLEAR]
    # All shares of these options must have come by now. What changed in a longer gap may have come
    # and gone at any time in it, and for other reasons.
    last = max(one.change.seen_at for one in options)
    is_complete = options[0].asked[1] >= last + ONE_EVENT and all(map(_names_all, options))
    if shares:
        gaps = (one.change.seen_at - (one.change.since or NEVER) for one in group)
        is_complete = is_complete and max(gaps) <= ONE_EVENT
    if not ended and shares and is_complete:
        ended, near = near, []
    came = sorted(one.rest for one in shares)
    if sorted(rounded(one.change.units or 0.0) for one in ended) != came:
        return
    for one in ended:
        one.counter = (_by_exercise(one.change), under[1])
    if not near or (is_complete and not stood[Moneyness.UNCLEAR]):
        worthless += near
        for one in (one for one in shares if one.change.closed):
            option = next(it.change for it in ended if rounded(it.change.units or 0.0) == one.rest)
            one.counter = (_by_exercise(option), option.conid)
    for one in worthless:
        one.counter = (Cause.EXPIRED_WORTHLESS, None)


def _by_exercise(option: PositionChange) -> Cause:
    return Cause.EXERCISED if option.closed > 0 else Cause.ASSIGNED


# What the broker states of a close, or what follows from the facts, with the reason in words.
_Reason = tuple[Cause, Stage, str]


def _judged(case: _Case, history: _History, now: datetime) -> list[Closure]:
    """Return the causes of one close, whose quantities add up to what was closed."""
    change = case.change
    groups: dict[_Reason, list[_Row]] = {}
    booked = _between(history.rows[change.key], change.seen_at - BOOKED - A_DAY, change.seen_at)
    in_cash = any(_type_of(row.of) == "cash settlement" for row in booked)
    for row in case.rows:
        if row.by_of(change) * change.closed < 0:  # it reduced the holding
            reason = _reason_of(row.of, long=change.closed > 0, in_cash=in_cash)
            groups.setdefault(reason, []).append(row)
    parts: list[tuple[float, _Reason, dict[str, Any]]] = []
    left = abs(change.closed)
    for reason, rows in groups.items():
        quantity = min(left, sum(abs(row.by) for row in rows))
        left = rounded(left - quantity)
        parts.append((quantity, reason, _evidence(rows, history.counter_of(rows[0].of))))
    parts.append((left, *_inferred(case, left, history)))
    usual: dict[str, Any] = {name: getattr(change, name) for name in (*TERMS, "currency")}
    usual |= {"closed_at": change.seen_at, "judged_at": now}
    came = case.under_conid if history.moved_with(change, case.under_conid) else None
    found: list[Closure] = []
    for quantity, (cause, stage, why), known in parts:
        if cause in _BY_EXERCISE and known.get("counter_conid") is None:
            known["counter_conid"] = came
        if quantity:
            signed = copysign(quantity, change.closed)
            values = usual | known
            found.append(Closure(**values, quantity=signed, cause=cause, stage=stage, detail=why))
    return found


def _reason_of(one: Execution | StatementEvent, *, long: bool, in_cash: bool) -> _Reason:
    """Return what a row states of a long or a short holding, which may be settled in cash."""
    if isinstance(one, StatementEvent):
        cause, why = _cause_of_event(one)
        return cause, Stage.STATED, why
    cause, why = cause_of_execution(one, long=long)
    if in_cash and cause in _BY_EXERCISE:
        cause, why = Cause.CASH_SETTLED, "settled in cash"
    if one.source != FLEX:
        return cause, Stage.PROVISIONAL, why
    if one.codes is None and one.transaction_type is None:
        why = "a trade of a statement without the fields Notes/Codes and Transaction Type"
        return cause, Stage.PROVISIONAL, why
    return cause, Stage.STATED, why


def _evidence(rows: Sequence[_Row], counter_conid: int | None) -> dict[str, Any]:
    """Return columns of a closure that rows explain."""
    ones = [row.of for row in rows]
    executions = [one for one in ones if isinstance(one, Execution)]
    paid = _sum(None if row.of.price is None else row.of.price * abs(row.by) for row in rows)
    found = {
        "price": None if paid is None else paid / sum(abs(row.by) for row in rows),
        "realized_pnl": _sum(one.realized_pnl for one in ones),
        "executions": _joined(one.execution_id for one in executions),
        "order_ids": _joined(one.order_id for one in executions),
        "events": _joined(one.event_id for one in ones if isinstance(one, StatementEvent)),
        "statement": _joined(one.statement for one in ones),
        "counter_conid": counter_conid,
    }
    return found | ({"closed_at": max(one.time for one in executions)} if executions else {})


def _sum(values: Iterable[float | None]) -> float | None:
    listed = list(values)
    return None if None in listed else sum(value or 0.0 for value in listed)


def _joined(texts: Iterable[str | None]) -> str | None:
    return ",".join(dict.fromkeys(filter(None, texts))) or None


def _inferred(case: _Case, quantity: float, history: _History) -> tuple[_Reason, dict[str, Any]]:
    """Return the cause of what no execution and no event explains, and columns of its closure."""
    change, (cause, other), known = case.change, case.counter, dict[str, Any]()
    if _is_stated(change, history.periods[change.account]):
        why = "the statement of these days names no trade, no event and no transfer of it"
        return (Cause.UNEXPLAINED, Stage.STATED, why), known
    is_covered, in_cash = _covers(case), settles_in_cash(case.details)
    where = _moneyness(case, history.prices)
    is_end = is_covered and case.is_over
    is_out = cause is Cause.EXPIRED_WORTHLESS or (in_cash and where is Moneyness.OUT)
    if cause is not None and not change.is_option:
        why, known = f"with the option {other}, without an execution", {"counter_conid": other}
    elif not change.is_option or case.rows or case.spare:
        cause = None
    elif cause in _BY_EXERCISE:
        units = change.units or 0.0
        why = f"{units:+g} of the underlying came without an execution, as the option has them"
        known = {"counter_conid": other, "price": 0.0}
    elif is_end and in_cash and where is Moneyness.IN:
        cause, why = Cause.CASH_SETTLED, "an index option, in the money at its end"
    elif is_end and is_out:
        cause, cost = Cause.EXPIRED_WORTHLESS, change.average_cost
        why = "out of the money at its end, and nothing came of the underlying"
        lost = None if cost is None else -copysign(quantity, change.closed) * cost + 0.0
        known = {"price": 0.0, "realized_pnl": lost}
    else:
        cause = None
    if cause is None:
        cause, why = Cause.UNEXPLAINED, "no execution, and nothing that came with it, explains it"
        if not is_covered:
            why = "the executions of the time in which it closed are not known"
    return (cause, Stage.PROVISIONAL, why), known


def _is_stated(change: PositionChange, periods: Sequence[StatementEvent]) -> bool:
    """Return whether statements cover every weekday in which the position may have closed.

    A statement that was made on a day covers that day until it was made; the trades of a day end at
    `LAST_TRADES`, and what is traded in the `EVENING` is a trade of the next one.
    """
    if change.since is None:
        return False
    day, last = (at.astimezone(NEW_YORK).date() for at in (change.since, change.seen_at + EVENING))
    days = (day + timedelta(days=step) for step in range((last - day).days + 1))
    wanted = [one for one in days if one.weekday() < 5]
    return bool(wanted) and all(
        any(
            (one.first_day or one.day) <= day <= one.day
            # One that names no time counts as made at the beginning of its last day.
            and (one.stated_at or datetime.combine(one.day, time(), NEW_YORK))
            >= min(change.seen_at, datetime.combine(day, LAST_TRADES, NEW_YORK))
            for one in periods
        )
        for day in wanted
    )
