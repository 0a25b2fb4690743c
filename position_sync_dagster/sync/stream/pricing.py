"""The valuation of streamed holdings: events in, rows out, once per flush."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.pricing.line_trust import LineTrust
from position_sync_dagster.domain.pricing.quote import Quote
from position_sync_dagster.domain.pricing.streamed_holding import StreamedHolding, StreamRules
from position_sync_dagster.domain.pricing.valuation import Provenance
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.contract_cache import ContractCache
from position_sync_dagster.sync.stream.delivery import PendingUpdate

logger = logging.getLogger(__name__)

RENEWALS_AT_ONCE = 10
"""So many suspect lines are requested again in one step: each takes two of the 50 messages that a
gateway takes in a second, and account requests need some of them too."""

NAMED = 3
"""So many suspect lines are named in the session's detail and in the log."""


class StreamPricer:
    """Passes events to the streamed holdings, and collects the rows that are due.

    Each holding has one state (`domain.streamed_holding`), and each line one trust
    (`domain.line_trust`), which its holdings share.

    Args:
        contracts: The price magnifiers.
        monotonic: The clock of every interval, in seconds.
    """

    def __init__(
        self,
        contracts: ContractCache,
        *,
        settings: Settings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._contracts = contracts
        self._monotonic = monotonic
        self._rules = StreamRules(
            max_last_age=timedelta(seconds=settings.max_last_age_s),
            band=settings.value_band,
            heartbeat_s=settings.row_interval_s,
            silence_s=settings.line_silence_s,
        )
        self._lines: dict[int, LineTrust] = {}
        self._holdings: dict[Key, StreamedHolding] = {}
        self._by_conid: dict[int, list[StreamedHolding]] = {}
        self._routes: Mapping[Key, LegState] | None = None
        self._interrupted_at = datetime.min.replace(tzinfo=UTC)
        self._suspects = OutageLog(logger)

    def reset(self) -> None:
        """Forget every holding and line: a snapshot of the positions comes next."""
        self._lines, self._holdings, self._by_conid = {}, {}, {}

    def mark_due(self, keys: Iterable[Key]) -> None:
        """Value these holdings at the next flush, with or without a tick."""
        for key in keys:
            self._holding(key).due = True

    def is_due(self, key: Key) -> bool:
        """Return whether the holding is to be valued at the next flush."""
        holding = self._holdings.get(key)
        return holding is not None and holding.due

    def add(self, keys: Iterable[Key]) -> None:
        """Value these holdings by their lines from now on.

        A new line has a moment to tick before the first row; one that ticks already has none.
        """
        now_s = self._monotonic()
        for key in keys:
            is_new = key[1] not in self._lines
            holding = self._holding(key)
            if is_new or not holding.line.trusted:
                holding.line.requested(now_s)
                holding.check_by(holding.line.withheld_until_s)
            else:
                holding.due = True

    def interrupt(self, at: datetime, reason: str) -> None:
        """Ignore every quote whose newest tick came before `at`, until its next tick."""
        self._interrupted_at = at
        now_s = self._monotonic()
        for line in self._lines.values():
            line.interrupted(now_s, reason)
        for holding in self._holdings.values():
            holding.check_by(holding.line.withheld_until_s)

    def restored(self) -> None:
        """Expect a tick of every line soon: the gateway reports that data flow again."""
        now_s = self._monotonic()
        for line in self._lines.values():
            line.restored(now_s)

    def due_for_renewal(self, now: datetime) -> list[int]:
        """Return the conids whose lines are to be requested again now, a few at once.

        They count as requested from then on. A line that is only silent waits for its session.
        """
        now_s = self._monotonic()
        due = [
            conid
            for conid, line in self._lines.items()
            if line.suspect
            and line.is_due_for_renewal(
                now_s, session_open=self._contracts.session_open(conid, now)
            )
        ]
        due = sorted(due, key=lambda c: self._lines[c].renew_at_s)[:RENEWALS_AT_ONCE]
        for conid in due:
            self._lines[conid].renewed(now_s)
        return due

    def problems(self) -> list[str]:
        """Return what is wrong with which lines, for the session's detail."""
        reasons: dict[str, list[int]] = {}
        for conid in sorted(c for c, line in self._lines.items() if line.suspect):
            reasons.setdefault(self._lines[conid].reason or "", []).append(conid)
        return [f"{_named(conids)}: {reason}" for reason, conids in reasons.items()]

    def flush(
        self,
        connection: GatewayConnection,
        ticked: Mapping[int, float],
        routes: Mapping[Key, LegState],
        *,
        valued: Iterable[Key] = (),
        now: datetime,
        provenance: Provenance,
    ) -> list[PendingUpdate]:
        """Value the holdings that are due, and return the rows worth writing.

        A holding whose account has not been downloaded yet waits: its price factor is checked
        against its portfolio row before its first row is written.

        Args:
            ticked: conid → arrival of its first tick since the last flush, in Unix seconds.
            valued: Holdings with a new profit or value by PnLSingle.
        """
        now_s = self._monotonic()
        if routes is not self._routes:
            self._follow(routes)
        quotes = {conid: connection.lines.quote(conid) for conid in ticked}
        self._take_ticks(ticked, quotes, now)
        for key in valued:
            if (state := self._holdings.get(key)) is not None:
                state.due = True
        self._pass_time(now_s, now)
        updates = []
        for key, state in list(self._holdings.items()):
            if not (state.due or state.check_at_s <= now_s):
                continue
            holding = connection.feed.get(key)
            if holding is not None and key[0] not in connection.feed.downloaded:
                continue
            if holding is not None:
                conid, arrived = key[1], state.arrived
                if conid not in quotes:
                    quotes[conid] = connection.lines.quote(conid)
                update = state.row(
                    holding,
                    quotes[conid],
                    price_magnifier=self._contracts.magnifier(conid),
                    now=now,
                    now_s=now_s,
                    rules=self._rules,
                    by=provenance,
                )
                if update is not None:
                    updates.append(PendingUpdate(update=update, arrived=arrived))
            if holding is None or (routes.get(key) is not LegState.STREAMED and not state.due):
                self._drop(state)
        self._log_suspects()
        return updates

    def _holding(self, key: Key) -> StreamedHolding:
        state = self._holdings.get(key)
        if state is None:
            conid = key[1]
            line = self._lines.get(conid)
            if line is None:
                line = self._lines[conid] = LineTrust(silence_s=self._rules.silence_s)
            state = self._holdings[key] = StreamedHolding(key=key, line=line)
            self._by_conid.setdefault(conid, []).append(state)
        return state

    def _drop(self, state: StreamedHolding) -> None:
        conid = state.key[1]
        del self._holdings[state.key]
        self._by_conid[conid].remove(state)
        if not self._by_conid[conid]:
            del self._by_conid[conid], self._lines[conid]

    def _follow(self, routes: Mapping[Key, LegState]) -> None:
        """Drop the holdings that are not streamed any more, unless a row of theirs is due."""
        self._routes = routes
        for key, state in list(self._holdings.items()):
            if routes.get(key) is not LegState.STREAMED and not state.due:
                self._drop(state)

    def _take_ticks(
        self, ticked: Mapping[int, float], quotes: Mapping[int, Quote | None], now: datetime
    ) -> None:
        # A time ahead of the clock is from before the clock was set back.
        self._interrupted_at = min(self._interrupted_at, now)
        for conid, arrived in ticked.items():
            states, quote = self._by_conid.get(conid), quotes[conid]
            if states is None:
                continue
            if quote is not None and _came_between(self._interrupted_at, quote, now):
                states[0].line.ticked()
            for state in states:
                state.ticked(arrived)

    def _pass_time(self, now_s: float, now: datetime) -> None:
        overdue = [c for c, line in self._lines.items() if now_s >= line.overdue_at_s]
        suspects = [
            conid
            for conid in overdue
            if self._lines[conid].elapsed(
                now_s, session_open=self._contracts.session_open(conid, now)
            )
        ]
        for conid in suspects:
            for state in self._by_conid[conid]:
                state.check_by(self._lines[conid].withheld_until_s)

    def _log_suspects(self) -> None:
        """Log once per outage that lines are requested again."""
        if not any(line.suspect for line in self._lines.values()):
            self._suspects.clear()
            return
        reasons = {line.reason or "" for line in self._lines.values() if line.suspect}
        text = "; ".join(self.problems())
        self._suspects.report("; ".join(sorted(reasons)), text=text, level=logging.WARNING)


def _came_between(interrupted_at: datetime, quote: Quote, now: datetime) -> bool:
    return quote.received_at is not None and interrupted_at < quote.received_at <= now


def _named(conids: list[int]) -> str:
    names = ", ".join(map(str, conids[:NAMED]))
    more = f" and {len(conids) - NAMED} more" if len(conids) > NAMED else ""
    return f"requested again: {names}{more}"
