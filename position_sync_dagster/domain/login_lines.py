"""The market data lines of a login: who gets one, which are trusted, or probed; pure.

Only all lines together show which of them should be held, and whether they died without a notice.
Times are seconds of a monotonic clock that the caller reads, unless they are called a moment.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple, TypeVar

from position_sync_dagster.domain.clock import NEVER
from position_sync_dagster.domain.holding import BrokerPosition, Key, grouped
from position_sync_dagster.domain.leg import ActiveContract, few
from position_sync_dagster.domain.quote import Quote
from position_sync_dagster.domain.retry import Backoff

# The first probe of a limit learned from code 101 tries this many lines above the reserve.
PROBE_STEP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A conid that a strategy wants streamed and that an account holds, or an underlying.

    Attributes:
        priority: The best (smallest) priority of its legs; of an underlying its place by the value
            of its options.
        since: When the oldest of its legs was added.
        of_options: It is no leg, but the underlying of held options, for their greeks.
    """

    conid: int
    priority: int
    since: datetime = NEVER
    of_options: bool = False


def demands(
    holdings_of: Callable[[int], Iterable[BrokerPosition]],
    legs: Iterable[ActiveContract],
    *,
    sec_types: Iterable[str],
) -> list[Demand]:
    """Return the conids that want a line: active in an account that holds them.

    Args:
        holdings_of: Returns the holdings of a conid.
        legs: The legs of strategies.
        sec_types: Holdings of other security types want no line.
    """
    allowed = frozenset(sec_types)
    present = (leg for leg in legs if leg.removed_at is None)
    wanted: list[Demand] = []
    for conid, active in grouped(attrgetter("conid"), present).items():
        accounts = {
            holding.account
            for holding in holdings_of(conid)
            if holding.position and holding.instrument.sec_type in allowed
        }
        held = [leg for leg in active if accounts and leg.account in (None, *accounts)]
        if held:
            priority, since = min(leg.priority for leg in held), min(leg.added_at for leg in held)
            wanted.append(Demand(conid=conid, priority=priority, since=since))
    return wanted


def rank(demand: Demand, held: Collection[int]) -> tuple[bool, int, bool, datetime, int]:
    """Return the sort key of a demand: the smaller is served first.

    Every leg comes before every underlying. The smaller priority number comes first; then the conid
    that has a line already, so that a line does not go back and forth; then the older leg; then the
    smaller conid.

    Args:
        demand: The conid.
        held: The conids that have a line.
    """
    return (
        demand.of_options,
        demand.priority,
        demand.conid not in held,
        demand.since,
        demand.conid,
    )


def allocate_lines(
    wanted: Iterable[Demand],
    held: Mapping[int, float],
    *,
    limit: int,
    reserve: int,
    now: float,
    min_hold_s: float,
) -> frozenset[int]:
    """Choose the conids that hold a line from now on, by `rank`; add none above limit − reserve.

    A line younger than `min_hold_s` is kept in any case, and counts; that of an underlying is given
    up at once for a leg. If the limit has fallen below the number of young lines, they are kept and
    none is added.

    Args:
        wanted: The demands.
        held: conid → when its line was requested.
        limit: The number of lines of the login.
        reserve: The lines that are left to other programs.
        now: The present moment.
        min_hold_s: The shortest time that a line is kept.

    >>> from datetime import UTC
    >>> at = datetime(2026, 1, 2, tzinfo=UTC)
    >>> legs = [Demand(conid=c, priority=1, since=at) for c in (3, 1, 2)]
    >>> sorted(allocate_lines(legs, {}, limit=3, reserve=1, now=0.0, min_hold_s=5.0))
    [1, 2]
    """
    wanted = list(wanted)
    released = {demand.conid for demand in wanted if demand.of_options}
    chosen = {
        conid for conid, since in held.items() if now - since < min_hold_s and conid not in released
    }
    free = limit - reserve - len(chosen)
    if free > 0:
        others = (demand for demand in wanted if demand.conid not in chosen)
        ranked = sorted(others, key=lambda demand: rank(demand, held))
        chosen.update(demand.conid for demand in ranked[:free])
    return frozenset(chosen)


# A holding that is followed gives way only to one whose value is greater by this factor.
STAYS = 1.25


Named = TypeVar("Named", Key, int)


