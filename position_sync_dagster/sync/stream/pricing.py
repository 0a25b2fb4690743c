"""The valuation of streamed holdings: events in, rows out, once per flush."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.line import LoginLines
from position_sync_dagster.domain.streamed_holding import StreamedHolding, StreamRules
from position_sync_dagster.domain.valuation import Provenance, Quote
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.contract_cache import ContractCache
from position_sync_dagster.sync.stream.delivery import PendingUpdate

logger = logging.getLogger(__name__)

ENDED = "the gateway ended the line"
"""Why the broker's value is used: the column `note`."""


class StreamPricer:
    """Passes events to the streamed holdings, and collects the rows that are due.

    Each holding has one state (`domain.streamed_holding`), and each line one
    trust (`domain.line`), which its holdings share.

    Args:
        contracts: The price magnifiers and trading hours.
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
        self._lines = LoginLines(
            silence_s=settings.line_silence_s, session_open=contracts.session_open
        )
        self._holdings: dict[Key, StreamedHolding] = {}
        self._by_conid: dict[int, list[StreamedHolding]] = {}
        self._routes: Mapping[Key, LegState] | None = None
        self._interrupted_at = datetime.min.replace(tzinfo=UTC)
        self._suspects = OutageLog(logger)

    def reset(self) -> None:
        """Forget every holding and line: a snapshot of the positions comes next."""
        self._lines.clear()
        self._holdings, self._by_conid = {}, {}

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

    def refuse(self, conid: int, reason: str) -> None:
        """Ignore what a line said: the gateway refused or ended it."""
        if conid in self._lines:
            self._lines.trust(conid).ended(self._monotonic(), f"{ENDED}: {reason}")
            self._check_when_withheld([conid])

    def interrupt(self, at: datetime, reason: str) -> None:
        """Ignore every quote whose newest tick came before `at`, until its next tick."""
        self._interrupted_at = at
        self._lines.interrupted(self._monotonic(), reason)
        self._check_when_withheld(self._by_conid)

    def restored(self) -> None:
        """Expect a tick of every line soon: the gateway reports that data flow again."""
        self._lines.restored(self._monotonic())

    def due_for_renewal(self) -> list[int]:
        """Return the conids whose lines are to be requested again now; they count as requested."""
        return self._lines.take_due_for_renewal(self._monotonic())

    def problems(self) -> list[str]:
        """Return what is wrong with which lines, for the session's detail."""
        return self._lines.problems()

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
        against its portfolio row before its first row is written. So does one whose account is in
        doubt.

        Args:
            ticked: conid → arrival of its first tick since the last flush, in Unix seconds.
            valued: Holdings with a new profit or value by PnLSingle.
        """
        now_s = self._monotonic()
        if routes is not self._routes:
            self._follow(routes, now_s)
        quotes = {conid: connection.lines.quote(conid) for conid in ticked}
        self._take_ticks(ticked, quotes, now)
        self._check_when_withheld(self._lines.watch(quotes, connection.lines.quote, now_s))
        for key in valued:
            if (state := self._holdings.get(key)) is not None:
                state.due = True
        self._check_when_withheld(self._lines.elapsed(now_s))
        updates = []
        for key, state in list(self._holdings.items()):
            if not (state.due or state.check_at_s <= now_s):
                continue
            holding = connection.feed.get(key)
            if holding is not None and not connection.feed.is_known(holding):
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
            line = self._lines.trust(key[1])
            state = self._holdings[key] = StreamedHolding(key=key, line=line)
            self._by_conid.setdefault(key[1], []).append(state)
        return state

    def _drop(self, state: StreamedHolding) -> None:
        conid = state.key[1]
        del self._holdings[state.key]
        self._by_conid[conid].remove(state)
        if not self._by_conid[conid]:
            del self._by_conid[conid]
            self._lines.drop(conid)

    def _follow(self, routes: Mapping[Key, LegState], now_s: float) -> None:
        """Drop the holdings that are not streamed any more, unless a row of theirs is due.

        Without a line they are queued. A line that was refused and that the new routes have was
        requested anew.
        """
        self._routes = routes
        for key, state in list(self._holdings.items()):
            route = routes.get(key)
            queued = state.line.refused and route is not LegState.CLOSED
            if route is not LegState.STREAMED and (queued or not state.due):
                self._drop(state)
            elif state.line.refused:
                state.line.requested(now_s)
                state.check_by(state.line.withheld_until_s)

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

    def _check_when_withheld(self, conids: Iterable[int]) -> None:
        for conid in conids:
            for state in self._by_conid[conid]:
                state.check_by(state.line.withheld_until_s)

    def _log_suspects(self) -> None:
        """Log once per outage that lines are requested again."""
        reasons = self._lines.suspect_reasons()
        if not reasons:
            self._suspects.clear()
            return
        text = "; ".join(self.problems())
        self._suspects.report("; ".join(reasons), text=text, level=logging.WARNING)


def _came_between(interrupted_at: datetime, quote: Quote, now: datetime) -> bool:
    return quote.received_at is not None and interrupted_at < quote.received_at <= now
