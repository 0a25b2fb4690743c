"""Values by PnLSingle, without a line: of legs in OVERFLOW, and beside the lines of the others."""

from collections.abc import Awaitable, Callable, Mapping

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.publisher import Publisher

PNL_PUBLISH_S = 2.0
"""Values of legs without a line are published at most this often, in seconds."""


NEW_AT_ONCE = 20
"""So many streamed holdings are subscribed in one step: the gateway takes 50 messages a second, and
market data come first."""


class OverflowLegs:
    """Keeps the values of legs without a line about a second old, and queues the legs often.

    Streamed holdings are subscribed too, up to a bound: that gives their daily profit, and a second
    opinion by which a dead line is found.
    """

    def __init__(
        self, publisher: Publisher, *, settings: Settings, monotonic: Callable[[], float]
    ) -> None:
        self._publisher = publisher
        self._interval_s = settings.overflow_interval_s
        self._monotonic = monotonic
        self._max_streamed = settings.pnl_subscriptions
        self._streamed: set[Key] = set()
        self._publish_at = self._queue_at = 0.0

    async def step(
        self,
        connection: GatewayConnection,
        routes: Mapping[Key, LegState],
        publish: Callable[[], Awaitable[None]],
        *,
        may_queue: bool,
    ) -> None:
        """Subscribe to the values of the legs; publish and queue the legs when that is due.

        Args:
            publish: Writes `broker_positions`.
            may_queue: False while a download will queue every holding anyway.
        """
        legs = {key for key, state in routes.items() if state is LegState.OVERFLOW}
        self._choose_streamed(connection, routes)
        connection.pnl.keep(self, legs | self._streamed)
        now = self._monotonic()
        if legs and now >= self._publish_at and connection.pnl.take_fresh():
            self._publish_at = now + PNL_PUBLISH_S
            await publish()
        if legs and may_queue and now >= self._queue_at:
            self._queue_at = now + self._interval_s
            await self._publisher.enqueue(routes, legs)

    def _choose_streamed(
        self, connection: GatewayConnection, routes: Mapping[Key, LegState]
    ) -> None:
        """Keep the streamed holdings that are subscribed, and add the next few."""
        streamed = {key for key, state in routes.items() if state is LegState.STREAMED}
        kept = sorted(streamed & connection.pnl.keys)
        self._streamed = set(kept[: self._max_streamed])
        room = min(NEW_AT_ONCE, self._max_streamed - len(self._streamed))
        self._streamed.update(sorted(streamed - self._streamed)[:room])

    def release(self, connection: GatewayConnection) -> None:
        """End the subscriptions that only this stream needs."""
        connection.pnl.release(self)
