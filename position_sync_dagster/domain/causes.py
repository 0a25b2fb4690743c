"""Why a holding closed: from facts to a cause; pure.

The broker announces no assignment and no expiry: the position is just not there any more. A cause
is PROVISIONAL while it follows from what a gateway says, and STATED when a statement says it. What
no fact explains is UNEXPLAINED; a fact that is missing never makes a cause.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import product
from zoneinfo import ZoneInfo

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.closures import (
    NEW_YORK,
    Cause,
    Closure,
    PositionChange,
    Stage,
)
from position_sync_dagster.domain.instrument import ContractDetails, Right, leg_name
from position_sync_dagster.domain.statement import (
    FLEX,
    EventKind,
    Execution,
    StatementEvent,
    current_executions,
)
from position_sync_dagster.domain.trading_hours import parse_trading_hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known when a close is judged.

    Attributes:
        changes: All changes of positions near the closes, also those that opened something.
        executions: Rows of `executions`.
        events: Rows of `statement_events`.
        contracts: Contract details, by conid.
        stated: The days of each account whose trades a statement has.
        asked: From when and until when the gateway named all executions of an account. Without it
            the absence of an execution proves nothing.
        prices: The last price of underlyings, by conid, each with its time.
    """

    changes: Sequence[PositionChange]
    executions: Sequence[Execution] = ()
    events: Sequence[StatementEvent] = ()
    contracts: Mapping[int, ContractDetails] = field(default_factory=dict)
    stated: Mapping[str, frozenset[date]] = field(default_factory=dict)
    asked: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    prices: Mapping[int, tuple[float, datetime]] = field(default_factory=dict)


NEAR = timedelta(minutes=15)
"""What closes and what arrives within this time may be one event of the broker's."""

SLACK = timedelta(minutes=2)
"""How much later than its effect an execution may be dated: two clocks, and messages that wait."""

A_DAY = timedelta(days=1)

BOOKED = timedelta(days=5)
"""How long before a change is seen the broker may have booked it: an expiry on Friday, a long
weekend, and the position is gone on Tuesday."""

WORTHLESS = 0.05
"""An option that was quoted at this price or below, right before its end, was out of the money."""

CLEAR = 0.01
CLEAR_AT_THE_OPEN = 0.05
"""How far from the strike, as a part of it, an underlying must be for an option to be clearly in or
out of the money. Options that are settled at the open do not trade in the night before."""

MOST_FREE = 12
"""Maximum number of options of which it is searched which were exercised or assigned."""

USUAL_CLOSE = time(16, 15)
"""When an option has traded last, where its contract does not say so."""

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
            return Cause.CASH_SETTLED, f"expired, settled at {one.price:g}"
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
    executions: defaultdict[Key, list[Execution]] = defaultdict(list)
    for one in current_executions(facts.executions):
        executions[one.account, one.conid].append(one)
    by_key: defaultdict[Key, list[PositionChange]] = defaultdict(list)
    for change in sorted(facts.changes, key=lambda one: (one.seen_at, one.change_id)):
        by_key[change.key].append(change)
    parts: dict[str, _Parts] = {}
    events = _Events(facts)
    for key, changes in by_key.items():
        pool = executions.get(key, [])
        made: dict[str, list[Execution]] = {}
        # What fits exactly comes first: a time that is a little off may fit two changes.
        for slack in (timedelta(), SLACK):
            for change in changes:
                if not made.get(change.change_id):
                    taken = made[change.change_id] = _taken(change, pool, slack)
                    pool = [one for one in pool if one not in taken]
        for change in changes:
            taken = made[change.change_id]
            parts[change.change_id] = _Parts(change, taken, events.of(change, taken))
        for change in changes:
            parts[change.change_id].spare = any(
                abs(one.time - change.seen_at) <= A_DAY for one in pool
            )
    booked = _Delivered(facts, parts)
    found: list[Closure] = []
    for change in facts.changes:
        if change.closed:
            part = parts[change.change_id]
            found += _judged(part, facts, booked, now)
    return found


@dataclass(slots=True)
class _Parts:
    """A change, the executions and the events that explain it."""

    change: PositionChange
    taken: list[Execution]
    events: list[tuple[StatementEvent, float]]
    spare: bool = False
    """Whether an execution of the day fits no change: its time may be wrong, or a message lost."""

    @property
    def explained(self) -> float:
        """Return the part of the change that is explained."""
        return sum(one.change for one in self.taken) + sum(by for _event, by in self.events)

    @property
    def rest(self) -> float:
        """Return the part of the change that is not explained, with its sign."""
        return _round(self.change.by - self.explained)


