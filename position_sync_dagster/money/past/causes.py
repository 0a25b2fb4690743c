"""Why a holding closed: from facts to a cause; pure.

The broker announces no assignment and no expiry: the position is just not there any more. A cause
is PROVISIONAL while it follows from what a gateway says, and STATED when a statement says it.
Before the statement there are four kinds of evidence: executions, the last day of an option with
where it stood, one option with exactly the delivery of its own multiplier, and after the night that
nothing was delivered. Everything else is UNEXPLAINED until the statement; a fact that is missing
never makes a cause.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from math import copysign
from operator import attrgetter
from typing import Any, NamedTuple

from position_sync_dagster.domain.clock import A_DAY, NEVER
from position_sync_dagster.domain.exchange_time import (
    NEW_YORK,
    beginning_of,
    exchange_date,
    parse_trading_hours,
)
from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.instrument import ContractDetails, Right, contract_name
from position_sync_dagster.domain.position_change import ChangedHolding, PositionChange
from position_sync_dagster.money.past.closes import (
    SLACK,
    Cause,
    Closure,
    Stage,
    StatementEvent,
)
from position_sync_dagster.money.past.movements import (
    BOOKED,
    OPTION_ENDS,
    SPLITS,
    Movement,
    MovementKind,
    MovementSource,
    Section,
    codes_of,
    is_cancellation,
    known_sum,
    lead_of,
    rounded,
    times,
)
from position_sync_dagster.money.trading_days import (
    expiry_moment,
    is_settled_at_the_open,
    last_day,
    settles_in_cash,
)

# What a change and its closure say of the holding alike.
_TERMS = tuple(field.name for field in fields(ChangedHolding))

# An option and its delivery are seen within this time of each other.
ONE_EVENT = timedelta(minutes=15)

# A price of this time before the end of an option says where it stood.
LAST_PRICE = timedelta(minutes=15)

# An option is clearly in or out of the money if its underlying is at least this far from the
# strike, as a part of the strike. Options that are settled at the open do not trade in the night
# before.
CLEAR = 0.01
CLEAR_AT_THE_OPEN = 0.05

# When the last session of listed options in the US ends (Cboe, curb session), in New York.
LAST_TRADES = time(17)

# The time of an option's last trade, if its contract names none; in New York.
USUAL_CLOSE = time(16, 15)

# The times of executions are cut to whole seconds: a trade may be a part of a second later.
RESOLUTION = timedelta(seconds=1)

# Time from the end of a day's trades to midnight. Futures, options on them and index options are
# traded then, as trades of the next day.
EVENING = timedelta(hours=24 - LAST_TRADES.hour)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known when a close is judged.

    Attributes:
        changes: All changes of positions near the closes, also those that opened something.
        trading_days: Returns the days with a session, from one day to another.
        movements: What moved their holdings.
        periods: The rows of `statement_events` of the days that statements cover, by account.
        contracts: Contract details, by conid.
        asked: From when and until when the gateway named all executions of an account. Without it
            the absence of an execution proves nothing.
        price_before: Returns the last price of the underlying of an option right before its end.
    """

    changes: Sequence[PositionChange]
    trading_days: Callable[[date, date], Sequence[date]]
    movements: Sequence[Movement] = ()
    periods: Mapping[str, Sequence[StatementEvent]] = field(default_factory=dict)
    contracts: Mapping[int, ContractDetails] = field(default_factory=dict)
    asked: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    price_before: Callable[[ContractDetails, datetime], float | None] = lambda *_option: None


class Explanation(NamedTuple):
    """A cause, why in words, and what follows from it: a booking states it, or it is inferred."""

    cause: Cause
    detail: str
    stage: Stage = Stage.PROVISIONAL
    price: float | None = None
    counter_conid: int | None = None