def largest(
    values: Mapping[Named, float | None], followed: Collection[Named], limit: int
) -> list[Named]:
    """Return the holdings or underlyings to follow: those without a value, then the largest.

    Args:
        values: The value of each holding; None: unknown.
        followed: The holdings that are followed now.
        limit: How many may be followed.

    >>> values = {("A", 1): 100.0, ("A", 2): -120.0, ("A", 3): None, ("A", 4): 200.0}
    >>> largest(values, {("A", 1)}, 3)
    [('A', 3), ('A', 4), ('A', 1)]
    """

    def order(key: Named) -> tuple[float, Named]:
        value = values[key]
        return (
            -math.inf if value is None else -abs(value) * (STAYS if key in followed else 1.0),
            key,
        )

    return sorted(values, key=order)[:limit]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimit:
    """The line limit of a login: as configured, or as learned from code 101.

    A learned limit is probed upwards. The first probe goes above the reserve, so that the gateway
    really gets a request; each probe that it grants doubles the next one. After a probe that it
    refuses, the next one waits twice as long.

    Attributes:
        configured: The upper bound.
        reserve: The number of lines that is always left free.
        wait: The time before a learned limit is probed.
        given: The lines in use when the gateway refused one; None: it has refused none.
        raised: The lines above `given` that a probe tries; 0 before a probe.
        failures: Refused probes in a row.
        probe_at: When the next probe is due.

    >>> wait = Backoff(first_s=60, longest_s=900)
    >>> limit = LineLimit(configured=100, reserve=5, wait=wait)
    >>> limit = limit.refused(61, now=0.0).refused(60, now=0.1)
    >>> limit.lines, limit.probed(60, now=59.0).lines, limit.probed(60, now=61.0).lines
    (60, 60, 70)
    """

    configured: int
    reserve: int
    wait: Backoff
    given: int | None = None
    raised: int = 0
    failures: int = 0
    probe_at: float = math.inf

    @property
    def lines(self) -> int:
        """The number of lines, the reserve included."""
        if self.given is None:
            return self.configured
        return min(self.configured, self.given + self.raised)

    def refused(self, in_use: int, now: float) -> "LineLimit":
        """Return the limit after code 101: the gateway gives no more than are in use.

        In a burst of refusals only the last one shows the true limit, and only the first one can
        be the answer to a probe.
        """
        failures = self.failures + (self.raised > 0)
        return replace(
            self,
            given=min(in_use, self.configured),
            raised=0,
            failures=failures,
            probe_at=now + self.wait.delay_s(failures + 1),
        )

    def probed(self, in_use: int, now: float) -> "LineLimit":
        """Return the limit with more lines if a probe is due; an unused probe continues."""
        if self.given is None or now < self.probe_at:
            return self
        granted = self.raised > 0 and in_use > self.given
        if granted and self.lines == self.configured:
            return replace(self, given=None, raised=0, failures=0, probe_at=math.inf)
        raised = self.raised or self.reserve + PROBE_STEP
        return replace(
            self,
            raised=2 * raised if granted else raised,
            failures=0 if granted else self.failures,
            probe_at=now + self.wait.first_s,
        )


# Time between two requests of a suspect line; it starts anew once the line ticks again and agrees
# with the broker's value. It is also the time between two trials while no line answers
# (`RenewalPace`).
RENEWAL = Backoff(first_s=30.0, longest_s=900.0)

# Longest time between two probes of a silent login; a denial that ended this long ago is over.
LONGEST_S = 900.0

DIFFERS = "the broker's newer value differs from that of the line"
NOT_TICKED = "the line has not ticked since its data should flow"

# A line that was requested, or that may have been interrupted, has this long to tick before a row
# says that it does not. Farms often break and return within seconds (recorded: IBC issues/143).
GRACE_S = 5.0