def _round(quantity: float) -> float:
    """Return a quantity without the error of a binary sum; fractions of shares have four digits."""
    return round(quantity, 6) + 0.0


def _begin(change: PositionChange) -> datetime:
    return change.since or change.seen_at - BOOKED


def _taken(change: PositionChange, pool: Sequence[Execution], slack: timedelta) -> list[Execution]:
    """Return the executions, in order of time, that made a change: all or none of its quantity.

    If they explain a part of it, they are returned too: the rest has another cause.

    Args:
        slack: By how much their times may be off; a part is taken with it alone.
    """
    begin = _begin(change)
    near = [
        one
        for one in pool
        if (begin - BOOKED if _is_booked(one) else begin - slack)
        < one.time
        <= change.seen_at + slack
    ]
    until = sum(one.time <= change.seen_at for one in near)
    # All that happened by then, or else the next ones too; or only the first of them: an execution
    # is dated to the second, and the next change of the same second has the others.
    for count in (*range(until, len(near) + 1), *range(until - 1, 0, -1)):
        if count and _round(sum(one.change for one in near[:count])) == _round(change.by):
            return near[:count]
    part = near[:until]
    explained = _round(sum(one.change for one in part))
    is_part = slack and explained * change.by > 0 and abs(explained) < abs(change.by)
    return part if is_part else []


def _is_booked(one: Execution) -> bool:
    """Return whether the broker booked it, perhaps long before the gateway shows its effect."""
    return one.source == FLEX and (one.transaction_type == "BookTrade" or not one.price)


class _Events:
    """The events of statements, each of which explains one change."""

    def __init__(self, facts: Facts) -> None:
        self._of: defaultdict[Key, dict[str, StatementEvent]] = defaultdict(dict)
        for one in sorted(facts.events, key=lambda one: (one.day, one.event_id)):
            if one.conid is not None and one.kind is not EventKind.CASH:
                self._of[one.account, one.conid][one.event_id] = one

    def of(
        self, change: PositionChange, taken: Sequence[Execution]
    ) -> list[tuple[StatementEvent, float]]:
        """Return the events that explain what the executions leave, each with its part."""
        rest = _round(change.by - sum(one.change for one in taken))
        first = (_begin(change) - BOOKED).astimezone(NEW_YORK).date()
        last = change.seen_at.astimezone(NEW_YORK).date()
        found: list[tuple[StatementEvent, float]] = []
        pool = self._of.get(change.key, {})
        near = [
            (one, by)
            for one in pool.values()
            if first <= one.day <= last
            # The event of an option has a row of the shares that came with it: Buy, Sell.
            and (one.kind is not EventKind.OPTION_EVENT or _is_option_cause(one))
            and (by := _signed(one, rest))
        ]
        if rest and _round(sum(by for _one, by in near)) == rest:
            found = near  # a split takes the old shares away and brings the new ones
        else:
            for one, by in near:
                if abs(by) <= abs(rest) and by * rest > 0:
                    found.append((one, by))
                    rest = _round(rest - by)
        for one, _by in found:
            del pool[one.event_id]
        return found


def _is_option_cause(one: StatementEvent) -> bool:
    return (one.type or "").strip().lower() in _OPTION_EVENTS


