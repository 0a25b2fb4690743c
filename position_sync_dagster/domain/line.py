"""One market data line: its states, the events that change them, and what follows each; pure.

A line is a frozen record. `TRANSITIONS` is the whole state machine: what is not in the table
changes nothing. Times are seconds of a monotonic clock that the caller reads, unless they are
called a moment.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff

# Time between two requests of a suspect line; it starts anew once the line ticks again and agrees
# with the broker's value.
RENEWAL = Backoff(first_s=30.0, longest_s=900.0)

# A denial that ended this long ago is over: the next refusal begins a new count.
DENIAL_REMEMBERED_S = 900.0

DIFFERS = "the broker's newer value differs from that of the line"
NOT_TICKED = "the line has not ticked since its data should flow"

# A line that was requested, or that may have been interrupted, has this long to tick before a row
# says that it does not. Farms often break and return within seconds (recorded: IBC issues/143).
GRACE_S = 5.0


class LineState(StrEnum):
    """How far the values of a line count.

    IDLE: not requested. WAITING: requested, and not ticked yet. TRUSTED: its newest values are the
    present ones, however old they are, since a gateway ticks on change. INTERRUPTED: its farm broke
    or connectivity was lost after its last tick. SUSPECT: it seems dead and is requested again.
    REFUSED: the gateway ended it.
    """

    IDLE = "IDLE"
    WAITING = "WAITING"
    TRUSTED = "TRUSTED"
    INTERRUPTED = "INTERRUPTED"
    SUSPECT = "SUSPECT"
    REFUSED = "REFUSED"


class LineEvent(StrEnum):
    """What happens to a line.

    REQUESTED: for the first time, or as another kind of data. REOPENED: its connection opens again.
    RENEWED: it was requested again with a new id, because it was suspect. CANCELLED: by us. ENDED:
    refused or ended by the gateway.

    PRICED: a price of the quote or a mark came that counts; values of the model come from another
    part of the gateway, and show nothing about the prices. COMPLETED: each part that ticked before
    has ticked again. SILENT: it should have ticked, and has not. OUTSIDE_SESSION: its contract does
    not trade, and silence says nothing.

    INTERRUPTED: its farm broke, or connectivity was lost. RESTORED: its data should flow again
    (2104, 1102). DOUBTED: it may be dead, or only quiet; a new request shows which. DISAGREED,
    AGREED: a newer value of the broker differs from that of the line, or is about the same.
    """

    REQUESTED = "REQUESTED"
    REOPENED = "REOPENED"
    RENEWED = "RENEWED"
    CANCELLED = "CANCELLED"
    ENDED = "ENDED"
    PRICED = "PRICED"
    COMPLETED = "COMPLETED"
    SILENT = "SILENT"
    OUTSIDE_SESSION = "OUTSIDE_SESSION"
    INTERRUPTED = "INTERRUPTED"
    RESTORED = "RESTORED"
    DOUBTED = "DOUBTED"
    DISAGREED = "DISAGREED"
    AGREED = "AGREED"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOccurrence:
    """An event of a line, with what it says.

    Attributes:
        now_s: When it happens.
        at: The moment of an interruption: what came before it does not count any more.
        reason: Why the line is not trusted from now on, for people.
        delayed: Whether delayed data were requested.
        holding: Whose value differs or agrees: holdings of several accounts share a line. None in
            an agreement: all of them.
    """

    now_s: float
    at: datetime = NEVER
    reason: str | None = None
    delayed: bool = False
    holding: Key | None = None


class Awaited(StrEnum):
    """What lifts a denial when it arrives, before its wait has passed.

    DETAILS: the contract details, without which no line can be requested. DEFINITIONS: the farm of
    definitions is back (2158), or IB (1102). MARKET_DATA: a farm of market data is back (2104).
    """

    DETAILS = "DETAILS"
    DEFINITIONS = "DEFINITIONS"
    MARKET_DATA = "MARKET_DATA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A refusal of live data for one contract.

    Attributes:
        wait: The delays before live data are requested again.
        delayed: Whether delayed data may be requested meanwhile.
        awaits: What lifts it when it arrives.
        times: Number of refusals in a row.
        until_s: When live data may be requested again.
    """

    reason: str
    wait: Backoff
    delayed: bool = False
    awaits: Awaited | None = None
    times: int = 0
    until_s: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """A newer value of the broker differed from that of a line, and none has agreed since.

    Attributes:
        holding: Whose value it was.
        answered: The line was requested again since, and has sent a price since.
    """

    holding: Key | None
    answered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The line of one contract, which all holdings of the contract share.

    Single lines may stay dead for hours after a farm notice of OK or after 1102 (nautilus_trader
    pull/3968, IBC issues/143).

    Attributes:
        silence_s: A line is suspect when it has not ticked for this long after its request, or
            after the data should flow again.
        held_since_s: When it was requested; None while it is not held.
        delayed: Whether it was requested as delayed data.
        denial: The last refusal of live data; it may be over.
        reason: Why the line is not trusted; None while it is, or waits for its first tick.
        withheld_until_s: Until then no row says that the line is not trusted.
        overdue_at_s: When it becomes suspect unless it ticks.
        renew_at_s: It is requested again at this time at the earliest.
        renewals: Number of times in a row that it was requested again without success.
        was_renewed: It was requested again after its newest price.
        lacks_parts: A price has come since it is awaited, and not all the other parts of the line.
        dispute: The broker's value that differs, if one does.
        changes: How often its state was set.
        since: What arrived until this moment does not count any more.
        priced_at: When its newest price arrived that counted.
        heard_at: When its newest tick of any kind arrived.
        quote: Its market data when it ticked last.

    >>> line = Line(silence_s=30.0).after(LineEvent.REQUESTED, 0.0)
    >>> line = line.elapsed(31.0)
    >>> line.state, line.is_due_for_renewal(31.0)
    (<LineState.SUSPECT: 'SUSPECT'>, True)
    >>> line.after(LineEvent.RENEWED, 31.0).after(LineEvent.PRICED, 32.0).trusted
    True
    """

    silence_s: float
    state: LineState = LineState.IDLE
    held_since_s: float | None = None
    delayed: bool = False
    denial: Denial | None = None
    reason: str | None = None
    withheld_until_s: float = -math.inf
    overdue_at_s: float = math.inf
    renew_at_s: float = -math.inf
    renewals: int = 0
    was_renewed: bool = False
    lacks_parts: bool = False
    dispute: Dispute | None = None
    changes: int = 0
    since: datetime = NEVER
    priced_at: datetime = NEVER
    heard_at: datetime = NEVER
    quote: Quote | None = None

    @property
    def held(self) -> bool:
        """Whether the line is held: requested, and neither cancelled nor refused."""
        return self.held_since_s is not None

    @property
    def live(self) -> bool:
        """Whether the line is held, and was requested as live data."""
        return self.held and not self.delayed

    @property
    def trusted(self) -> bool:
        """Whether its newest values count."""
        return self.state is LineState.TRUSTED

    @property
    def suspect(self) -> bool:
        """Whether it seems dead and is requested again."""
        return self.state is LineState.SUSPECT

    @property
    def refused(self) -> bool:
        """Whether the gateway ended it and it was not requested since."""
        return self.state is LineState.REFUSED

    @property
    def is_awaited(self) -> bool:
        """Whether it becomes suspect unless it ticks."""
        return self.overdue_at_s < math.inf and not self.suspect

    def after(
        self,
        event: LineEvent,
        now_s: float,
        *,
        at: datetime = NEVER,
        reason: str | None = None,
        delayed: bool = False,
        holding: Key | None = None,
    ) -> "Line":
        """Return the line after an event, by `TABLE`; what it says is an occurrence."""
        transition = TRANSITIONS.get((self.state, event))
        if transition is None:
            return self

        occurrence = LineOccurrence(
            now_s=now_s, at=at, reason=reason, delayed=delayed, holding=holding
        )
        line = transition.follow(self, occurrence)
        if transition.to is None:
            return line
        return replace(line, state=transition.to, changes=self.changes + 1)

    def heard(self, quote: Quote, now_s: float) -> "Line":
        """Return the line after ticks; its `priced_at` is another one if a price came that counts.

        Args:
            quote: The newest market data of the line.
            now_s: The time.
        """
        newest = max(quote.quote_time or NEVER, quote.mark_time or NEVER)
        is_priced = self.since < newest and newest != self.priced_at
        is_complete = True
        for at in (quote.quote_time, quote.mark_time, quote.greeks_time):
            if at is not None and at <= self.since:
                is_complete = False

        line = replace(self, quote=quote, heard_at=quote.received_at or NEVER)
        if is_priced:
            line = replace(line, priced_at=newest).after(LineEvent.PRICED, now_s)
        if is_complete and line.lacks_parts:
            line = line.after(LineEvent.COMPLETED, now_s)
        return line

    def counted(self, quote: Quote | None) -> Quote | None:
        """Return the part of its newest market data that counts; None if it is not held."""
        if quote is None or not self.held:
            return None
        silence = timedelta(seconds=self.silence_s)
        return quote.counted(since=self.since, model_silence=silence)

    def elapsed(self, now_s: float, *, session_open: bool = True) -> "Line":
        """Return the line after time has passed.

        Outside the session a silent line says nothing: its trust stays as it is, and it has the
        whole time to tick once the session opens.
        """
        if not self.is_awaited:
            return self
        if not session_open:
            return self.after(LineEvent.OUTSIDE_SESSION, now_s)
        if now_s < self.overdue_at_s:
            return self
        return self.after(LineEvent.SILENT, now_s)

    def may_be_disputed(self, now_s: float) -> bool:
        """Return whether a difference to the broker's value makes it suspect.

        A line that was requested again lately is left alone: its value is a fresh one.
        """
        return self.trusted and now_s >= self.renew_at_s

    def is_due_for_renewal(self, now_s: float, *, session_open: bool = True) -> bool:
        """Return whether the line is to be cancelled and requested with a new id now.

        Outside the session this holds only for a line that the broker's value contradicts.
        """
        is_due = self.suspect and now_s >= self.renew_at_s
        return is_due and (session_open or self.dispute is not None)

    def denied_again(self, denial: Denial, now_s: float) -> "Line":
        """Return the line after a refusal of live data; the wait grows each time.

        A refusal long after the one before begins anew: live data were granted meanwhile.
        """
        times = 0
        before = self.denial
        if before is not None and now_s - before.until_s < DENIAL_REMEMBERED_S:
            times = before.times
        if self.denied(now_s) is None:  # else delayed data were refused too
            times += 1

        until_s = now_s + denial.wait.delay_s(times)
        return replace(self, denial=replace(denial, times=times, until_s=until_s))

    def lifted(self, now_s: float) -> "Line":
        """Return the line without a denial: what it waited for has arrived."""
        if self.denial is None:
            return self
        until_s = min(self.denial.until_s, now_s)
        return replace(self, denial=replace(self.denial, until_s=until_s))

    def denied(self, now_s: float) -> Denial | None:
        """Return the refusal of live data that still counts, if any."""
        denial = self.denial
        return denial if denial is not None and now_s < denial.until_s else None


def _await_answer(line: Line, event: LineOccurrence) -> Line:
    """Grant a new request its time to tick."""
    return replace(
        line,
        reason=None,
        lacks_parts=False,
        withheld_until_s=event.now_s + GRACE_S,
        overdue_at_s=event.now_s + line.silence_s,
    )


def _hold(line: Line, event: LineOccurrence) -> Line:
    held = replace(line, held_since_s=event.now_s, delayed=event.delayed)
    return _await_answer(held, event)


def _begin_anew(line: Line, event: LineOccurrence) -> Line:
    """Forget what the connection before it showed."""
    anew = replace(line, renew_at_s=-math.inf, dispute=None, renewals=0)
    return _await_answer(anew, event)


def _count_renewal(line: Line, event: LineOccurrence) -> Line:
    """Record that it was requested again; the next time is later."""
    renewals = line.renewals + 1
    renew_at_s = event.now_s + RENEWAL.delay_s(renewals)
    return replace(line, renewals=renewals, was_renewed=True, renew_at_s=renew_at_s)


def _release(line: Line, _event: LineOccurrence) -> Line:
    """Forget the request; only the denial stays."""
    return replace(
        line,
        held_since_s=None,
        delayed=False,
        reason=None,
        withheld_until_s=-math.inf,
        overdue_at_s=math.inf,
        renew_at_s=-math.inf,
        renewals=0,
        dispute=None,
    )


def _end(line: Line, event: LineOccurrence) -> Line:
    """Discard all that it said."""
    return replace(
        line,
        held_since_s=None,
        delayed=False,
        reason=event.reason,
        withheld_until_s=event.now_s + GRACE_S,
        overdue_at_s=math.inf,
    )


def _take_price(line: Line, _event: LineOccurrence) -> Line:
    """Count the price; the parts that ticked before are awaited on."""
    dispute = line.dispute
    if dispute is not None and line.was_renewed:
        dispute = replace(dispute, answered=True)
    renewals = 0 if dispute is None else line.renewals
    return replace(
        line, reason=None, lacks_parts=True, was_renewed=False, dispute=dispute, renewals=renewals
    )


def _stop_waiting(line: Line, _event: LineOccurrence) -> Line:
    return replace(line, lacks_parts=False, overdue_at_s=math.inf)


def _postpone(line: Line, event: LineOccurrence) -> Line:
    """Grant it the whole time to tick once its session opens."""
    return replace(line, overdue_at_s=event.now_s + line.silence_s)


def _suspect(line: Line, reason: str | None) -> Line:
    since = max(line.since, line.heard_at)
    return replace(line, reason=reason, lacks_parts=False, overdue_at_s=math.inf, since=since)


def _suspect_silent(line: Line, _event: LineOccurrence) -> Line:
    """Suspect a line that did not answer; why it waited stays the reason."""
    return _suspect(line, line.reason or NOT_TICKED)


def _suspect_quiet(line: Line, event: LineOccurrence) -> Line:
    """Suspect a trusted line, which may only be quiet: it has a moment to answer."""
    suspect = _suspect(line, event.reason or NOT_TICKED)
    return replace(suspect, withheld_until_s=event.now_s + GRACE_S)


def _dispute(line: Line, event: LineOccurrence) -> Line:
    """Suspect a line whose value differs from the broker's."""
    return replace(_suspect(line, DIFFERS), dispute=Dispute(holding=event.holding))


