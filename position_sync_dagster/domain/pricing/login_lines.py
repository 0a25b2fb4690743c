"""The lines of one login: how far each is trusted, and which are requested again; pure."""

from collections.abc import Callable, Iterable, Mapping

from position_sync_dagster.domain.pricing.line_trust import LineTrust
from position_sync_dagster.domain.pricing.quote import Quote
from position_sync_dagster.domain.pricing.silent_login import SilentLogin, missed

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