class Trust(StrEnum):
    """How far the values of a line count.

    IDLE: not requested. WAITING: requested, and not ticked yet. TRUSTED: its newest values are the
    present ones, however old they are, since a gateway ticks on change. INTERRUPTED: its farm broke
    or connectivity was lost after its last tick. SUSPECT: it seems dead and is requested again.
    REFUSED: the gateway ended it. A price makes a line that is held TRUSTED; one that is IDLE or
    REFUSED has to be requested first.
    """

    IDLE = "IDLE"
    WAITING = "WAITING"
    TRUSTED = "TRUSTED"
    INTERRUPTED = "INTERRUPTED"
    SUSPECT = "SUSPECT"
    REFUSED = "REFUSED"


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
        of_login: The refusal concerns the login and not the contract. One of the contracts that
            were refused so is requested again, and the others follow when it is granted.
        awaits: What lifts it when it arrives.
        times: Number of refusals in a row.
        until_s: When live data may be requested again.
    """

    reason: str
    wait: Backoff
    delayed: bool = False
    of_login: bool = False
    awaits: Awaited | None = None
    times: int = 0
    until_s: float = -math.inf


@dataclass(slots=True)
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
        disagreed: A newer value of the broker differed, and none has agreed since.
        answered: It was requested again since it disagreed, and has sent a price since.
        changes: How often its trust changed.
        since: What arrived until then does not count any more.
        priced_at: When its newest price arrived that counted.
        quote: Its market data when it ticked last.

    >>> line = Line(silence_s=30.0)
    >>> line.requested(0.0)
    >>> line.elapsed(31.0)
    True
    >>> line.is_due_for_renewal(31.0), line.trusted
    (True, False)
    >>> line.renewed(31.0)
    >>> line.ticked()
    >>> line.trusted
    True
    """

    silence_s: float
    held_since_s: float | None = None
    delayed: bool = False
    denial: Denial | None = None
    state: Trust = Trust.IDLE
    reason: str | None = None
    withheld_until_s: float = -math.inf
    overdue_at_s: float = math.inf
    renew_at_s: float = -math.inf
    renewals: int = 0
    disagreed: bool = False
    answered: bool = False
    changes: int = 0
    since: datetime = NEVER
    priced_at: datetime = NEVER
    quote: Quote | None = None
    _disagreed_by: Key | None = None
    _renewed: bool = False
    _incomplete: bool = False
    _heard_at: datetime = NEVER

    @property
    def held(self) -> bool:
        """Return whether the line is held: requested, and neither cancelled nor refused."""
        return self.held_since_s is not None

    @property
    def live(self) -> bool:
        """Return whether the line is held, and was requested as live data."""
        return self.held and not self.delayed

    @property
    def trusted(self) -> bool:
        """Return whether its newest values count."""
        return self.state is Trust.TRUSTED

    @property
    def suspect(self) -> bool:
        """Return whether it seems dead and is requested again."""
        return self.state is Trust.SUSPECT

    @property
    def refused(self) -> bool:
        """Return whether the gateway ended it and it was not requested since."""
        return self.state is Trust.REFUSED

    @property
    def is_awaited(self) -> bool:
        """Return whether it becomes suspect unless it ticks."""
        return self.overdue_at_s < math.inf and not self.suspect

    def requested(self, now_s: float, *, delayed: bool = False) -> None:
        """Record that the line was requested: for the first time, or as another kind of data."""
        self.held_since_s, self.delayed = now_s, delayed
        self._follow_request(now_s)

    def reopened(self, now_s: float) -> None:
        """Record that its connection opens again: its trust begins anew."""
        self.renew_at_s = -math.inf
        self.agrees()
        self._follow_request(now_s)

    def cancelled(self) -> None:
        """Record that the line was cancelled; only the denial stays."""
        self.held_since_s, self.delayed = None, False
        self.renew_at_s = -math.inf
        self.agrees()
        self.withheld_until_s, self.overdue_at_s = -math.inf, math.inf
        self._become(Trust.IDLE, None)

    def heard(self, quote: Quote, now: datetime) -> bool:
        """Record ticks, and return whether a price that counts was among them.

        A price or size of the quote and a mark are prices. Values of the model come from another
        part of the gateway, and show nothing about the prices.

        Args:
            quote: The newest market data of the line.
            now: The time. A later time of a tick is from before the clock was set back.
        """
        self.quote, self._heard_at = quote, min(quote.received_at or NEVER, now)
        times = [at for at in (quote.quote_time, quote.mark_time) if at is not None and at <= now]
        newest = max(times, default=NEVER)
        is_new = self.since < newest and newest != self.priced_at
        parts = (quote.quote_time, quote.mark_time, quote.greeks_time)
        whole = all(at is None or self.since < at for at in parts)
        if is_new:
            self.priced_at = newest
            self.ticked(whole=whole)
        elif whole and self._incomplete:
            self._incomplete, self.overdue_at_s = False, math.inf
        return is_new

    def counted(self, quote: Quote | None, now: datetime) -> Quote | None:
        """Return the part of its newest market data that counts; None if it is not held."""
        if quote is None or not self.held:
            return None
        silence = timedelta(seconds=self.silence_s)
        return quote.counted(since=self.since, now=now, model_silence=silence)

    def ticked(self, *, whole: bool = True) -> None:
        """Record a price, which came after everything that was recorded before.

        Args:
            whole: Each part of the line that ticked before has ticked again. A part that does not
                may have died: the line is requested again then.
        """
        if not self.held:
            return
        self._incomplete = not whole
        if whole:
            self.overdue_at_s = math.inf
        if not self.disagreed:
            self.renewals = 0
        self.answered |= self.disagreed and self._renewed
        self._renewed = False
        if not self.trusted:
            self._become(Trust.TRUSTED, None)

    def ended(self, now_s: float, reason: str) -> None:
        """Record that the gateway refused or ended it: nothing that it said counts any more."""
        self.held_since_s, self.delayed = None, False
        self.withheld_until_s, self.overdue_at_s = now_s + GRACE_S, math.inf
        self._become(Trust.REFUSED, reason)

    def interrupted(self, at: datetime, now_s: float, reason: str) -> None:
        """Record that its farm broke or that connectivity was lost.

        Args:
            at: The moment; what came before it does not count any more.
            now_s: The same in seconds.
            reason: The cause, for people.
        """
        self.since = max(self.since, at)
        if self.held:
            self.withheld_until_s, self.overdue_at_s = now_s + GRACE_S, now_s + self.silence_s
            self._incomplete = False
            self._become(Trust.INTERRUPTED, reason)

    def restored(self, now_s: float) -> None:
        """Record that the data should flow again (2104, 1102).

        A line that was interrupted for longer has the whole time to tick.
        """
        if self.held:
            self._incomplete = False
            if self.state is Trust.INTERRUPTED and self.overdue_at_s <= now_s:
                self.overdue_at_s = math.inf
            self.overdue_at_s = min(self.overdue_at_s, now_s + self.silence_s)

    def elapsed(self, now_s: float, *, session_open: bool = True) -> bool:
        """Record that time passed, and return whether the line became suspect.

        Outside the session a silent line says nothing: its trust stays as it is, and it has the
        whole time to tick once the session opens.
        """
        if not self.is_awaited:
            return False
        if not session_open:
            self.overdue_at_s = now_s + self.silence_s
        if now_s < self.overdue_at_s:
            return False
        if self.trusted:
            self.doubted(now_s, NOT_TICKED)
        else:
            self._suspect(self.reason or NOT_TICKED)
        return True

    def doubted(self, now_s: float, reason: str) -> None:
        """Record that a trusted line may be dead, or only quiet: a new request shows which.

        The line has a moment to answer before a row calls it silent.
        """
        if self.trusted:
            self.withheld_until_s = now_s + GRACE_S
            self._suspect(reason)

    def disagrees(self, now_s: float, holding: Key | None = None) -> bool:
        """Record that a newer value of the broker differs; return whether it became suspect.

        A line that was requested again lately is left alone: its value is a fresh one.

        Args:
            now_s: The time.
            holding: Whose value it is: holdings of several accounts share a line.
        """
        if not self.trusted or now_s < self.renew_at_s:
            return False
        self.disagreed, self.answered, self._disagreed_by = True, False, holding
        self._suspect(DIFFERS)
        return True

    def agrees(self, holding: Key | None = None) -> None:
        """Record that a newer value of the broker is about the same.

        Args:
            holding: Whose value it is; the difference of another holding stays. None: all.
        """
        if holding is None or not self.disagreed or holding == self._disagreed_by:
            self.disagreed, self.answered, self.renewals = False, False, 0

    def is_due_for_renewal(self, now_s: float, *, session_open: bool = True) -> bool:
        """Return whether the line is to be cancelled and requested with a new id now.

        Outside the session this holds only for a line that the broker's value contradicts.
        """
        due = self.suspect and now_s >= self.renew_at_s
        return due and (session_open or self.disagreed)

    def renewed(self, now_s: float) -> None:
        """Record that a suspect line was requested again; its next tick makes it trusted."""
        self.renewals += 1
        self._renewed = True
        self.renew_at_s = now_s + RENEWAL.delay_s(self.renewals)

    def deny(self, now_s: float, denial: Denial) -> Denial:
        """Record that there is no live data, and return until when; the wait grows each time.

        A refusal long after the one before begins anew: live data were granted meanwhile.
        """
        before, times = self.denial, 0
        if before is not None and now_s - before.until_s < LONGEST_S:
            times = before.times
        if self.denied(now_s) is None:  # else delayed data were refused too
            times += 1
        until_s = now_s + denial.wait.delay_s(times)
        self.denial = replace(denial, times=times, until_s=until_s)
        return self.denial

    def lift(self, now_s: float) -> None:
        """End the denial: what it waited for has arrived."""
        if self.denial is not None:
            self.denial = replace(self.denial, until_s=min(self.denial.until_s, now_s))

    def denied(self, now_s: float) -> Denial | None:
        """Return the refusal of live data that still counts, if any."""
        denial = self.denial
        return denial if denial is not None and now_s < denial.until_s else None

    def _follow_request(self, now_s: float) -> None:
        self.withheld_until_s = now_s + GRACE_S
        self.overdue_at_s = now_s + self.silence_s
        self._become(Trust.WAITING, None)

    def _suspect(self, reason: str) -> None:
        self.overdue_at_s = math.inf
        self.since = max(self.since, self._heard_at)
        self._become(Trust.SUSPECT, reason)

    def _become(self, state: Trust, reason: str | None) -> None:
        self.state, self.reason = state, reason
        self.changes += 1


