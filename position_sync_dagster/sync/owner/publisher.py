"""What the owner of a login writes besides streamed rows: the broker's word, and the queue."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.request import (
    ACTIVE_PRIORITY,
    MONITORING_PRIORITY,
    QueueRequest,
    Reason,
)
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.queue.table import PositionQueue
from position_sync_dagster.lake.updates.table import PositionUpdatesTable
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.metrics import StreamMetrics

CLOSED_KEPT = timedelta(days=2)
"""A closed holding is announced this long; its zero row has long been written."""

QUEUED = frozenset({LegState.OVERFLOW, LegState.MONITORED})


class Publisher:
    """Write `broker_positions`, and enqueue what is not streamed."""

    def __init__(
        self,
        queue: PositionQueue | None,
        broker_positions: BrokerPositionsTable | None,
        updates: PositionUpdatesTable | None = None,
        *,
        settings: Settings,
        metrics: StreamMetrics,
        clock: Clock = utc_now,
    ) -> None:
        self._queue = queue
        self._positions = broker_positions
        self._updates = updates
        self._settings = settings
        self._clock = clock
        self._announced: dict[Key, tuple[float, bool]] = {}
        self._unwritten_closes: set[Key] = set()
        self.metrics = metrics

    async def initialize(self) -> None:
        """Create the tables where they are missing."""
        if self._queue is not None:
            await self._queue.initialize()
        if self._positions is not None:
            await self._positions.initialize()

    async def last_known(self) -> list[BrokerPosition]:
        """Give what the last owner knew, so that what closed meanwhile gets its zero row."""
        if self._positions is None:
            return []
        rows = await self._positions.read(self._settings.gateway_id)
        recent = self._recent(rows)
        closed = await self._closed_rows()
        self._announced = {
            row.key: _fingerprint(row) for row in recent if row.position or row.key in closed
        }
        self._unwritten_closes = {row.key for row in recent} - self._announced.keys()
        return recent

    async def _closed_rows(self) -> set[Key]:
        """Give the holdings of which the newest row says that they are closed.

        `broker_positions` is written before the rows: a process that died in between still owes
        the zero row of a close.
        """
        if self._updates is None:
            return set()
        rows = await self._updates.latest_since(self._clock() - CLOSED_KEPT)
        zero = rows.filter(rows["position"] == 0)
        return set(zip(zero["account"], zero["conid"], strict=True))

    async def publish(self, feed: AccountFeed, *, session: GatewaySession | None) -> None:
        """Replace what the tables say of this gateway by what it says now; one commit."""
        if self._positions is not None:
            rows = self._recent(feed.holdings)
            await self._positions.replace(self._settings.gateway_id, rows, session=session)

    async def enqueue_all(
        self, feed: AccountFeed, routes: Mapping[Key, LegState], reason: Reason = Reason.SNAPSHOT
    ) -> int:
        """Queue every holding that is not streamed, and what closed unseen."""
        keys = [key for key, state in routes.items() if state in QUEUED]
        keys += self._closed_unseen(feed, routes)
        return await self._enqueue(feed, routes, keys, reason)

    async def enqueue_changed(
        self, feed: AccountFeed, routes: Mapping[Key, LegState], changed: Iterable[Key]
    ) -> int:
        """Queue the holdings of which the position or the knowledge of its value changed."""
        keys = []
        for key in changed:
            holding = feed.get(key)
            if holding is None or routes.get(key) is LegState.STREAMED or key not in routes:
                continue
            if self._announced.get(key) != _fingerprint(holding):
                keys.append(key)
        return await self._enqueue(feed, routes, keys, Reason.CHANGED)

    async def enqueue(
        self, feed: AccountFeed, routes: Mapping[Key, LegState], keys: Iterable[Key]
    ) -> int:
        """Queue the holdings that lost their line."""
        return await self._enqueue(feed, routes, list(keys), Reason.CHANGED)

    def knows_closed(self, update: PositionUpdate) -> bool:
        """Tell whether an update says that a holding closed which has its zero row, or request."""
        announced = self._announced.get((update.account, update.conid))
        return update.position == 0 and announced is not None and announced[0] == 0

    def written(self, feed: AccountFeed, updates: Iterable[PositionUpdate]) -> None:
        """Note that the stream wrote rows of these holdings: they need no request for that."""
        for update in updates:
            holding = feed.get((update.account, update.conid))
            if holding is not None:
                self._announced[holding.key] = _fingerprint(holding)

    def _closed_unseen(self, feed: AccountFeed, routes: Mapping[Key, LegState]) -> list[Key]:
        return [
            holding.key
            for holding in feed.holdings
            if holding.position == 0
            and holding.key in routes
            and (
                holding.key in self._unwritten_closes
                or self._announced.get(holding.key, (0.0, True))[0] != 0
            )
        ]

    async def _enqueue(
        self,
        feed: AccountFeed,
        routes: Mapping[Key, LegState],
        keys: list[Key],
        reason: Reason,
    ) -> int:
        if self._queue is None or not keys:
            return 0
        requests, announced = [], {}
        for key in keys:
            holding = feed.get(key)
            if holding is None:
                continue
            overflow = routes.get(key) is LegState.OVERFLOW
            requests.append(
                QueueRequest(
                    conid=key[1],
                    symbol=holding.instrument.symbol or str(key[1]),
                    priority=ACTIVE_PRIORITY if overflow else MONITORING_PRIORITY,
                    account=key[0],
                    reason=Reason.OVERFLOW if overflow else reason,
                )
            )
            announced[key] = _fingerprint(holding)
        await self._queue.insert_many(requests)
        self._announced.update(announced)
        self._unwritten_closes -= announced.keys()
        self.metrics.queued(len(requests), (await self._queue.overview()).version)
        return len(requests)

    def _recent(self, rows: Iterable[BrokerPosition]) -> list[BrokerPosition]:
        """Leave out what closed long ago."""
        since = self._clock() - CLOSED_KEPT
        return [row for row in rows if row.position or row.position_time >= since]


def _fingerprint(holding: BrokerPosition) -> tuple[float, bool]:
    """Give what is worth a new row at once: the quantity, and whether its value is known."""
    return (holding.position, holding.position == 0 or holding.market_value is not None)
