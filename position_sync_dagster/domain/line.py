"""Whether what the lines of a login said last still counts, and which are requested again; pure.

It looks at each line alone, and at all of them: whether they may have died without a notice.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.domain.valuation import Quote

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


LONGEST_S = 900.0
"""A book that stays quiet is probed this often, in seconds."""

MANY_TICKS = 100
"""After so many ticks a login is a lively one again, and its next silence is probed soon."""


@dataclass(slots=True)
class SilentLogin:
    """Decides when one line of a login is requested again because none has ticked for a while.

    Market data may stop on all lines at once while the gateway reports nothing. A line that is
    requested anew opens with its present quote, also in a quiet market. So a quote that differs
    from the last one of the old request shows that ticks were missed; the same quote shows nothing
    but a quiet book, and the next probe waits twice as long.

    Attributes:
        silence_s: The first probe comes after so long a silence.

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
    _wait: Backoff = field(init=False)

    def __post_init__(self) -> None:
        """Derive the waits."""
        self._wait = Backoff(first_s=self.silence_s, longest_s=max(LONGEST_S, self.silence_s))

    def heard(self, lines: int, now_s: float) -> None:
        """Record that so many lines ticked by themselves, not in answer to a probe."""
        if lines:
            self._heard_at_s = now_s
            self._ticks += lines
            if self._ticks >= MANY_TICKS:
                self._probes = 0

    def is_due(self, now_s: float) -> bool:
        """Return whether a line should be probed now; never before the first tick."""
        return now_s >= self._heard_at_s + self._wait.delay_s(self._probes + 1)

    def rested(self, now_s: float) -> None:
        """Record that nothing could tick until now: every contract is outside its session."""
        self._heard_at_s, self._probes = now_s, 0

    def probed(self, now_s: float) -> None:
        """Record that a line is requested again; the next probe waits twice as long."""
        self._heard_at_s, self._ticks = now_s, 0
        self._probes += 1

    def found_dead(self) -> None:
        """Record that a probe showed missed ticks: the next silence is probed soon."""
        self._probes = 0


def missed(before: Quote, opened: Quote | None) -> bool | None:
    """Return whether a new request's quote differs from the last one of the old request.

    Returns:
        None while the new one lacks a price that the old one had.

    >>> missed(Quote(conid=1, bid=1.0), Quote(conid=1, bid=1.1, ask=1.2))
    True
    >>> missed(Quote(conid=1, bid=1.0, mark=1.0), Quote(conid=1, bid=1.0)) is None
    True
    """
    pairs = [
        (getattr(before, name), getattr(opened, name, None)) for name in ("bid", "ask", "mark")
    ]
    known = [(old, new) for old, new in pairs if old is not None]
    if any(new is not None and new != old for old, new in known):
        return True
    return None if opened is None or any(new is None for _, new in known) else False


RENEWALS_AT_ONCE = 10
"""So many suspect lines are requested again in one step: each takes two of the 50 messages that a
gateway takes in a second, and account requests need some of them too."""

LOGIN_SILENT = "no line of the login has ticked"

NAMED = 3
"""So many suspect lines are named in the session's detail and in the log."""