# After this many ticks a login counts as busy again, and its next silence is probed soon.
MANY_TICKS = 100


@dataclass(slots=True)
class SilentLogin:
    """Decides when one line of a login is requested again because none has ticked for a while.

    Market data may stop on all lines at once while the gateway reports nothing. A line that is
    requested anew opens with its present quote, also in a quiet market. A quote that differs from
    the last one of the old request shows that ticks were missed. The next probe waits twice as
    long, unless many lines tick before.

    Attributes:
        silence_s: The length of the silence before the first probe.

    >>> login = SilentLogin(silence_s=60.0)
    >>> login.heard(3, 0.0)
    >>> login.is_due(59.0), login.is_due(60.0)
    (False, True)
    >>> login.probed(60.0)
    >>> login.is_due(179.0), login.is_due(180.0)
    (False, True)
    """

    silence_s: float
    _heard_at_s: float = math.inf
    _ticks: int = 0
    _probes: int = 0

    def heard(self, lines: int, now_s: float) -> None:
        """Record that this number of lines ticked by themselves, not in answer to a probe."""
        if lines:
            self._heard_at_s = now_s
            self._ticks += lines
            if self._ticks >= MANY_TICKS:
                self._probes = 0

    def is_due(self, now_s: float) -> bool:
        """Return whether a line should be probed now; never before the first tick."""
        wait = Backoff(first_s=self.silence_s, longest_s=max(LONGEST_S, self.silence_s))
        return now_s >= self._heard_at_s + wait.delay_s(self._probes + 1)

    def rested(self, now_s: float) -> None:
        """Record that no line could tick until now: every contract is outside its session."""
        self._heard_at_s, self._probes = now_s, 0

    def probed(self, now_s: float) -> None:
        """Record that a line is requested again; the next probe waits twice as long."""
        self._heard_at_s, self._ticks = now_s, 0
        self._probes += 1