@dataclass(eq=False)
class BookedMovement:
    """A movement of one holding that may explain its changes.

    Attributes:
        reason: The cause that it states.
        unclaimed: The part of its quantity that explains no change yet.
    """

    movement: Movement
    reason: Explanation
    unclaimed: float

    @property
    def is_trade(self) -> bool:
        """Return whether it is in the section of trades, and no event."""
        return self.movement.section is Section.TRADES

    @cached_property
    def at(self) -> datetime:
        """Return from when on it may have been made: its time, or the beginning of its day.

        Where it is shown, `moment_of` is its moment.
        """
        at = self.movement.at
        if at is None:
            return beginning_of(self.movement.day)
        return at if self.is_trade else beginning_of(exchange_date(at))

    @cached_property
    def lead(self) -> timedelta:
        """Return how much earlier its time may be than the effect that a gateway shows."""
        return lead_of(self.movement)

    def claim(self, wanted: float) -> "Evidence":
        """Take of what is unclaimed as much as is wanted, or all of it."""
        part = copysign(min(abs(wanted), abs(self.unclaimed)), self.unclaimed)
        self.unclaimed = rounded(self.unclaimed - part)
        return Evidence(self, part)


class Evidence(NamedTuple):
    """The part of a booking that explains a change, or a part of it."""

    booking: BookedMovement
    quantity: float


@dataclass(eq=False)
class Case:
    """A change, what is known of its contract, and what explains it.

    Attributes:
        bookings: Those of its holding that are not taken back.
        evidence: The bookings that explain it.
        inference: The cause that the last day of options, or a delivery, shows.
    """

    change: PositionChange
    facts: Facts
    bookings: Sequence[BookedMovement]
    evidence: list[Evidence] = field(default_factory=list)
    inference: Explanation | None = None

    @property
    def details(self) -> ContractDetails | None:
        """Return what is known of its contract."""
        return self.facts.contracts.get(self.change.conid)

    @property
    def asked(self) -> tuple[datetime, datetime]:
        """Return from when and until when the gateway named all executions of the account."""
        return self.facts.asked.get(self.change.account, (self.change.seen_at, NEVER))

    @cached_property
    def ended(self) -> datetime | None:
        """Return when a derivative could be traded last; None where it does not expire."""
        details = self.details
        day = self.change.expiry
        clock = zone = None
        if details is not None:
            day = last_day(details) or day
            clock = details.last_trade_time
            zone = details.time_zone
        if day is None:
            return None
        return expiry_moment(day, clock, zone, usual=USUAL_CLOSE).astimezone(UTC)

    @cached_property
    def is_in(self) -> bool | None:
        """Return whether an option was in the money at its end; None: not clear, or not over."""
        details = self.details
        if details is None or self.ended is None or not self.is_over:
            return None

        price = self.facts.price_before(details, self.ended)
        clear = CLEAR_AT_THE_OPEN if is_settled_at_the_open(details) else CLEAR
        strike = self.change.strike or 0.0  # an option has one
        if price is None or abs(price - strike) < strike * clear:
            return None
        return (price > strike) is (self.change.right is Right.CALL)

    @property
    def unexplained(self) -> float:
        """Return the part of the change that no booking explains, with its sign."""
        return rounded(self.change.by - sum(part.quantity for part in self.evidence))

    @property
    def units(self) -> float | None:
        """Return the change of the underlying if the closed options were exercised or assigned."""
        change = self.change
        if change.right is None:
            return None
        # One future for an option on it.
        each = 1.0 if change.sec_type == "FOP" else change.multiplier
        return change.closed * each * (1 if change.right is Right.CALL else -1)

    @property
    def is_over(self) -> bool:
        """Return whether it was seen after the last trade of the contract."""
        return self.ended is not None and self.change.seen_at >= self.ended

    @property
    def has_stray(self) -> bool:
        """Return whether a trade of the day that went the same way explains no change.

        Its time may be wrong, or a message lost.
        """
        for booking in self.bookings:
            is_same_way = booking.unclaimed * self.change.by > 0
            is_of_day = abs(booking.at - self.change.seen_at) <= A_DAY
            if is_same_way and booking.is_trade and is_of_day:
                return True
        return False

    @property
    def is_whole(self) -> bool:
        """Return whether no trade, known or unknown, may have been a part of it.

        No exercise and no expiry turns a long option into a short one.
        """
        if self.evidence or self.has_stray or not self.is_covered:
            return False
        change = self.change
        return not change.is_option or not rounded(change.by + change.closed)

    @property
    def under_key(self) -> Key | None:
        """Return the holding of the underlying: an option's, or its own; None if not known."""
        if not self.change.is_option:
            return self.change.key
        if self.details is None or not self.details.under_conid:
            return None
        return self.change.account, self.details.under_conid

    @property
    def is_covered(self) -> bool:
        """Return whether every execution that may have made the change would be known.

        That is so if the contract had ended when the previous quantity was confirmed, or if the
        gateway named all executions from then until the change was seen or the contract ended.
        """
        if self.ended is None:
            return self.named_until(self.change.seen_at)
        if (self.change.since or NEVER) >= self.ended:
            return True
        return self.named_until(min(self.change.seen_at, self.ended))

    def named_until(self, until: datetime) -> bool:
        """Return whether the gateway named all executions from the confirmation until a time."""
        since = self.change.since
        begin, end = self.asked
        if since is None or end < until:
            return False
        if begin <= since:
            return True

        # A gateway that restarts at midnight shows an assignment of the night after it: the
        # executions from before are not named, and there are none if nothing traded then.
        if self.details is None:
            return False
        hours = parse_trading_hours(self.details.trading_hours, self.details.time_zone)
        if hours is None or not hours.begins <= since <= begin < hours.ends:
            return False
        return not any(opens < begin and closes > since for opens, closes in hours.sessions)


