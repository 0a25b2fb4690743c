"""A market data line: whether it is held, why it was denied, and how far it is trusted; pure.

Times are seconds of one monotonic clock that the caller reads, unless they are called a moment.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.domain.valuation import Quote

RENEWAL = Backoff(first_s=30.0, longest_s=900.0)
"""Time between two requests of a suspect line. A line that its new request brought back, and that
the broker's value agrees with again, starts anew. The same between two trials while no line answers
(`LoginLines.take_due_for_renewal`)."""

LONGEST_S = 900.0
"""A book that stays quiet is probed this often, in seconds."""

DIFFERS = "the broker's newer value differs from that of the line"
NOT_TICKED = "the line has not ticked since its data should flow"

GRACE_S = 5.0
"""A line that was requested, or that may have been interrupted, has this long to tick before a row
says that it does not. Farms often break and return within seconds (recorded: IBC issues/143)."""


NEVER = datetime.min.replace(tzinfo=UTC)
"""The time of what has not arrived yet."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A refusal of live data for one contract.

    Attributes:
        until_s: When live data may be requested again.
        times: Number of refusals in a row.
        delayed: Whether delayed data may be requested meanwhile.
        of_login: The refusal concerns the login and not the contract: of all contracts that were
            refused so, one is requested again, and the others follow when it is granted.
    """

    until_s: float
    reason: str
    times: int
    delayed: bool
    of_login: bool = False


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
        answered: It was requested again because of that, and has sent a price since.
        changes: How often its trust changed.
        since: What arrived until then does not count any more.
        priced_at: When its newest price arrived that counted.

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
        """Record ticks, and return whether a price was among them that counts.

        A price or size of the quote and a mark are prices. Values of the model come from another
        part of the gateway, and show nothing about the prices.

        Args:
            quote: The newest market data of the line.
            now: The time. What is ahead of it came before the clock was set back.
        """
        self._heard_at = min(quote.received_at or NEVER, now)
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
        """Return what of its newest market data counts; None if it is not held."""
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

        It has a moment to answer before a row says so.
        """
        if self.trusted:
            self.withheld_until_s = now_s + GRACE_S
            self._suspect(reason)

    def disagrees(self, now_s: float) -> bool:
        """Record that a newer value of the broker differs; return whether it became suspect.

        A line that was requested again lately is left alone: its value is a fresh one.
        """
        if not self.trusted or now_s < self.renew_at_s:
            return False
        self.disagreed, self.answered = True, False
        self._suspect(DIFFERS)
        return True

    def agrees(self) -> None:
        """Record that a newer value of the broker is about the same."""
        self.disagreed, self.answered, self.renewals = False, False, 0

    def is_due_for_renewal(self, now_s: float, *, session_open: bool = True) -> bool:
        """Return whether the line is to be cancelled and requested with a new id now.

        Outside the session only a line that the broker's value contradicts is.
        """
        due = self.suspect and now_s >= self.renew_at_s
        return due and (session_open or self.disagreed)

    def renewed(self, now_s: float) -> None:
        """Record that a suspect line was requested again; its next tick makes it trusted."""
        self.renewals += 1
        self._renewed = True
        self.renew_at_s = now_s + RENEWAL.delay_s(self.renewals)

    def deny(
        self, now_s: float, reason: str, wait: Backoff, *, delayed: bool, of_login: bool = False
    ) -> Denial:
        """Record that there is no live data, and return until when; the wait grows each time.

        A refusal long after the one before begins anew: live data were granted meanwhile.
        """
        before, times = self.denial, 0
        if before is not None and now_s - before.until_s < LONGEST_S:
            times = before.times
        if self.denied(now_s) is None:  # else delayed data were refused too
            times += 1
        self.denial = Denial(
            until_s=now_s + wait.delay_s(times),
            reason=reason,
            times=times,
            delayed=delayed,
            of_login=of_login,
        )
        return self.denial

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
