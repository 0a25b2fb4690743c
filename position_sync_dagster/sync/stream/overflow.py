"""Values by PnLSingle, without a line: of legs in OVERFLOW, and beside the lines of the others."""

from collections.abc import Awaitable, Callable, Mapping

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.pace import VALUES_REST, rest_s
from position_sync_dagster.sync.owner.publisher import Publisher
from position_sync_dagster.sync.stream.routes import Routes

PUBLISH_S = 5.0
"""Values of legs without a line are published when the legs are queued, and at most this often, in
seconds, while requests wait for a drain, which reads them: as often as its sensor looks. Less often
where a commit is slow."""

NEW_AT_ONCE = 20
"""So many holdings are subscribed in one step: the gateway takes 50 messages a second, and
positions and market data come first."""


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
        self._look_at = self._queue_at = float("-inf")
        self._states: Mapping[Key, LegState] | None = None
        self._keys: frozenset[Key] | None = None

    async def step(
        self,
        connection: GatewayConnection,
        routes: Routes,
        publish: Callable[[], Awaitable[None]],
        *,
        may_queue: bool,
    ) -> None:
        """Subscribe to the values of the legs; publish and queue the legs when that is due.

        Args:
            publish: Writes `broker_positions`.
            may_queue: False while a download will queue every holding anyway.
        """
        legs = routes.overflow
        states, keys = routes.states, connection.pnl.keys
        if states is not self._states or keys is not self._keys:
            self._states, self._keys = states, keys
            connection.pnl.keep(self, self._chosen(keys, routes))
        now = self._monotonic()
        queue_now = bool(legs) and may_queue and now >= self._queue_at
        if queue_now or (legs and now >= self._look_at):
            wanted = queue_now or await self._publisher.requests_wait()
            if wanted and connection.pnl.take_fresh():
                await publish()
            ended = self._monotonic()
            self._look_at = max(now + PUBLISH_S, ended + rest_s(ended - now, VALUES_REST))
        if queue_now:
            self._queue_at = now + self._interval_s
            await self._publisher.enqueue(routes.states, legs)

    def _chosen(self, subscribed: frozenset[Key], routes: Routes) -> set[Key]:
        """Return the holdings that are subscribed and stay so, and the next few, first the legs."""
        legs = routes.overflow & subscribed
        streamed = set(sorted(routes.streamed & subscribed)[: self._max_streamed])
        new = sorted(routes.overflow - legs)[:NEW_AT_ONCE]
        room = min(NEW_AT_ONCE - len(new), self._max_streamed - len(streamed))
        if room > 0:
            new += sorted(routes.streamed - streamed)[:room]
        return legs | streamed | set(new)

    def release(self, connection: GatewayConnection) -> None:
        """End the subscriptions that only this stream needs."""
        connection.pnl.release(self)