# How far a booking may be from the change that it explains: by how much the two clocks may differ,
# and how much earlier the broker may have booked what it does itself. The nearest bookings of every
# change come first: what is a little off, or was booked days before, may belong to two changes.
REACHES = (
    (timedelta(), timedelta()),
    (SLACK, timedelta()),
    (SLACK, A_DAY),
    (SLACK, BOOKED),
)


def closures_of(facts: Facts, only: Container[str] | None = None) -> list[Closure]:
    """Return the causes of closes among the changes, as far as the facts show them.

    Args:
        only: Ids of the changes to judge, all by default; the others are facts.
    """
    cancelled = cancelled_ids(facts.movements)
    # A booking and its cancellation explain nothing as long as others do: what was booked again in
    # their place is another booking.
    is_cancelled = grouped(lambda moved: moved.movement_id in cancelled, facts.movements)
    bookings = bookings_of(is_cancelled[False])
    taken_back = bookings_of(is_cancelled[True])

    cases = [Case(change, facts, bookings[change.key]) for change in facts.changes]
    in_order = sorted(cases, key=attrgetter("change.seen_at", "change.change_id"))
    of_holding = grouped(attrgetter("change.key"), in_order)
    for key, changed in of_holding.items():
        _claim_bookings(changed, bookings[key])
        _claim_bookings(changed, taken_back[key])

    deliverable = grouped(attrgetter("under_key"), filter(_may_be_of_delivery, in_order))
    for under_key, family in deliverable.items():
        for event in _events_of(family):
            _explain_delivery(event)

        # Of which it is not clear how they ended: the underlying was near the strike, or its price
        # is not known.
        unclear = [
            case
            for case in family
            if case.change.is_option and case.is_over and case.inference is None
        ]
        if unclear:
            _explain_nothing_came(unclear, of_holding[under_key], bookings[under_key])

    return [
        closure
        for case in cases
        if case.change.closed and (only is None or case.change.change_id in only)
        for closure in _closures_of_case(case)
    ]


# ---- what the broker names: movements, as bookings


def bookings_of(movements: Iterable[Movement]) -> defaultdict[Key, list[BookedMovement]]:
    """Return what explains changes, by holding and in order of time."""
    bookings = []
    for movement in movements:
        reason = _stated_cause(movement)
        if movement.quantity and reason is not None:
            bookings.append(BookedMovement(movement, reason, movement.quantity))
    return grouped(attrgetter("movement.key"), sorted(bookings, key=attrgetter("at")))


def cancelled_ids(movements: Sequence[Movement]) -> set[str]:
    """Return the ids of cancellations, and of what of the same holding they cancel."""
    ids: set[str] = set()
    by_holding = grouped(attrgetter("key"), movements)
    for cancels in movements:
        if not is_cancellation(cancels) or not cancels.quantity:
            continue

        for booked in by_holding[cancels.key]:
            is_opposite = booked.quantity == -cancels.quantity and not is_cancellation(booked)
            # Where the broker names none, it writes 0.
            names = (None, "0", booked.trade_id, booked.transaction_id)
            if is_opposite and cancels.corrects in names and booked.movement_id not in ids:
                ids.update((cancels.movement_id, booked.movement_id))
                break
    return ids