def missed(before: Quote, opened: Quote | None) -> bool | None:
    """Return whether a new request's quote differs from the last one of the old request.

    A difference below the smallest change of a price is none: a gateway calculates marks anew for
    each request, and the fourth decimal of a mark may differ.

    Returns:
        None while the new one lacks a price that the old one had.

    >>> missed(Quote(conid=1, bid=1.0), Quote(conid=1, bid=1.1, ask=1.2))
    True
    >>> missed(Quote(conid=1, mark=1.02, min_tick=0.05), Quote(conid=1, mark=1.04))
    False
    >>> missed(Quote(conid=1, bid=1.0, mark=1.0), Quote(conid=1, bid=1.0)) is None
    True
    """
    pairs = [
        (getattr(before, name), getattr(opened, name, None)) for name in ("bid", "ask", "mark")
    ]
    known = [(old, new) for old, new in pairs if old is not None]
    least = (before.min_tick or 0.0) * (1 - TICK_ROUNDING)
    if any(new is not None and new != old and abs(new - old) >= least for old, new in known):
        return True
    return None if opened is None or any(new is None for _, new in known) else False


# The part of a tick by which a difference of two prices may be rounded: 0.3 − 0.25 < 0.05.
TICK_ROUNDING = 1e-6

# A probed line has this long to open at least.
PROBE_S = 10.0