def _agree(line: Line, event: LineOccurrence) -> Line:
    """End the difference, unless it is that of another holding."""
    dispute = line.dispute
    if dispute is not None and event.holding not in (None, dispute.holding):
        return line
    return replace(line, dispute=None, renewals=0)


def _interrupt(line: Line, event: LineOccurrence) -> Line:
    """Discard all from before the interruption; it has its time to tick again."""
    return replace(
        line,
        reason=event.reason,
        since=max(line.since, event.at),
        lacks_parts=False,
        withheld_until_s=event.now_s + GRACE_S,
        overdue_at_s=event.now_s + line.silence_s,
    )


def _await_soon(line: Line, event: LineOccurrence) -> Line:
    """Await a tick, not later than before: a farm may return again and again."""
    overdue_at_s = min(line.overdue_at_s, event.now_s + line.silence_s)
    return replace(line, lacks_parts=False, overdue_at_s=overdue_at_s)


def _await_return(line: Line, event: LineOccurrence) -> Line:
    """Await a tick; a line that was interrupted for longer has the whole time to tick."""
    if line.overdue_at_s <= event.now_s:
        line = replace(line, overdue_at_s=math.inf)
    return _await_soon(line, event)


class Transition(NamedTuple):
    """What an event does to a line in some states.

    Attributes:
        states: The states in which it does so.
        event: The event.
        to: The next state; None: the state stays.
        follow: What else follows.
    """

    states: frozenset[LineState]
    event: LineEvent
    to: LineState | None
    follow: Callable[[Line, LineOccurrence], Line]