# What each kind says of what it ended.
CAUSE_OF = {
    MovementKind.ASSIGNMENT: Cause.ASSIGNED,
    MovementKind.EXERCISE: Cause.EXERCISED,
    MovementKind.EXPIRATION: Cause.EXPIRED_WORTHLESS,
    MovementKind.CASH_SETTLEMENT: Cause.CASH_SETTLED,
    MovementKind.TRANSFER: Cause.TRANSFERRED,
}


def _stated_cause(movement: Movement) -> Explanation | None:
    """Return the cause that a movement states of what it closed, and in words; None: it has none.

    A code that has no rule does not make a trade anything else; the reason names it.
    """
    cause = CAUSE_OF.get(movement.kind, Cause.TRADED)
    match movement.section:
        case Section.TRADES:
            return _cause_of_trade(movement, cause)
        case Section.OPTION_EVENTS if (movement.type or "").strip().lower() in OPTION_ENDS:
            text = f"the statement says: {movement.type}"
        case Section.TRANSFERS:
            text = f"transferred ({movement.type or 'of an unknown type'})"
        case Section.CORPORATE_ACTIONS:
            cause = Cause.SPLIT if movement.type in SPLITS else Cause.CORPORATE_ACTION
            words = " ".join(filter(None, (movement.type, movement.description)))
            text = f"corporate action {words[:200] or 'of an unknown type'}"
        case _:
            return None  # also the row of the shares that came with an option's end: Buy, Sell
    return Explanation(cause, text, Stage.STATED)


def _cause_of_trade(movement: Movement, cause: Cause) -> Explanation:
    if movement.source is MovementSource.API:
        if movement.price == 0:
            return Explanation(Cause.UNEXPLAINED, "a trade at no price")
        return Explanation(Cause.TRADED, "traded")

    if movement.codes is None and movement.type is None:
        if not movement.price:
            cause = Cause.UNEXPLAINED
        text = "a trade of a statement without the fields Notes/Codes and Transaction Type"
        return Explanation(cause, text)

    text = "traded"
    if is_cancellation(movement):
        cause = Cause.CORRECTED
        text = "the broker cancelled a trade"
    elif cause is not Cause.TRADED:
        text = cause.lower().replace("_", " ")
    elif codes_of(movement.codes):
        text = f"traded, with the codes {movement.codes}"
    elif not movement.price:
        cause = Cause.UNEXPLAINED
        text = f"the statement books it as {movement.type or 'a trade'} at no price"
    return Explanation(cause, text, Stage.STATED)


# ---- bookings that explain changes


def _claim_bookings(cases: Sequence[Case], bookings: Sequence[BookedMovement]) -> None:
    """Find for each change of a holding the bookings that explain it, the nearest ones first."""
    for slack, lead in REACHES:
        for case in cases:
            if case.unexplained:
                _claim_within(slack, lead, case, bookings)


def _claim_within(
    slack: timedelta, lead: timedelta, case: Case, bookings: Sequence[BookedMovement]
) -> None:
    """Claim the bookings in reach; of more than the change needs, the oldest of its direction."""
    change = case.change
    earliest = (change.since or change.seen_at - BOOKED) - max(slack, RESOLUTION)
    latest = change.seen_at + slack
    near = [
        booking
        for booking in bookings
        if booking.unclaimed and earliest - min(lead, booking.lead) < booking.at <= latest
    ]
    net = rounded(sum(booking.unclaimed for booking in near))
    unexplained = case.unexplained
    if net * unexplained <= 0:
        return

    if abs(net) <= abs(unexplained):
        for booking in near:
            case.evidence.append(booking.claim(booking.unclaimed))
        return

    # One that fits exactly comes before an older one.
    near.sort(key=lambda booking: (booking.unclaimed != unexplained, booking.at))
    for booking in near:
        wanted = case.unexplained
        if wanted and booking.unclaimed * wanted > 0:
            case.evidence.append(booking.claim(wanted))


# ---- the last day of options, and what they deliver


def _may_be_of_delivery(case: Case) -> bool:
    """Return whether a change may be of a delivery: of an underlying, or the end of an option.

    That is one that closed and may have been exercised, assigned, or have expired.
    """
    if case.under_key is None or not case.unexplained:
        return False
    if not case.change.is_option:
        return True
    may_deliver = case.is_in is not False and not settles_in_cash(case.details)
    return bool(case.change.closed) and may_deliver