def _signed(one: StatementEvent, rest: float) -> float:
    """Return by how much an event changed the position; 0 where that is not known.

    An option's event has either sign in statements of different accounts: it ends a holding.
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
        cause = _OPTION_EVENTS[(one.type or "").strip().lower()]
        if cause is Cause.EXPIRED_WORTHLESS and one.price:
            cause = Cause.CASH_SETTLED
        return cause, f"the statement says: {one.type}"
    if one.kind is EventKind.TRANSFER:
        return Cause.TRANSFERRED, f"transferred ({one.type or 'of an unknown type'})"
    words = " ".join(part for part in (one.type, one.description) if part) or "of an unknown type"
    cause = Cause.SPLIT if one.type in _SPLITS else Cause.CORPORATE_ACTION
    return cause, f"corporate action {words[:200]}"


def _judged(part: _Parts, facts: Facts, delivered: "_Delivered", now: datetime) -> list[Closure]:
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
    open_quantity = abs(change.closed)
    for (cause, stage, why), ones in groups.items():
        quantity = min(open_quantity, sum(one.quantity for one in ones))
        open_quantity = _round(open_quantity - quantity)
        if quantity:
            found.append(_traded(change, cause, stage, why, ones, quantity))
    for event, by in part.events:
        quantity = min(open_quantity, abs(by))
        open_quantity = _round(open_quantity - quantity)
        if quantity:
            cause, why = _cause_of_event(event)
            found.append(
                replace(
                    _closure(change, cause, Stage.STATED, why, quantity),
                    price=event.price,
                    realized_pnl=event.realized_pnl,
                    events=event.event_id,
                    statement=event.statement,
                    counter_conid=_counter_of(event, facts),
                )
            )
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


def _settled_in_cash(part: _Parts, facts: Facts) -> bool:
    """Return whether a statement names the cash settlement of the contract in these days."""
    last = part.change.seen_at.astimezone(NEW_YORK).date()
    return any(
        one.conid == part.change.conid
        and one.account == part.change.account
        and (one.type or "").strip().lower() == "cash settlement"
        and last - BOOKED <= one.day <= last
        for one in facts.events
    )


def _closure(
    change: PositionChange, cause: Cause, stage: Stage, why: str, quantity: float
) -> Closure:
    return Closure(
        change_id=change.change_id,
        account=change.account,
        conid=change.conid,
        symbol=change.symbol,
        sec_type=change.sec_type,
        right=change.right,
        strike=change.strike,
        expiry=change.expiry,
        closed_at=change.seen_at,
        quantity=quantity if change.closed > 0 else -quantity,
        price=None,
        cause=cause,
        stage=stage,
        detail=why,
        realized_pnl=None,
        currency=change.currency,
    )


def _traded(
    change: PositionChange,
    cause: Cause,
    stage: Stage,
    why: str,
    ones: Sequence[Execution],
    quantity: float,
) -> Closure:
    prices = [one.price for one in ones]
    weight = sum(one.quantity for one in ones)
    profits = [one.realized_pnl for one in ones]
    return replace(
        _closure(change, cause, stage, why, quantity),
        closed_at=max(one.time for one in ones),
        price=None
        if None in prices
        else sum((one.price or 0.0) * one.quantity for one in ones) / weight,
        realized_pnl=None if None in profits else sum(profit or 0.0 for profit in profits),
        executions=",".join(one.execution_id for one in ones),
        order_ids=_joined(one.order_id for one in ones),
        statement=_joined(one.statement for one in ones),
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


class Moneyness(StrEnum):
    """Where an option stood when it was last known.

    QUOTED_OUT: by its own price alone. Near the strike its holder may exercise it all the same, and
    its shares come minutes later.
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
    clock, zone = USUAL_CLOSE, NEW_YORK
    if details is not None and details.last_trade_time and details.time_zone:
        try:
            clock = time.fromisoformat(details.last_trade_time)
            zone = ZoneInfo(details.time_zone.split(" (")[0].strip())
        except (ValueError, LookupError, OSError):
            clock, zone = USUAL_CLOSE, NEW_YORK
    return datetime.combine(day, clock, zone).astimezone(UTC)


def settles_at_the_open(details: ContractDetails | None) -> bool:
    """Return whether the settlement follows the last trading day."""
    return (
        details is not None
        and details.expires_on is not None
        and details.last_trade_date is not None
        and details.expires_on > details.last_trade_date
    )


def settles_in_cash(details: ContractDetails | None) -> bool | None:
    """Return whether an option is settled in cash, as all options on an index; None: not known."""
    kind = details.under_sec_type if details is not None else None
    return None if not kind else kind == "IND"


def moneyness(change: PositionChange, facts: Facts) -> Moneyness:
    """Return where an option stood at its end, only if it is clear."""
    details = facts.contracts.get(change.conid)
    ended = last_trade(change, details)
    if ended is None or change.strike is None or change.right is None:
        return Moneyness.UNCLEAR
    at_the_open = settles_at_the_open(details)
    clear = change.strike * (CLEAR_AT_THE_OPEN if at_the_open else CLEAR)
    price = facts.prices.get(details.under_conid or 0) if details is not None else None
    if price is not None and abs(price[1] - ended) <= NEAR:
        above = price[0] - change.strike
        if abs(above) >= clear:
            is_in = above > 0 if change.right is Right.CALL else above < 0
            return Moneyness.IN if is_in else Moneyness.OUT
    own = change.market_price
    if own is None or change.since is None or change.since < ended - NEAR:
        return Moneyness.UNCLEAR
    if own >= clear and own > WORTHLESS:
        return Moneyness.IN
    quoted_out = own <= WORTHLESS and not at_the_open
    return Moneyness.QUOTED_OUT if quoted_out else Moneyness.UNCLEAR