def _in(*states: LineState) -> frozenset[LineState]:
    return frozenset(states)


_IDLE, _WAITING, _TRUSTED, _INTERRUPTED, _SUSPECT, _REFUSED = LineState
_HELD = _in(_WAITING, _TRUSTED, _INTERRUPTED, _SUSPECT)
_UNPRICED = _in(_WAITING, _INTERRUPTED, _SUSPECT)

# The state machine, one row for each event; docs/stream.md draws it.
TABLE = (
    Transition(frozenset(LineState), LineEvent.REQUESTED, _WAITING, _hold),
    Transition(_HELD, LineEvent.REOPENED, _WAITING, _begin_anew),
    Transition(_in(_SUSPECT), LineEvent.RENEWED, None, _count_renewal),
    Transition(frozenset(LineState), LineEvent.CANCELLED, _IDLE, _release),
    Transition(_HELD, LineEvent.ENDED, _REFUSED, _end),
    Transition(_UNPRICED, LineEvent.PRICED, _TRUSTED, _take_price),
    Transition(_in(_TRUSTED), LineEvent.PRICED, None, _take_price),
    Transition(_HELD, LineEvent.COMPLETED, None, _stop_waiting),
    Transition(_in(_WAITING, _INTERRUPTED), LineEvent.SILENT, _SUSPECT, _suspect_silent),
    Transition(_in(_TRUSTED), LineEvent.SILENT, _SUSPECT, _suspect_quiet),
    Transition(_HELD, LineEvent.OUTSIDE_SESSION, None, _postpone),
    Transition(_HELD, LineEvent.INTERRUPTED, _INTERRUPTED, _interrupt),
    Transition(_in(_INTERRUPTED), LineEvent.RESTORED, None, _await_return),
    Transition(_HELD - {_INTERRUPTED}, LineEvent.RESTORED, None, _await_soon),
    Transition(_in(_TRUSTED), LineEvent.DOUBTED, _SUSPECT, _suspect_quiet),
    Transition(_in(_TRUSTED), LineEvent.DISAGREED, _SUSPECT, _dispute),
    Transition(_HELD | {_REFUSED}, LineEvent.AGREED, None, _agree),
)

TRANSITIONS = {
    (state, transition.event): transition for transition in TABLE for state in transition.states
}
