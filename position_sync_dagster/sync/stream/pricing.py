"""The valuation of streamed holdings: which are due for a new row, and their rows."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.valuation import Provenance, factor_agrees, revalue
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.contract_cache import ContractCache
from position_sync_dagster.sync.stream.delivery import PendingUpdate

FIRST_TICK_GRACE_S = 5.0
"""A leg whose new line has not ticked for this long is valued by its portfolio row."""


class StreamPricer:
    """Collects the holdings that ticked or changed, and values them once per flush.

    A gateway sends a tick only when something changes. So the quote of a quiet option is as good
    after minutes as at first, as long as its data flow. A quote does not count, and the portfolio
    value of the broker is used instead,

    - if `invalidate_quotes` was called after its newest tick: its farm broke, or the stream was
      BLIND;
    - if no line at all has ticked for `max_mark_age_s`: nothing shows that data flow (the market
      is closed, or a farm broke without a message);
    - if its newest tick is ahead of the clock: the clock was set back since then.

    The next tick makes it count again.
    """

    def __init__(self, contracts: ContractCache, *, settings: Settings) -> None:
        self._contracts = contracts
        self._max_mark_age = timedelta(seconds=settings.max_mark_age_s)
        self._due: dict[Key, float | None] = {}
        self._awaiting_tick: dict[Key, datetime] = {}
        self._invalidated_at = self._ticked_at = datetime.min.replace(tzinfo=UTC)

    def reset(self) -> None:
        """Forget what is due: a snapshot of the positions comes next."""
        self._due, self._awaiting_tick = {}, {}

    def mark_due(self, keys: Iterable[Key]) -> None:
        """Value these holdings at the next flush, with or without a tick."""
        for key in keys:
            self._due.setdefault(key, None)

    def is_due(self, key: Key) -> bool:
        """Return whether the holding is to be valued at the next flush."""
        return key in self._due

    def invalidate_quotes(self, at: datetime) -> None:
        """Ignore every quote whose newest tick came before `at`, until its next tick."""
        self._invalidated_at = at

    def await_tick(self, keys: Iterable[Key], *, since: datetime) -> None:
        """Wait for the first tick of these holdings' new lines, for a moment, before a row."""
        for key in keys:
            self._awaiting_tick[key] = since

    def flush(
        self,
        connection: GatewayConnection,
        ticked: Mapping[int, float],
        routes: Mapping[Key, LegState],
        *,
        now: datetime,
        provenance: Provenance,
    ) -> list[PendingUpdate]:
        """Value the holdings that are due.

        A holding whose account has not been downloaded yet waits: its price factor is checked
        against its portfolio row before its first row is written.

        Args:
            ticked: conid → arrival of its first tick since the last flush, in Unix seconds.
        """
        self._take_ticks(ticked, routes, now)
        quotes_since = self._quotes_since(now)
        due = {k: at for k, at in self._due.items() if k[0] in connection.feed.downloaded}
        self._due = {k: at for k, at in self._due.items() if k not in due}
        updates = []
        for key, arrived in due.items():
            holding = connection.feed.get(key)
            waits = arrived is None and key in self._awaiting_tick
            if holding is None or (waits and holding.position):
                continue
            update = revalue(
                holding,
                connection.lines.quote(key[1]),
                price_magnifier=self._magnifier(holding),
                now=now,
                max_mark_age=self._max_mark_age,
                quotes_since=quotes_since,
                by=provenance,
            )
            updates.append(PendingUpdate(update=update, arrived=arrived))
        return updates

    def _take_ticks(
        self, ticked: Mapping[int, float], routes: Mapping[Key, LegState], now: datetime
    ) -> None:
        # A time ahead of the clock is from before the clock was set back.
        self._invalidated_at = min(self._invalidated_at, now)
        self._ticked_at = now if ticked else min(self._ticked_at, now)
        self._awaiting_tick = {
            k: min(at, now) for k, at in self._awaiting_tick.items() if k in routes
        }
        for key, state in routes.items():
            arrived = ticked.get(key[1])
            if arrived is not None and state is LegState.STREAMED:
                self._due[key] = arrived
                self._awaiting_tick.pop(key, None)
        for key, since in list(self._awaiting_tick.items()):
            if now - since >= timedelta(seconds=FIRST_TICK_GRACE_S):
                self._due.setdefault(key, None)
                del self._awaiting_tick[key]

    def _quotes_since(self, now: datetime) -> datetime:
        """Return the earliest newest tick with which a quote counts."""
        oldest = now - self._max_mark_age
        if self._ticked_at >= oldest:
            return self._invalidated_at
        return max(self._invalidated_at, oldest)

    def _magnifier(self, holding: BrokerPosition) -> int | None:
        """Return the price magnifier; None if the value of the broker contradicts it."""
        magnifier = self._contracts.magnifier(holding.instrument.conid)
        if magnifier is None or factor_agrees(holding, price_magnifier=magnifier) is False:
            return None
        return magnifier