class _Delivered:
    """What came or went of underlyings without an execution, and which options explain it."""

    def __init__(self, facts: Facts, parts: Mapping[str, _Parts]) -> None:
        self._facts = facts
        self._causes: dict[str, tuple[Cause, int | None]] = {}
        self._stated: dict[str, int] = {}
        self._searched: set[str] = set()
        open_parts = [one for one in parts.values() if one.rest]
        for part in open_parts:
            change = part.change
            if change.is_option and change.closed and change.change_id not in self._searched:
                self._search(part, open_parts)
        self._note_stated(parts.values())

    def of(self, change: PositionChange) -> tuple[Cause, int | None] | None:
        """Return the cause of an option or of shares, with the counter-holding."""
        return self._causes.get(change.change_id)

    def stated_counter(self, change: PositionChange) -> int | None:
        """Return the underlying that moved with a stated exercise or assignment."""
        return self._stated.get(change.change_id)

    def _under_conid(self, change: PositionChange) -> int | None:
        details = self._facts.contracts.get(change.conid)
        return details.under_conid if details is not None else None

    def _search(self, part: _Parts, open_parts: Sequence[_Parts]) -> None:
        """Find the options that explain by themselves what came of their underlying."""
        under, first = self._under_conid(part.change), part.change
        if under is None:
            return
        options = [
            one
            for one in open_parts
            if one.change.account == first.account
            and one.change.is_option
            and one.change.closed
            and self._under_conid(one.change) == under
            and abs(one.change.seen_at - first.seen_at) <= NEAR
        ]
        self._searched |= {one.change.change_id for one in options}
        shares = [
            one
            for one in open_parts
            if one.change.key == (first.account, under)
            and abs(one.change.seen_at - first.seen_at) <= NEAR
        ]
        known = all(
            covers(self._facts, one.change) and not one.spare for one in (*options, *shares)
        )
        if (
            not known
            or len(options) > MOST_FREE
            or settles_in_cash(self._facts.contracts.get(first.conid))
        ):
            return
        came = _round(sum(one.rest for one in shares))
        units = [one.change.units or 0.0 for one in options]
        choices = [self._choices(one) for one in options]
        fitting = [
            chosen
            for chosen in product(*choices)
            if _round(sum(one * yes for one, yes in zip(units, chosen, strict=True))) == came
            and _may_be([one.change for one, yes in zip(options, chosen, strict=True) if yes])
        ]
        guessed = any(len(one) > 1 for one in choices)
        if len(fitting) != 1 or (guessed and not self._is_complete(options)):
            return
        causes = {
            Cause.EXERCISED if one.change.closed > 0 else Cause.ASSIGNED
            for one, yes in zip(options, fitting[0], strict=True)
            if yes
        }
        for one, yes in zip(options, fitting[0], strict=True):
            if yes:
                cause = Cause.EXERCISED if one.change.closed > 0 else Cause.ASSIGNED
                self._causes[one.change.change_id] = (cause, under)
                for other in shares:
                    if other.change.closed and len(causes) == 1:
                        self._causes[other.change.change_id] = (cause, one.change.conid)
            else:
                self._causes[one.change.change_id] = (Cause.EXPIRED_WORTHLESS, None)

    def _is_complete(self, options: Sequence[_Parts]) -> bool:
        """Return whether all shares that belong to these options must have come by now."""
        last = max(one.change.seen_at for one in options)
        _begin, asked_at = self._facts.asked.get(options[0].change.account, (last, last))
        return asked_at >= last + NEAR

    def _choices(self, one: _Parts) -> tuple[bool, ...]:
        """Return whether an option may, or must, have been exercised or assigned."""
        ended = last_trade(one.change, self._facts.contracts.get(one.change.conid))
        if ended is None or one.change.seen_at < ended:
            return (True,)  # before its end an option vanishes in no other way
        where = moneyness(one.change, self._facts)
        return {
            Moneyness.IN: (True,),
            Moneyness.OUT: (False,),
        }.get(where, (True, False))

    def _note_stated(self, parts: Iterable[_Parts]) -> None:
        listed = list(parts)
        for part in listed:
            under = self._under_conid(part.change)
            if under is None or not part.change.is_option:
                continue
            for other in listed:
                near = abs(other.change.seen_at - part.change.seen_at) <= NEAR
                if near and other.change.key == (part.change.account, under):
                    self._stated[part.change.change_id] = under


