"""The holdings that are followed by PnLSingle, which takes no line."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.clock import rest_s
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.line_allocation import largest
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.sync.stream.ownership import OwnerContext
from position_sync_dagster.sync.stream.publisher import Publisher
from position_sync_dagster.sync.stream.routes import Routes

PUBLISH_S, PUBLISH_MANY_S = 4.0, 6.0
"""Minimum seconds between two publications of the values of PnLSingle: for up to `MANY` holdings,
and for more. The time is at least the flush interval; slow commits make it longer."""

MANY = 1000

MOVED_S = 60.0
"""Minimum seconds between two times at which monitored holdings whose values moved are queued: each
time, a drain follows. Readers see the published values in the meantime."""

CHOOSE_S = 60.0
"""Seconds after which the holdings to follow are chosen again by their values."""

MAX_STREAMED = 250
"""Maximum number of streamed holdings that are followed."""


@dataclass(eq=False, repr=False)
class FollowedHoldings:
    """Follows holdings by PnLSingle, publishes their values, and queues those that are due.

    Legs without a line come first: they are queued at each interval. Streamed holdings come next,
    for their daily profit and a second value that shows a dead line. Last come the monitored
    holdings with the largest values: they are queued when their value moved.
    """

    context: OwnerContext
    publisher: Publisher

    def __post_init__(self) -> None:
        self._interval_s = self.context.settings.overflow_interval_s
        self._max_monitored = self.context.settings.pnl_subscriptions
        self._publish_at = self._queue_at = self._moved_at = self._choose_at = float("-inf")
        self._chosen_as_of: int | None = None
        self._monitored: list[Key] = []

    async def step(
        self,
        connection: GatewayConnection,
        routes: Routes,
        publish: Callable[[], Awaitable[None]],
        *,
        may_queue: bool,
    ) -> None:
        """Subscribe to the values of holdings; publish and queue them when that is due.

        Args:
            publish: Writes `broker_positions`.
            may_queue: False while a download runs, which may queue every holding anyway. Until
                the first one has ended, no monitored holding is followed: their values are unknown.
        """
        legs, now = routes.overflow, self.context.monotonic()
        self._choose(connection, routes, now, values_known=may_queue)
        connection.pnl.step()
        queue_now = bool(legs) and may_queue and now >= self._queue_at
        read = self._monitored or self.publisher.greeks_moved
        if queue_now or ((legs or read) and now >= self._publish_at):
            wanted = queue_now or read or await self.publisher.requests_wait()
            if wanted and (connection.pnl.take_fresh() or self.publisher.greeks_moved):
                await publish()
            ended = self.context.monotonic()
            many = len(legs) + len(self._monitored) > MANY
            pause_s = PUBLISH_MANY_S if many else PUBLISH_S
            pause_s = max(pause_s, self.context.settings.flush_interval_s)
            self._publish_at = max(now + pause_s, ended + rest_s(ended - now))
        if queue_now:
            await self.publisher.enqueue(routes.states, legs)
            self._queue_at = now + self._interval_s
        if may_queue and now >= self._moved_at and self.publisher.moved:
            await self.publisher.enqueue_moved(routes.states)
            self._moved_at = now + MOVED_S

    def _choose(
        self, connection: GatewayConnection, routes: Routes, now: float, *, values_known: bool
    ) -> None:
        """Choose the holdings to follow, when routes changed or values may have."""
        due = values_known and now >= self._choose_at
        if routes.version == self._chosen_as_of and not due:
            return
        self._chosen_as_of = routes.version
        if due:
            self._choose_at = now + CHOOSE_S
        monitored = [key for key, state in routes.states.items() if state is LegState.MONITORED]
        if values_known:
            connection.pnl.read()
            values = connection.feed.book.values(monitored)
            self._monitored = largest(values, connection.pnl.keys, self._max_monitored)
        else:
            still = set(monitored)
            self._monitored = [key for key in self._monitored if key in still]
        streamed = sorted(routes.streamed)[:MAX_STREAMED]
        connection.pnl.keep(self, [*sorted(routes.overflow), *streamed, *self._monitored])

    def release(self, connection: GatewayConnection) -> None:
        """End the subscriptions that only this stream needs."""
        connection.pnl.release(self)
        self._chosen_as_of, self._monitored = None, []