class Probe(NamedTuple):
    """A line that is requested again although it may only be quiet.

    Attributes:
        before: Its last quote.
        judge_at_s: If it has not opened by then, it may be dead.
    """

    conid: int
    before: Quote
    judge_at_s: float


# The number of suspect lines requested again in one step: each takes two of the 50 messages that a
# gateway takes in a second, and account requests need some of them too.
RENEWALS_AT_ONCE = 10

# When this many lines that were requested again have not answered, one is tried at a time.
UNANSWERED = 5


@dataclass(slots=True)
class RenewalPace:
    """How many suspect lines are requested again now.

    When several did not answer, the login or a farm is dead. One line at a time is tried then, less
    and less often, and the others follow when it answers.

    >>> pace = RenewalPace()
    >>> pace.allowed(0.0)
    5
    >>> pace.requested([1, 2, 3, 4, 5], 0.0)
    >>> pace.allowed(29.0), pace.allowed(30.0)
    (0, 1)
    >>> pace.answered([5])
    >>> pace.allowed(29.0)
    10
    """

    _unanswered: set[int] = field(default_factory=set)
    _at_once: int = UNANSWERED
    _trials: int = 0
    _trial_at_s: float = -math.inf

    def allowed(self, now_s: float) -> int:
        """Return how many lines may be requested again now."""
        if len(self._unanswered) < UNANSWERED:
            return self._at_once - len(self._unanswered)
        return int(now_s >= self._trial_at_s)

    def requested(self, conids: Sequence[int], now_s: float) -> None:
        """Record that these lines are requested again."""
        self._unanswered.update(conids)
        if conids and len(self._unanswered) >= UNANSWERED:
            self._trials += 1
            self._trial_at_s = now_s + RENEWAL.delay_s(self._trials)

    def answered(self, conids: Sequence[int]) -> None:
        """Record that these lines sent a price."""
        if not self._unanswered.isdisjoint(conids):
            self._begin_anew(RENEWALS_AT_ONCE)

    def interrupted(self) -> None:
        """Record that lines may have died or returned: earlier silence proves nothing now."""
        self._begin_anew(UNANSWERED)

    def _begin_anew(self, at_once: int) -> None:
        self._unanswered, self._at_once = set(), at_once
        self._trials, self._trial_at_s = 0, -math.inf


LOGIN_SILENT = "no line of the login has ticked"

# The number of suspect lines that the session's detail and the log name.
NAMED = 3


