"""The routes of the holdings, and those that are followed by PnLSingle, which takes no line."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.gateway.accounts.holdings import HoldingsBook
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.memory_and_threads import VALUES_REST, rest_s
from position_sync_dagster.sync.owner.publisher import QUEUED, Publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChanges:
    """Holdings that enter or leave the route STREAMED.

    Attributes:
        streamed: Those that are streamed from now on.
        closed: Those that were streamed and are closed now.
        left: Those that were streamed and go to the queue now.
    """

    streamed: list[Key]
    closed: list[Key]
    left: list[Key]


class Routes:
    """The route of each holding on the present connection.

    Attributes:
        states: (account, conid) → STREAMED, OVERFLOW, MONITORED or CLOSED.
        streamed, overflow: The holdings with that route.
        unqueued: Holdings that lost their line, or became active without one, and are not queued
            yet. While there are any, the next step routes and queues again.
        version: The number of changes of the routes.
    """

    def __init__(self) -> None:
        self.version = 0
        self.clear()

    def clear(self) -> None:
        """Remove all routes: the connection is new, or lost its data."""
        self.version += 1
        self.states: dict[Key, LegState] = {}
        self.streamed: set[Key] = set()
        self.overflow: set[Key] = set()
        self.unqueued: set[Key] = set()

    def outdated(self, book: HoldingsBook, keys: Iterable[Key]) -> set[Key]:
        """Return the holdings that are new, or were opened or closed since they were routed."""
        found = set()
        for key in keys:
            position, state = book.position(key), self.states.get(key)
            if position is None:
                continue
            if state is None or (state is LegState.CLOSED) != (position == 0):
                found.add(key)
        return found

    def update(self, states: Mapping[Key, LegState]) -> RouteChanges:
        """Set the routes of these holdings; return those that enter or leave STREAMED."""
        changes, changed = RouteChanges(streamed=[], closed=[], left=[]), dict[Key, LegState]()
        for key, state in states.items():
            before = self.states.get(key)
            if state is before:
                continue
            changed[key] = state
            if state is LegState.STREAMED:
                changes.streamed.append(key)
            elif before is LegState.STREAMED and state is LegState.CLOSED:
                changes.closed.append(key)
            elif before is LegState.STREAMED:
                changes.left.append(key)
                self.unqueued.add(key)
            elif before and state is LegState.OVERFLOW:
                self.unqueued.add(key)
        if changed:
            self.states |= changed
            self.version += 1
            for found, sought in (
                (self.streamed, LegState.STREAMED),
                (self.overflow, LegState.OVERFLOW),
            ):
                found.difference_update(changed)
                found.update(key for key, state in changed.items() if state is sought)
        self.unqueued = {key for key in self.unqueued if self.states.get(key) in QUEUED}
        return changes


PUBLISH_S = 5.0
"""Minimum seconds between two publications of the values of legs without a line, while requests
wait for a drain. It is the interval of the drain's sensor; slow commits make it longer."""

NEW_AT_ONCE = 20
"""Maximum number of holdings subscribed in one step: the gateway accepts 50 messages a second, and
positions and market data come first."""


class OverflowLegs:
    """Subscribes to the values of legs without a line (PnLSingle), and queues these legs.

    The values are about a second old. Streamed holdings are subscribed too, up to a bound: this
    gives their daily profit, and a second value that shows a dead line.
    """

    def __init__(
        self, publisher: Publisher, *, settings: Settings, monotonic: Callable[[], float]
    ) -> None:
        self._publisher = publisher
        self._interval_s = settings.overflow_interval_s
        self._monotonic = monotonic
        self._max_streamed = settings.pnl_subscriptions
        self._look_at = self._queue_at = float("-inf")
        self._chosen_as_of: tuple[int, frozenset[Key]] | None = None

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
        as_of = (routes.version, connection.pnl.keys)
        if as_of != self._chosen_as_of:
            self._chosen_as_of = as_of
            connection.pnl.keep(self, self._chosen(connection.pnl.keys, routes))
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
        """Return the subscribed holdings that stay, and the next few to subscribe, legs first."""
        legs = routes.overflow & subscribed
        streamed = set(sorted(routes.streamed & subscribed)[: self._max_streamed])
        new = sorted(routes.overflow - legs)[:NEW_AT_ONCE]
        more = min(NEW_AT_ONCE - len(new), self._max_streamed - len(streamed))
        if more > 0:
            new += sorted(routes.streamed - streamed)[:more]
        return legs | streamed | set(new)

    def release(self, connection: GatewayConnection) -> None:
        """End the subscriptions that only this stream needs."""
        connection.pnl.release(self)