def _events_of(family: Iterable[Case]) -> list[list[Case]]:
    """Return the changes of an underlying that may belong to one event.

    A change that is seen after a gap may have happened right after the last confirmation.
    """
    events: list[list[Case]] = []
    for case in family:
        since = case.change.since or NEVER
        if not events or since - events[-1][-1].change.seen_at > ONE_EVENT:
            events.append([])
        events[-1].append(case)
    return events


def _explain_delivery(event: Sequence[Case]) -> None:
    """Explain one option with exactly its delivery; everything else waits for the statement.

    Unless all executions until after it are known, only an option that was in the money, or is gone
    before its last day, is likely enough. If a trade of the underlying explains no change, what an
    option delivered may have come, and have been traded away, while nobody looked.
    """
    are_options = sorted(case.change.is_option for case in event)
    if are_options != [False, True] or not all(case.is_whole for case in event):
        return

    delivery, option = sorted(event, key=attrgetter("change.is_option"))
    earliest = event[0].change.seen_at - A_DAY
    for booking in delivery.bookings:
        if booking.is_trade and booking.unclaimed and booking.at >= earliest:
            return
    if option.units != delivery.unexplained:
        return

    is_likely = option.is_in or not option.is_over
    if not is_likely and not option.named_until(event[1].change.seen_at + ONE_EVENT):
        return

    cause = Cause.EXERCISED if option.change.closed > 0 else Cause.ASSIGNED
    units = f"{option.units:+g}"
    option.inference = Explanation(
        cause=cause,
        detail=f"{units} of the underlying came without an execution, as the option has them",
        price=0.0,
        counter_conid=delivery.change.conid,
    )
    delivery.inference = Explanation(
        cause=cause,
        detail=f"with {contract_name(option.change)}, without an execution",
        counter_conid=option.change.conid,
    )


def _explain_nothing_came(
    options: Sequence[Case], moved: Iterable[Case], bookings: Iterable[BookedMovement]
) -> None:
    """Explain options near their strikes by what did not come in the night.

    Options whose deliveries would offset each other may have delivered although nothing came, and
    so may one in the money.

    Args:
        moved: The changes of the underlying.
        bookings: Those of the underlying: what came may have been traded away.
    """
    sides = {copysign(1.0, option.units or 0.0) for option in options}
    first = min((option.change.since or NEVER) for option in options)
    last = max(option.change.seen_at for option in options)
    if any(case.unexplained and case.change.seen_at > first for case in moved):
        return
    if any(booking.unclaimed and booking.at + A_DAY > first for booking in bookings):
        return
    are_unclear = all(option.is_in is None and option.is_whole for option in options)
    if len(sides) > 1 or not are_unclear:
        return

    for option in options:
        if option.ended is None:
            continue

        _begin, until = option.asked
        # The broker books expiries in the night.
        night_ends = beginning_of(exchange_date(option.ended) + A_DAY)
        if option.units and until >= night_ends and option.named_until(last + ONE_EVENT):
            option.inference = Explanation(
                cause=Cause.EXPIRED_WORTHLESS,
                detail="not clearly in or out of the money at its end; by the positions and all "
                f"executions until {until:%Y-%m-%d %H:%M} UTC nothing came of the underlying",
                price=0.0,
            )


# ---- the causes of one close


_NOT_NAMED = Explanation(
    cause=Cause.UNEXPLAINED,
    stage=Stage.STATED,
    detail="the statement of these days names no trade, no event and no transfer of it",
)
_NOT_COVERED = Explanation(
    cause=Cause.UNEXPLAINED,
    detail="the executions of the time in which it closed are not known",
)
_NOTHING_FITS = Explanation(
    cause=Cause.UNEXPLAINED,
    detail="no execution, and nothing that came with it, explains it",
)
_WORTHLESS = Explanation(
    cause=Cause.EXPIRED_WORTHLESS,
    detail="out of the money at its end, and nothing came of the underlying",
    price=0.0,
)
_SETTLED_IN_CASH = Explanation(
    cause=Cause.CASH_SETTLED,
    detail="an index option, in the money at its end",
)