def _may_be(options: Iterable[PositionChange]) -> bool:
    """Return whether one price of the underlying lets all of these be exercised."""
    listed = list(options)
    calls = [one.strike or 0.0 for one in listed if one.right is Right.CALL]
    puts = [one.strike or 0.0 for one in listed if one.right is Right.PUT]
    return not calls or not puts or max(calls) <= min(puts) * (1 + CLEAR)


def covers(facts: Facts, change: PositionChange) -> bool:
    """Return whether every execution that may have made a change would be known.

    They would, if the gateway named all of the time since the quantity before was confirmed. Before
    that time it must not have been possible to trade.
    """
    details = facts.contracts.get(change.conid)
    ended = last_trade(change, details)
    if change.since is None:
        return False
    if ended is not None and change.since >= ended:
        return True
    begin, end = facts.asked.get(change.account, (change.seen_at, change.since))
    if end < change.seen_at and (ended is None or end < ended):
        return False
    if begin <= change.since:
        return True
    hours = parse_trading_hours(details.trading_hours, details.time_zone) if details else None
    if hours is None or not hours.begins <= change.since <= begin < hours.ends:
        return False
    return not any(opens < begin and closes > change.since for opens, closes in hours.sessions)


def _inferred(part: _Parts, quantity: float, facts: Facts, delivered: _Delivered) -> Closure:
    """Return the cause of what no execution and no event explains."""
    change = part.change
    stated = _is_stated(change, facts)
    found = delivered.of(change)
    details = facts.contracts.get(change.conid)
    if stated:
        why = "the statement of these days names no trade, no event and no transfer of it"
        return _closure(change, Cause.UNEXPLAINED, Stage.STATED, why, quantity)
    unexplained = _closure(
        change, Cause.UNEXPLAINED, Stage.PROVISIONAL, _why_not(change, facts), quantity
    )
    if not change.is_option or part.taken or part.events or part.spare:
        if found is not None and not change.is_option:
            cause, counter = found
            why = f"with the option {counter}, without an execution"
            made = _closure(change, cause, Stage.PROVISIONAL, why, quantity)
            return replace(made, counter_conid=counter)
        return unexplained
    ended = last_trade(change, details)
    if found is not None and found[0] is not Cause.EXPIRED_WORTHLESS:
        cause, counter = found
        units = change.units or 0.0
        why = f"{units:+g} of the underlying came without an execution, as the option has them"
        made = _closure(change, cause, Stage.PROVISIONAL, why, quantity)
        return replace(made, counter_conid=counter, price=0.0)
    if ended is None or change.seen_at < ended or not covers(facts, change):
        return unexplained
    in_cash, where = settles_in_cash(details), moneyness(change, facts)
    if in_cash and where is Moneyness.IN:
        why = "an index option, in the money at its end"
        return _closure(change, Cause.CASH_SETTLED, Stage.PROVISIONAL, why, quantity)
    nothing_came = found is not None and where in (Moneyness.OUT, Moneyness.QUOTED_OUT)
    if nothing_came or (in_cash and where is Moneyness.OUT):
        why = f"out of the money at its end ({ended:%Y-%m-%d}), and nothing came of the underlying"
        made = _closure(change, Cause.EXPIRED_WORTHLESS, Stage.PROVISIONAL, why, quantity)
        lost = None if change.average_cost is None else -made.quantity * change.average_cost + 0.0
        return replace(made, price=0.0, realized_pnl=lost)
    return unexplained


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
        name = leg_name(first.symbol, first.right, first.strike, first.expiry)
        return f"no execution; {first.by:+g} {name} (conid {first.conid}) came at the same time"
    return "no execution, and nothing that came with it, explains it"


def _is_stated(change: PositionChange, facts: Facts) -> bool:
    """Return whether statements cover every weekday in which the position may have closed."""
    if change.since is None:
        return False
    days = facts.stated.get(change.account, frozenset())
    day, last = (at.astimezone(NEW_YORK).date() for at in (change.since, change.seen_at))
    wanted = {
        found
        for step in range((last - day).days + 1)
        if (found := day + timedelta(days=step)).weekday() < 5
    }
    return bool(wanted) and wanted <= days
