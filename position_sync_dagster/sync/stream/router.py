"""One step of the stream: tables, lines, routes and queue follow the broker and the registry."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import ActiveContract, LegState
from position_sync_dagster.domain.line_allocation import route
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway.changes import PendingChanges
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.lake.registry.table import StrategyRegistry
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.leg_resolver import LegResolver
from position_sync_dagster.sync.owner.metrics import StreamMetrics
from position_sync_dagster.sync.owner.ownership import Ownership
from position_sync_dagster.sync.owner.publisher import QUEUED, Publisher
from position_sync_dagster.sync.stream.account_refresh import AccountRefresh
from position_sync_dagster.sync.stream.contract_cache import ContractCache
from position_sync_dagster.sync.stream.health import Health
from position_sync_dagster.sync.stream.line_manager import LineManager
from position_sync_dagster.sync.stream.overflow import OverflowLegs
from position_sync_dagster.sync.stream.pricing import StreamPricer
from position_sync_dagster.sync.stream.routes import RouteLog, Routes

DOWNLOAD_S = 1.0
"""Lines that wait for contracts wait at most so long for the values of the accounts too."""


class Router:
    """Sends each holding to a line or to the queue, and publishes what the broker reports.

    Args:
        ownership: The lease that is checked before `broker_positions` is written.
    """

    def __init__(
        self,
        *,
        registry: StrategyRegistry,
        publisher: Publisher,
        contracts: ContractCache,
        lines: LineManager,
        pricer: StreamPricer,
        routes: Routes,
        health: Health,
        ownership: Ownership | None,
        metrics: StreamMetrics,
        settings: Settings,
        monotonic: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._publisher = publisher
        self._contracts = contracts
        self._lines = lines
        self._pricer = pricer
        self._routes = routes
        self._health = health
        self._ownership = ownership
        self._settings = settings
        self._changes: PendingChanges[Key, datetime] = PendingChanges()
        self._route_log = RouteLog(metrics)
        self._routed_by: tuple[frozenset[int], tuple[ActiveContract, ...]] = (frozenset(), ())
        self._expected: dict[Key, LegState] | None = None
        self._account_refresh = AccountRefresh(
            publisher, refresh_interval_s=settings.refresh_interval_s, monotonic=monotonic
        )
        self._resolver = LegResolver(
            registry,
            contracts.remember,
            check=ownership.check if ownership is not None else lambda: None,
            monotonic=monotonic,
        )
        self._overflow = OverflowLegs(publisher, settings=settings, monotonic=monotonic)

    @property
    def urgent(self) -> asyncio.Event:
        """Set while a fill waits for the next step."""
        return self._changes.urgent

    @property
    def downloaded(self) -> asyncio.Event:
        """Set when the values of all holdings have arrived, until the streamer clears it."""
        return self._account_refresh.ended

    def problems(self) -> list[str]:
        """Return which legs have no contract, and why."""
        return self._resolver.problems()

    def interrupt(self) -> None:
        """End the download under way: the gateway dropped its subscriptions."""
        self._account_refresh.interrupt()

    async def reset(self) -> None:
        """Forget the routes and values: a snapshot of the positions comes next."""
        await self._account_refresh.end()
        self._routes.clear()
        self._expected = None
        self._pricer.reset()

    async def attach(self, connection: GatewayConnection, before: GatewayConnection | None) -> None:
        """Follow a new connection, from the holdings known before it.

        Args:
            before: The connection before; None: the holdings of the last owner are read.
        """
        connection.feed.book.remember(
            before.feed.book.reported().values()
            if before is not None
            else await self._publisher.restore()
        )
        self._lines.attach(connection.lines)
        self._changes = connection.feed.book.watch()

    async def step(self, connection: GatewayConnection, *, first: bool = False) -> None:
        """Publish, route and queue what changed since the last step.

        Args:
            first: Whether this is the first step after a snapshot of the positions. It publishes
                and routes everything, and starts the download of the accounts.

        Raises:
            LakeError: A table cannot be used; the same changes are due again.
            GatewayError: A request to the gateway failed.
        """
        changed = self._changes.take()
        try:
            await self._follow(connection, set(changed), first=first)
        except Exception:
            self._changes.give_back(changed)
            raise
        self._resolver.resolve_in_background(connection)
        self._contracts.fetch_in_background(connection, streamed=self._lines.held)

    async def close(self) -> None:
        """End what runs in the background."""
        await self._account_refresh.end()
        await self._resolver.close()
        await self._contracts.close()

    def detach(self, connection: GatewayConnection) -> None:
        """Free the lines and the subscriptions on a connection, and forget the routes."""
        self._lines.detach(connection.lines)
        self._overflow.release(connection)
        self._routes.clear()

    async def _follow(
        self, connection: GatewayConnection, changed: set[Key], *, first: bool
    ) -> None:
        feed = connection.feed
        if first or changed:
            await self._publish(connection)
        if first:
            # Its one request goes out before those of the lines, which take seconds at the pace
            # of the gateway; the values arrive meanwhile.
            self._account_refresh.start(feed)
            await asyncio.sleep(0)
            if await self._queue_before_lines(connection):
                return  # the next step, which follows at once, requests the lines
        first = first or self._expected is not None
        self._lines.renew(connection.lines, self._pricer.due_for_renewal())
        self._account_refresh.add_changes(feed, changed)
        streamed = {key for key in changed if self._is_streamed(key)}
        self._pricer.mark_due(streamed)
        stale = self._lines.needs_allocation(connection.lines, feed.book, self._registry.legs)
        changed_legs = await self._registry_changed() or self._resolver.take_found()
        if changed_legs:
            await self._contracts.read_legs(self._registry.legs)
        stale = stale or self._lines.held != self._routed_by[0]
        stale = stale or self._contracts.matching(self._registry.legs) is not self._routed_by[1]
        moved = self._routes.outdated(feed.book, changed)
        if changed_legs or first or moved or stale or self._routes.unqueued:
            await self._reroute(connection, None if first else moved)
        states, publish = self._routes.states, partial(self._publish, connection)
        if not self._account_refresh.opening:
            await self._publisher.enqueue_changed(states, changed - streamed)
        await self._account_refresh.step(feed, states, publish)
        await self._overflow.step(
            connection, self._routes, publish, may_queue=self._account_refresh.idle
        )

    def _is_streamed(self, key: Key) -> bool:
        return self._routes.states.get(key) is LegState.STREAMED or self._pricer.is_due(key)

    async def _publish(self, connection: GatewayConnection) -> None:
        session = None
        if self._ownership is not None:
            self._ownership.check()
            session = self._ownership.session
        await self._publisher.publish(connection.feed, session=session)

    async def _registry_changed(self) -> bool:
        """Read the registry; while it cannot be read, the legs known so far stay active."""
        try:
            changed = await self._registry.refresh()
        except LakeError as error:
            self._health.registry_failed(error)
            return False
        self._health.registry_works()
        return changed

    async def _reroute(self, connection: GatewayConnection, moved: set[Key] | None) -> None:
        """Allocate the lines, then route every holding whose route may be another one.

        Args:
            moved: The holdings that were opened or closed; None: all of them may have been.
        """
        book = connection.feed.book
        lines = await self._lines.allocate(connection, self._registry.legs)
        legs = self._contracts.matching(self._registry.legs)
        if moved is None:
            self._contracts.want(h.instrument.conid for h in book.holdings if h.position)
            holdings = book.holdings
        else:
            self._contracts.want(conid for _account, conid in moved)
            keys = moved.union(
                *(book.index.keys_of(conid) for conid in self._rerouted(lines, legs))
            )
            holdings = tuple(holding for key in keys if (holding := book.get(key)) is not None)
        self._contracts.want(leg.conid for leg in self._registry.legs)
        routed = route(holdings, legs, lines, sec_types=self._settings.sec_types)
        expected, self._expected = self._expected or {}, None
        self._routed_by = (lines, legs)
        self._route_log.record(routed, self._lines.reason_for)
        changes = self._routes.update(routed)
        self._pricer.add(changes.streamed)
        # The stream writes the zero row of a holding that it streamed, whenever it closed.
        self._pricer.mark_due(changes.closed)
        # These were not queued with the others, since a line was to be had for them.
        self._routes.unqueued |= {
            key
            for key, state in expected.items()
            if state is LegState.STREAMED and self._routes.states.get(key) in QUEUED
        }
        # Holdings that cannot be queued now stay due, and make the next step route again.
        await self._publisher.enqueue(self._routes.states, self._routes.unqueued)
        self._routes.unqueued.clear()

    async def _queue_before_lines(self, connection: GatewayConnection) -> bool:
        """Queue what needs no line, if the lines have to wait for contracts that were never seen.

        At the gateway's pace these take seconds, and the values of the accounts less than one.

        Returns:
            Whether the lines have to wait.
        """
        lines = self._lines.planned(connection, self._registry.legs)
        if not self._contracts.missing(lines):
            return False
        feed, legs = connection.feed, self._contracts.matching(self._registry.legs)
        expected = route(feed.book.holdings, legs, lines, sec_types=self._settings.sec_types)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.downloaded.wait(), DOWNLOAD_S)
        await self._account_refresh.step(feed, expected, partial(self._publish, connection))
        self._expected = expected
        return True

    def _rerouted(self, lines: frozenset[int], legs: tuple[ActiveContract, ...]) -> frozenset[int]:
        """Return the conids whose line or legs are others than when routes were last decided."""
        lines_before, legs_before = self._routed_by
        conids = lines ^ lines_before
        if legs is not legs_before:
            conids |= {leg.conid for leg in set(legs) ^ set(legs_before)}
        return conids
