"""Whether what a market data line said last still counts, and when to request it again; pure."""

import math
from dataclasses import dataclass
from enum import StrEnum

from position_sync_dagster.domain.retry import Backoff

RENEWAL = Backoff(first_s=30.0, longest_s=900.0)
"""Time between two requests of a suspect line. A line that its new request brought back, and that
the broker's value agrees with again, starts anew."""

GRACE_S = 5.0
"""A line that was requested, or that may have been interrupted, has this long to tick before a row
says that it does not. Farms often break and return within seconds (recorded: IBC issues/143)."""


class Trust(StrEnum):
    """How far the values of a line count.

    WAITING: requested, and not ticked yet. TRUSTED: its newest values are the present ones, however
    old they are, since a gateway ticks on change. INTERRUPTED: its farm broke or connectivity was
    lost after its last tick. SUSPECT: it seems dead and is requested again. A tick makes each of
    them TRUSTED. REFUSED: the gateway ended it, and only a new request can bring it back.
    """

    WAITING = "WAITING"
    TRUSTED = "TRUSTED"
    INTERRUPTED = "INTERRUPTED"
    SUSPECT = "SUSPECT"
    REFUSED = "REFUSED"


@dataclass(slots=True)
class LineTrust:
    """The trust in one line, which all holdings of its conid share.

    Single lines may stay dead for hours after a farm notice of OK or after 1102 (nautilus_trader
    pull/3968, IBC issues/143). Times are seconds of one clock that the caller reads.

    Attributes:
        silence_s: A line that has not ticked for so long after its request, or after the data
            should flow again, is suspect.
        reason: Why the line is not trusted; None while it is, or waits for its first tick.
        withheld_until_s: Until then no row says that the line is not trusted.
        overdue_at_s: When it becomes suspect unless it ticks.
        renew_at_s: It is requested again at this time at the earliest.
        renewals: Number of times in a row that it was requested again without success.

    >>> line = LineTrust(silence_s=30.0)
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
    state: Trust = Trust.WAITING
    reason: str | None = None
    withheld_until_s: float = -math.inf
    overdue_at_s: float = math.inf
    renew_at_s: float = -math.inf
    renewals: int = 0
    disagreed: bool = False

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

    def requested(self, now_s: float) -> None:
        """Record that the line was requested for the first time, or anew after a refusal."""
        self.state, self.reason = Trust.WAITING, None
        self.withheld_until_s = now_s + GRACE_S
        self.overdue_at_s = now_s + self.silence_s

    def ticked(self) -> None:
        """Record a tick, which came after everything that was recorded before."""
        self.state, self.reason = Trust.TRUSTED, None
        self.overdue_at_s = math.inf
        if not self.disagreed:
            self.renewals = 0

    def ended(self, now_s: float, reason: str) -> None:
        """Record that the gateway refused or ended it: nothing that it said counts any more."""
        self.state, self.reason = Trust.REFUSED, reason
        self.withheld_until_s = now_s + GRACE_S
        self.overdue_at_s = math.inf

    def interrupted(self, now_s: float, reason: str) -> None:
        """Record that its farm broke or that connectivity was lost."""
        if self.refused:
            return
        self.state, self.reason = Trust.INTERRUPTED, reason
        self.withheld_until_s = now_s + GRACE_S
        self.overdue_at_s = math.inf

    def restored(self, now_s: float) -> None:
        """Record that the data should flow again (2104, 1102)."""
        if self.refused:
            return
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
        reason = "the line has not ticked since its data should flow"
        if self.trusted:
            self.doubted(now_s, reason)
        else:
            self._suspect(reason)
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
        self.disagreed = True
        self._suspect("the broker's newer value differs from that of the line")
        return True

    def agrees(self) -> None:
        """Record that a newer value of the broker is about the same."""
        self.disagreed, self.renewals = False, 0

    def is_due_for_renewal(self, now_s: float, *, session_open: bool = True) -> bool:
        """Return whether the line is to be cancelled and requested with a new id now.

        Outside the session only a line that the broker's value contradicts is.
        """
        due = self.state is Trust.SUSPECT and now_s >= self.renew_at_s
        return due and (session_open or self.disagreed)

    def renewed(self, now_s: float) -> None:
        """Record that a suspect line was requested again; its next tick makes it trusted."""
        self.renewals += 1
        self.renew_at_s = now_s + RENEWAL.delay_s(self.renewals)

    def _suspect(self, reason: str) -> None:
        self.state, self.reason = Trust.SUSPECT, reason
        self.overdue_at_s = math.inf