class LoginLines:
    """The trust in every line, and the probe of a login on which none ticks.

    Silence says something only while a line's contract trades. Times are seconds of one clock that
    the caller reads.

    Args:
        silence_s: A line that should tick and has not for so long is suspect.
        session_open: Whether a contract trades now, by conid; true where that is not known.

    >>> lines = LoginLines(silence_s=30.0, session_open=lambda conid: conid != 2)
    >>> for conid in (1, 2):
    ...     lines.trust(conid).requested(0.0)
    >>> lines.elapsed(31.0), lines.take_due_for_renewal(31.0)
    ([1], [1])
    """

    def __init__(self, *, silence_s: float, session_open: Callable[[int], bool]) -> None:
        self._silence_s = silence_s
        self._session_open = session_open
        self.clear()

    def __contains__(self, conid: int) -> bool:
        """Return whether the line of a contract is known."""
        return conid in self._trust

    def clear(self) -> None:
        """Forget every line."""
        self._trust: dict[int, LineTrust] = {}
        self._login = SilentLogin(silence_s=2 * self._silence_s)
        self._probe: Quote | None = None
        self._newest_tick: int | None = None

    def trust(self, conid: int) -> LineTrust:
        """Return the trust in a line, which is a new one where it is not known."""
        line = self._trust.get(conid)
        if line is None:
            line = self._trust[conid] = LineTrust(silence_s=self._silence_s)
        return line

    def drop(self, conid: int) -> None:
        """Forget a line."""
        del self._trust[conid]

    def interrupted(self, now_s: float, reason: str) -> None:
        """Record that a farm broke or that connectivity was lost."""
        for line in self._trust.values():
            line.interrupted(now_s, reason)

    def restored(self, now_s: float) -> None:
        """Record that the data of all lines should flow again."""
        for line in self._trust.values():
            line.restored(now_s)

    def elapsed(self, now_s: float) -> list[int]:
        """Record that time passed, and return the lines that became suspect."""
        return [
            conid
            for conid, line in self._trust.items()
            if line.is_awaited and line.elapsed(now_s, session_open=self._session_open(conid))
        ]

    def take_due_for_renewal(self, now_s: float) -> list[int]:
        """Return the lines to request again now, a few at once; they count as requested then."""
        due = [
            conid
            for conid, line in self._trust.items()
            if line.suspect
            and line.is_due_for_renewal(now_s, session_open=self._session_open(conid))
        ]
        due = sorted(due, key=lambda conid: self._trust[conid].renew_at_s)[:RENEWALS_AT_ONCE]
        for conid in due:
            self._trust[conid].renewed(now_s)
        return due

    def watch(
        self,
        ticked: Mapping[int, Quote | None],
        quote: Callable[[int], Quote | None],
        now_s: float,
    ) -> list[int]:
        """Probe a line when none ticks; suspect every line when the probed one had moved.

        Only a line whose session is open is probed: the quote of another one stands still anyway.

        Args:
            ticked: conid → quote of the lines that ticked since the last call.
            quote: The present quote of a line.
            now_s: The time.

        Returns:
            The lines that are suspect since now.
        """
        doubted: list[int] = []
        probe = self._probe
        if probe is not None and probe.conid in ticked:
            has_moved = missed(probe, ticked[probe.conid])
            self._probe = probe if has_moved is None else None
            if has_moved:
                self._login.found_dead()
                doubted += self._doubt(self._trust.keys() - ticked.keys(), now_s)
        others = [c for c in ticked if c in self._trust and (probe is None or c != probe.conid)]
        self._login.heard(len(others), now_s)
        self._newest_tick = others[-1] if others else self._newest_tick
        if self._login.is_due(now_s):
            doubted += self._probe_one(quote, now_s)
        return doubted

    def problems(self) -> list[str]:
        """Return which lines are suspect and why, a few of them by name."""
        reasons: dict[str, list[int]] = {}
        for conid in sorted(c for c, line in self._trust.items() if line.suspect):
            reasons.setdefault(self._trust[conid].reason or "", []).append(conid)
        return [f"{_named(conids)}: {reason}" for reason, conids in reasons.items()]

    def suspect_reasons(self) -> list[str]:
        """Return why lines are suspect, in order."""
        return sorted({line.reason or "" for line in self._trust.values() if line.suspect})

    def _probe_one(self, quote: Callable[[int], Quote | None], now_s: float) -> list[int]:
        """Doubt the line that ticked last, or another one if that does not trade now."""
        trading = [conid for conid in self._trust if self._session_open(conid)]
        if not trading:
            self._login.rested(now_s)
            return []
        chosen = self._newest_tick if self._newest_tick in trading else trading[0]
        if not self._trust[chosen].trusted:
            return []
        self._login.probed(now_s)
        self._probe = quote(chosen)
        return self._doubt([chosen], now_s)

    def _doubt(self, conids: Iterable[int], now_s: float) -> list[int]:
        trusted = [conid for conid in conids if self._trust[conid].trusted]
        for conid in trusted:
            self._trust[conid].doubted(now_s, LOGIN_SILENT)
        return trusted


def _named(conids: list[int]) -> str:
    names = ", ".join(map(str, conids[:NAMED]))
    more = f" and {len(conids) - NAMED} more" if len(conids) > NAMED else ""
    return f"requested again: {names}{more}"
