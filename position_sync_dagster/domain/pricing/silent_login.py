"""Whether every line of a login may have died without a notice, and when to probe one; pure."""

import math
from dataclasses import dataclass, field

from position_sync_dagster.domain.pricing.quote import Quote
from position_sync_dagster.domain.retry import Backoff

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