def _inferred(case: Case) -> Explanation:
    """Return the cause of what no booking explains."""
    if _is_stated(case):
        return _NOT_NAMED
    if case.inference is not None:
        return case.inference
    if not case.is_covered:
        return _NOT_COVERED

    is_known_option = case.change.is_option and case.under_key is not None
    if is_known_option and case.is_over and case.is_whole:
        if case.is_in is False:
            return _WORTHLESS
        if case.is_in and settles_in_cash(case.details):
            return _SETTLED_IN_CASH
    return _NOTHING_FITS


def _closures_of_case(case: Case) -> list[Closure]:
    """Return the causes of one close, whose quantities add up to what was closed."""
    change = case.change
    # What reduced the holding.
    closing = [part for part in case.evidence if part.quantity * change.closed < 0]
    closures = []
    open_quantity = abs(change.closed)
    for reason, evidence in grouped(attrgetter("booking.reason"), closing).items():
        quantity = min(open_quantity, sum(abs(part.quantity) for part in evidence))
        open_quantity = rounded(open_quantity - quantity)
        if quantity:
            closures.append(_stated_closure(change, reason, evidence, quantity))

    if open_quantity:
        inference = _inferred(case)
        # What a worthless option had cost is what was realised.
        cost = change.average_cost if inference.cause is Cause.EXPIRED_WORTHLESS else None
        realized = times(cost, -copysign(open_quantity, change.closed))
        closures.append(_closure(change, inference, open_quantity, realized_pnl=realized))
    return closures


def _closure(change: PositionChange, reason: Explanation, quantity: float, **said: Any) -> Closure:
    """Return the cause of a part of a close; it was seen to be gone, if nothing says when."""
    terms = {name: getattr(change, name) for name in (*_TERMS, "currency")}
    usual = {"closed_at": change.seen_at, "quantity": copysign(quantity, change.closed)}
    return Closure(**terms | reason._asdict() | usual | said)


def _stated_closure(
    change: PositionChange, reason: Explanation, evidence: Sequence[Evidence], quantity: float
) -> Closure:
    """Return the cause of a part of a close, with the bookings as evidence."""
    moved = [part.booking.movement for part in evidence]
    sizes = [abs(part.quantity) for part in evidence]
    trades = [part.booking for part in evidence if part.booking.is_trade]
    closed_at = max((trade.at for trade in trades), default=change.seen_at)
    paid = known_sum(map(times, map(attrgetter("price"), moved), sizes))
    realized = known_sum(
        times(movement.realized_pnl, size / abs(movement.quantity or 1.0))
        for movement, size in zip(moved, sizes, strict=True)
    )
    return _closure(
        change,
        reason,
        quantity,
        closed_at=closed_at,
        price=None if paid is None else paid / sum(sizes),
        realized_pnl=realized,
        executions=_joined("execution_id", moved),
        order_ids=_joined("movement.order_id", trades),
        events=_joined("event_id", moved),
        statement=_joined("statement", moved),
        counter_conid=moved[0].counter_conid,
        evidence=[*_once(movement.execution_id or movement.event_id for movement in moved)],
    )


def _joined(name: str, records: Iterable[object]) -> str | None:
    """Return what records have of a name, each once, separated by commas; None without any."""
    return ",".join(_once(map(attrgetter(name), records))) or None


def _once(texts: Iterable[str | None]) -> Iterable[str]:
    return dict.fromkeys(filter(None, texts))


# ---- the days that statements cover


def _is_stated(case: Case) -> bool:
    """Return whether statements cover every trading day in which the position may have closed.

    What is traded in the `EVENING` is a trade of the next one.
    """
    change = case.change
    periods = case.facts.periods.get(change.account)
    if change.since is None or not periods:
        return False

    days = case.facts.trading_days(
        exchange_date(change.since), exchange_date(change.seen_at + EVENING)
    )
    for day in days:
        if not any(_covers(period, day, change.seen_at) for period in periods):
            return False
    return bool(days)


def _covers(period: StatementEvent, day: date, until: datetime) -> bool:
    """Return whether a statement covers a day until a time, or until the last trades of the day.

    A statement that was made on a day covers that day until it was made. One that names no time
    counts as made at the beginning of its last day.
    """
    if not (period.first_day or period.day) <= day <= period.day:
        return False
    until = min(until, datetime.combine(day, LAST_TRADES, NEW_YORK))
    return (period.stated_at or beginning_of(period.day)) >= until
