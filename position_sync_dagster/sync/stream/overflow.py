"""Active legs without a line: their values come by PnLSingle subscriptions and by the queue."""

from collections.abc import Awaitable, Callable, Mapping

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.publisher import Publisher

PNL_PUBLISH_S = 2.0
"""Values of legs without a line are published at most this often, in seconds."""


class OverflowLegs:
    """Keeps the values of legs without a line about a second old, and queues the legs often."""

    def __init__(
        self, publisher: Publisher, *, settings: Settings, monotonic: Callable[[], float]
    ) -> None:
        self._publisher = publisher
        self._interval_s = settings.overflow_interval_s
        self._monotonic = monotonic
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
        connection.pnl.keep(self, legs)
        now = self._monotonic()
        if legs and now >= self._publish_at and connection.pnl.take_fresh():
            self._publish_at = now + PNL_PUBLISH_S
            await publish()
        if legs and may_queue and now >= self._queue_at:
            self._queue_at = now + self._interval_s
            await self._publisher.enqueue(routes, legs)

    def release(self, connection: GatewayConnection) -> None:
        """End the subscriptions that only this stream needs."""
        connection.pnl.release(self)