@dataclass(eq=False, repr=False, kw_only=True)
class LoginLines:
    """Every line that one stream has on its connection: events come in, decisions come out.

    Silence is a sign of a fault only while the contract of a line trades. Other streams of the
    process may share the connection, and the lines of one contract.

    Args:
        silence_s: A line is suspect when it should tick and has not for this long.
        session_open: Whether a contract trades now, by conid; true where that is not known.
        limit: The number of lines of the login.
        min_hold_s: How long a line is kept at least.

    Attributes:
        limit: The number of lines, as configured or learned.
        wanted: conid → its demand.

    >>> from datetime import UTC
    >>> lines = LoginLines(
    ...     silence_s=30.0, session_open=lambda conid: conid != 2, min_hold_s=5.0,
    ...     limit=LineLimit(configured=100, reserve=5, wait=RENEWAL),
    ... )
    >>> for conid in (1, 2):
    ...     lines.line(conid).requested(0.0)
    >>> lines.ticked({}, datetime.now(UTC), 31.0)
    >>> lines.take_due_for_renewal(31.0)
    [1]
    """

    silence_s: float
    session_open: Callable[[int], bool]
    limit: LineLimit
    min_hold_s: float

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget every line: they ended with their connection. The limit stays."""
        self._lines: dict[int, Line] = {}
        self.wanted: dict[int, Demand] = {}
        self._begin_anew()

    def reopened(self, now_s: float) -> None:
        """Record that the connection opens again: every line has to tick before it counts."""
        for line in self._held_lines():
            line.reopened(now_s)
        self._begin_anew()

    def line(self, conid: int) -> Line:
        """Return the record of a contract's line, which is a new one where it is not known."""
        line = self._lines.get(conid)
        if line is None:
            line = self._lines[conid] = Line(silence_s=self.silence_s)
        return line

    @property
    def held(self) -> dict[int, float]:
        """The conids that hold a line, and since when."""
        return {
            conid: line.held_since_s
            for conid, line in self._lines.items()
            if line.held_since_s is not None
        }

    def waiting_for(self, awaited: Awaited, now_s: float) -> list[int]:
        """Return the contracts whose denial is lifted when this arrives."""
        return [c for c, denial in self.denials(now_s).items() if denial.awaits is awaited]

    def arrived(self, conids: Iterable[int], now_s: float) -> None:
        """Record that what the denials of these contracts waited for has arrived."""
        for conid in conids:
            self.line(conid).lift(now_s)

    def chosen(self, in_use: int, now_s: float) -> frozenset[int]:
        """Return the conids that are to hold a line now.

        Args:
            in_use: The lines of the connection, those of other streams too.
            now_s: The time.
        """
        held = self.held
        others = max(0, in_use - len(held))
        denied = {c for c, denial in self.denials(now_s).items() if not denial.delayed}
        return allocate_lines(
            (demand for conid, demand in self.wanted.items() if conid not in denied),
            held,
            limit=self.limit.lines - others,
            reserve=self.limit.reserve,
            now=now_s,
            min_hold_s=self.min_hold_s,
        )

    def denials(self, now_s: float) -> dict[int, Denial]:
        """Return the contracts that may not have live data now, each with the reason."""
        waiting = self._waiting_for_trial(now_s)
        return {
            conid: line.denial
            for conid, line in self._lines.items()
            if line.denial is not None and (line.denied(now_s) is not None or conid in waiting)
        }

    def share_refusals(self) -> None:
        """Set the same wait for every contract that was refused for a cause of the login."""
        refused = self._refused_by_login()
        if not refused:
            return
        latest = max(refused.values(), key=lambda denial: denial.until_s)
        for conid, denial in refused.items():
            self._lines[conid].denial = replace(denial, until_s=latest.until_s, times=latest.times)

    def _refused_by_login(self) -> dict[int, Denial]:
        """Return the refusals of wanted contracts for a cause of the login, by conid."""
        return {
            conid: line.denial
            for conid, line in self._lines.items()
            if conid in self.wanted and line.denial and line.denial.of_login and not line.live
        }

    def _waiting_for_trial(self, now_s: float) -> set[int]:
        """Return the contracts that wait for a trial of another one, after a refusal of the login.

        The trial counts as granted when it has sent a price, or was not refused for the time in
        which a line has to tick.
        """
        refused = self._refused_by_login()
        if not refused:
            return set()
        since_s = max(denial.until_s for denial in refused.values())
        trials = [
            line
            for line in self._lines.values()
            if line.live and line.denial is not None and line.denial.of_login
            if line.held_since_s is not None and line.held_since_s >= since_s
        ]
        if any(t.trusted or now_s >= (t.held_since_s or 0.0) + self.silence_s for t in trials):
            return set()
        if not trials and now_s >= since_s:
            held = self.held
            del refused[min(refused, key=lambda conid: rank(self.wanted[conid], held))]
        return set(refused)

    def due_for_live(self, now_s: float) -> list[int]:
        """Return the lines with delayed data for which live data may be requested again."""
        delayed = [conid for conid, line in self._lines.items() if line.held and line.delayed]
        denials = self.denials(now_s) if delayed else {}
        return sorted(conid for conid in delayed if conid not in denials)

    def interrupted(self, at: datetime, now_s: float, reason: str) -> None:
        """Record that a farm broke or that connectivity was lost.

        Args:
            at: The moment; what came before it does not count any more.
            now_s: The same in seconds.
            reason: The cause, for people.
        """
        self._pace.interrupted()
        for line in self._held_lines():
            line.interrupted(at, now_s, reason)

    def restored(self, now_s: float) -> None:
        """Record that the data of all lines should flow again."""
        self._pace.interrupted()
        for line in self._held_lines():
            line.restored(now_s)

    def ticked(self, quotes: Mapping[int, Quote | None], now: datetime, now_s: float) -> None:
        """Record which lines ticked since the last call, and that time passed.

        A line is probed when none ticks. If it had moved, every line is suspect. Only lines whose
        session is open are probed: the quote of another one stands still anyway.

        Args:
            quotes: conid → quote of the lines that ticked.
            now: The moment.
            now_s: The same in seconds.
        """
        for line in self._lines.values():
            line.since = min(line.since, now)  # a later one is from before the clock was set back
        priced = [
            conid
            for conid, its_quote in quotes.items()
            if its_quote is not None
            and conid in self._lines
            and self._lines[conid].heard(its_quote, now)
        ]
        self._pace.answered(priced)
        self._look_for_silence(quotes, priced, now_s)
        for conid, line in self._lines.items():
            if line.is_awaited:
                line.elapsed(now_s, session_open=self.session_open(conid))

    def take_due_for_renewal(self, now_s: float) -> list[int]:
        """Return the lines to request again now, a few at once; they count as requested then.

        A probed line, and a line that the broker's value contradicts, are requested once in any
        case; the others are requested at a pace that depends on the answers.
        """
        due = [
            conid
            for conid, line in self._lines.items()
            if line.suspect
            and line.is_due_for_renewal(now_s, session_open=self.session_open(conid))
        ]
        due.sort(key=lambda conid: self._lines[conid].renew_at_s)
        sure = [conid for conid in due if self._is_sure(conid)][:RENEWALS_AT_ONCE]
        allowed = min(self._pace.allowed(now_s), RENEWALS_AT_ONCE - len(sure))
        paced = [conid for conid in due if not self._is_sure(conid)][:allowed]
        self._pace.requested(paced, now_s)
        for conid in sure + paced:
            self._lines[conid].renewed(now_s)
        return sure + paced

    def _is_sure(self, conid: int) -> bool:
        line = self._lines[conid]
        probed = self._probe is not None and conid == self._probe.conid
        return probed or (line.disagreed and not line.renewals)

    def problems(self) -> list[str]:
        """Return which lines are suspect and why, a few of them by name."""
        suspect = sorted(conid for conid, line in self._lines.items() if line.suspect)
        reasons = grouped(lambda conid: self._lines[conid].reason or "", suspect)
        return [
            f"requested again: {few(conids, NAMED)}: {reason}" for reason, conids in reasons.items()
        ]

    def _begin_anew(self) -> None:
        self._login = SilentLogin(silence_s=2 * self.silence_s)
        self._probe: Probe | None = None
        self._pace = RenewalPace()

    def _held_lines(self) -> list[Line]:
        return [line for line in self._lines.values() if line.held]

    def _look_for_silence(
        self, quotes: Mapping[int, Quote | None], priced: Sequence[int], now_s: float
    ) -> None:
        probe = self._probe
        found = None if probe is None else missed(probe.before, quotes.get(probe.conid))
        if probe is not None and (found is not None or now_s >= probe.judge_at_s):
            self._probe = None
            if found is not False and self._lines[probe.conid].held:
                opened = set() if found is None else {probe.conid}
                self._pace.interrupted()
                for conid in self._lines.keys() - opened - set(priced):
                    self._lines[conid].doubted(now_s, LOGIN_SILENT)
        self._login.heard(sum(probe is None or conid != probe.conid for conid in priced), now_s)
        if self._login.is_due(now_s) and self._probe is None:
            self._probe_one(now_s)

    def _probe_one(self, now_s: float) -> None:
        """Request the line that ticked last again, of those that trade now.

        It is trusted, and was not requested again lately.
        """
        if not any(line.held and self.session_open(c) for c, line in self._lines.items()):
            self._login.rested(now_s)
            return
        trusted = [
            conid
            for conid, line in reversed(self._lines.items())
            if line.trusted and now_s >= line.renew_at_s and self.session_open(conid)
        ]
        if trusted:
            conid = max(trusted, key=lambda conid: self._lines[conid].priced_at)
            line = self._lines[conid]
            line.doubted(now_s, LOGIN_SILENT)
            self._login.probed(now_s)
            judge_at_s = now_s + max(self.silence_s, PROBE_S)
            self._probe = Probe(conid, line.quote or Quote(conid=conid), judge_at_s)
