"""The streamer: active legs by market data lines, everything else into the queue."""

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from datetime import datetime
from functools import partial
from random import Random
from typing import Any

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.domain.routing import Key, route
from position_sync_dagster.domain.update import PositionUpdateHandler
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    GatewayError,
    GatewayLostError,
    GatewayTimeoutError,
    LakeError,
    LeaseLostError,
    TradingModeError,
)
from position_sync_dagster.gateway.changes import PendingChanges
from position_sync_dagster.gateway.codes import (
    FARM_BROKEN,
    FARM_OK,
    OFFLINE,
    GatewayCode,
)
from position_sync_dagster.gateway.connection import (
    GatewayConnection,
    IBConnectionManager,
    refuse_offline,
)
from position_sync_dagster.gateway.market_data_lines import Refusal
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.contracts import ContractsTable
from position_sync_dagster.lake.queue.table import PositionQueue
from position_sync_dagster.lake.registry.table import StrategyRegistry
from position_sync_dagster.lake.updates.table import PositionUpdatesTable
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.owner.metrics import StreamMetrics
from position_sync_dagster.sync.owner.ownership import Ownership
from position_sync_dagster.sync.owner.publisher import QUEUED, Publisher
from position_sync_dagster.sync.stream.account_refresh import AccountRefresh
from position_sync_dagster.sync.stream.contract_cache import ContractCache
from position_sync_dagster.sync.stream.delivery import Delivery
from position_sync_dagster.sync.stream.health import Health
from position_sync_dagster.sync.stream.line_manager import LineManager
from position_sync_dagster.sync.stream.pricing import StreamPricer
from position_sync_dagster.sync.stream.route_log import RouteLog

logger = logging.getLogger(__name__)

PNL_PUBLISH_S = 2.0
"""Values of legs without a line are published at most so often."""

GATHER_S = 0.05
"""Ticks of one packet and its neighbours are flushed together."""

FILLS_S = 0.2
"""Fills of so long are dealt with in one step: an order of several legs, or one in many parts."""

CLOSE_TIMEOUT_S = 5.0

RECONNECT = Backoff(first_s=2.0, longest_s=30.0, jitter=(0.5, 1.0))
"""Delays between attempts to connect."""

SETTLED_S = 60.0
"""A connection that lasted so long was a good one: after it the first attempt is made at once."""


class IBPositionStreamer:
    """Stream the legs of active strategies, one line each, and queue every other position.

    Each holding of a conid is its own row, and one line serves them all. Registered handlers
    hear the newest value of each streamed position once per flush. Changes of the registry by
    any process take effect within a flush interval, position events of the broker at once.

    Args:
        registry: Who is active; by default the one at its default path.
        queue: Where everything else goes; None: nothing is queued.
        manager: The shared connection.
        broker_positions, contracts: Where the broker's word and contract details are kept.
        updates: The ledger, which tells at the start which closes have their row already.
        ownership: The lease that is checked before each write; None in a single process.

    Example:
        streamer = IBPositionStreamer(registry, queue)
        streamer.register_handler(DeltaLakePositionWriter())
        await streamer.start()
        ...
        await streamer.stop()
    """

    def __init__(
        self,
        registry: StrategyRegistry | None = None,
        queue: PositionQueue | None = None,
        *,
        manager: IBConnectionManager | None = None,
        settings: Settings | None = None,
        broker_positions: BrokerPositionsTable | None = None,
        updates: PositionUpdatesTable | None = None,
        contracts: ContractsTable | None = None,
        ownership: Ownership | None = None,
        clock: Clock = utc_now,
        random: Random | None = None,
    ) -> None:
        self.settings = settings or (manager.settings if manager else load_settings())
        self.registry = registry or StrategyRegistry()
        self.metrics = StreamMetrics()
        self._manager = manager or IBConnectionManager(self.settings)
        self._contracts = ContractCache(contracts)
        self._lines = LineManager(self._contracts, settings=self.settings, clock=clock)
        self._pricer = StreamPricer(self._contracts, settings=self.settings)
        self._publisher = Publisher(
            queue,
            broker_positions,
            updates,
            settings=self.settings,
            metrics=self.metrics,
            clock=clock,
        )
        self._ownership = ownership
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - jitter of a delay
        self._deliveries: list[Delivery] = []
        self._connection: GatewayConnection | None = None
        self._attached: GatewayConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._changes: PendingChanges[Key, datetime] = PendingChanges()
        self._ticks: PendingChanges[int, float] = PendingChanges()
        self._routes: dict[Key, LegState] = {}
        self._unqueued: set[Key] = set()
        self._overflow_due = self._pnl_due = 0.0
        self._hurried_at = -math.inf
        self._attempts = 0
        self._opened_at = -SETTLED_S
        self._route_log = RouteLog(self.metrics)
        self._table_error: str | None = None
        self._health = Health(ownership.renew_now if ownership else lambda: None)
        self._account_refresh = AccountRefresh(
            self._publisher, refresh_interval_s=self.settings.refresh_interval_s
        )

    @property
    def state(self) -> SessionState:
        """Tell STARTING, LIVE, BLIND (no gateway) or ENDED."""
        return self._health.state

    @property
    def detail(self) -> str | None:
        """Tell why the stream is BLIND, or what it cannot stream while it is LIVE."""
        return self._health.detail(self._lines.problems())

    @property
    def lines_in_use(self) -> int:
        """Count the market data lines held."""
        return self._lines.in_use

    @property
    def line_limit(self) -> int:
        """Give the number of lines of the login, as configured or learned."""
        return self._lines.limit

    @property
    def routes(self) -> dict[Key, LegState]:
        """Give (account, conid) → STREAMED, OVERFLOW, MONITORED or CLOSED."""
        return dict(self._routes)

    def register_handler(self, handler: PositionUpdateHandler) -> None:
        """Let a handler hear each streamed update; a failing one does not harm the others."""
        if not isinstance(handler, PositionUpdateHandler):
            raise TypeError(
                f"{type(handler).__name__} is no handler: it has no method on_position_update."
            )
        self._deliveries.append(Delivery(handler, on_delivered=self.metrics.delivered))

    async def start(self) -> None:
        """Connect, take the first snapshot and the lines; stream in the background then.

        Raises:
            GatewayError: The gateway cannot be used; nothing was started.
        """
        if self._task is not None:
            return
        self._stop.clear()
        await self._initialize()
        try:
            await self._open()
        except BaseException:
            await self._manager.close()
            raise
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what is due, free the lines, end the connection."""
        self._stop.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def run(self, stop: asyncio.Event) -> None:
        """Stream until `stop` is set; a gateway that is not there is tried again and again.

        Raises:
            LeaseLostError: The login belongs to another process now.
            LakeError: The tables cannot be used at the start.
        """
        await self._initialize()
        self._stop = stop
        await self._run()

    async def _initialize(self) -> None:
        await self.registry.initialize()
        await self.registry.refresh()
        await self._publisher.initialize()
        await self._contracts.initialize()

    async def _run(self) -> None:
        flushes = asyncio.create_task(self._flush_on_time())
        try:
            while not self._stop.is_set():
                self._check_lease()
                if flushes.done():
                    flushes.result()
                if self._connection is None or not self._connection.is_connected:
                    await self._reconnect()
                    continue
                try:
                    await self._step()
                    self._table_error = None
                except LakeError as error:
                    if str(error) != self._table_error:
                        logger.error("%s", error)
                    self._table_error = str(error)
                except (GatewayLostError, ConnectionError) as error:
                    self._go_blind(str(error))
                except GatewayError as error:
                    logger.warning("%s", error)
                await self._rest()
        finally:
            flushes.cancel()
            await asyncio.gather(flushes, return_exceptions=True)
            await self._close()

    async def _rest(self) -> None:
        """Wait for the next step: a flush interval, or once in it until soon after a fill."""
        interval_s = self.settings.flush_interval_s
        may_hurry = time.monotonic() - self._hurried_at >= interval_s
        urgent = self._changes.urgent if may_hurry and self.state is SessionState.LIVE else None
        await self._pause(interval_s, until=urgent)
        if urgent is not None and urgent.is_set():
            await self._pause(FILLS_S)
            self._hurried_at = time.monotonic()

    async def _flush_on_time(self) -> None:
        """Flush at its pace, whatever tables and requests the other steps wait for."""
        interval_s = pause = self.settings.flush_interval_s
        while True:
            await asyncio.sleep(pause)
            pause, connection = interval_s, self._connection
            if connection is not None and self.state is SessionState.LIVE:
                self._flush(connection)
                pause = pause_s(interval_s, time.monotonic() - connection.lines.ticked_at)

    async def _reconnect(self) -> None:
        """Connect: at once after a connection that lasted, else after a growing delay."""
        if self._connection is not None:
            self._go_blind(f"The connection to {self.settings.gateway_id} ended.")
            self._connection = None
        if time.monotonic() - self._opened_at >= SETTLED_S:
            self._attempts = 0
        if self._attempts:
            await self._pause(RECONNECT.delay_s(self._attempts, self._random))
        if self._stop.is_set():
            return
        self._attempts += 1
        self._opened_at = math.inf
        try:
            await self._unless_stopped(self._open())
            self._opened_at = time.monotonic()
        except BrokerUnavailableError as error:
            self._attempts = 0
            self._go_blind(error.what)
            await self._pause(self.settings.flush_interval_s)
        except (LeaseLostError, TradingModeError):
            raise
        except (GatewayError, ConnectionError, LakeError) as error:
            if isinstance(error, GatewayTimeoutError) and self._attached is not None:
                self._attached.drop(str(error))
            self._go_blind(str(error))

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that may wait long for the gateway, but end at once with the stream."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            stop.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _pause(self, seconds: float, *, until: asyncio.Event | None = None) -> None:
        """Wait, but no longer than until stop, the loss of the socket or of the lease."""
        events = [self._stop] if until is None else [self._stop, until]
        if self._connection is not None and self._connection.is_connected:
            events.append(self._connection.lost)
        if self._ownership is not None:
            events.append(self._ownership.lost)
        waits = [asyncio.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _check_lease(self) -> None:
        if self._ownership is not None:
            self._ownership.check()

    async def _open(self) -> None:
        """Connect; positions first, then lines; the accounts' values come beside."""
        self._connection = None
        await self._account_refresh.end()
        connection = await self._manager.get_connection()
        if self._ownership is not None:
            await self._ownership.claim_mode(connection.trading_mode)
        before, self._attached = self._attached, connection
        self._routes, self._unqueued = {}, set()
        self._pricer.reset()
        if connection is not before:
            connection.on_message.append(self._on_message)
            connection.lines.on_refusal.append(self._on_refusal)
            self._changes, self._ticks = connection.feed.watch(), connection.lines.watch()
            if before is not None:
                connection.feed.remember(before.feed.holdings)
                self.metrics.reconnects += 1
            else:
                connection.feed.remember(await self._publisher.last_known())
            self._lines.reset()
            self._health.connected()
        refuse_offline(connection)
        await connection.feed.snapshot()
        refuse_offline(connection)
        await self._publish(connection)
        await self._reroute(connection)
        self._connection = connection
        self._health.live()
        self._account_refresh.start(connection.feed)

    async def _step(self) -> None:
        """Follow what changed since the last step: registry, the broker, lines, queue."""
        connection = self._require()
        if self.state is SessionState.BLIND:
            return  # connected to a gateway that has lost IB: what it says is no news
        changed = self._changes.take()
        try:
            await self._follow(connection, set(changed))
        except LakeError:
            self._changes.give_back(changed)
            raise
        self._contracts.fetch_in_background(
            connection, (h.instrument.conid for h in connection.feed.holdings if h.position)
        )

    async def _follow(self, connection: GatewayConnection, changed: set[Key]) -> None:
        if changed:
            await self._publish(connection)
        self._account_refresh.changed(connection.feed, changed)
        streamed = {
            key
            for key in changed
            if self._routes.get(key) is LegState.STREAMED or self._pricer.is_due(key)
        }
        self._pricer.mark_due(streamed)
        stale = self._lines.needs_allocation(
            connection.lines, connection.feed.holdings, self.registry.legs
        )
        if await self._registry_changed() or changed or stale or self._unqueued:
            await self._reroute(connection)
        if not self._account_refresh.opening:
            await self._publisher.enqueue_changed(connection.feed, self._routes, changed - streamed)
        await self._account_refresh.step(
            connection.feed, self._routes, partial(self._publish, connection)
        )
        await self._value_overflow(connection)

    async def _registry_changed(self) -> bool:
        """Read the registry; while it cannot be read, what was known of it goes on."""
        try:
            changed = await self.registry.refresh()
        except LakeError as error:
            if self._health.registry(error.what):
                logger.error("the legs known so far stay active: %s", error)
            return False
        self._health.registry(None)
        return changed

    async def _value_overflow(self, connection: GatewayConnection) -> None:
        """Keep the values of legs without a line about a second old, and queue them often."""
        overflow = {key for key, state in self._routes.items() if state is LegState.OVERFLOW}
        connection.pnl.keep(self, overflow)
        now = time.monotonic()
        if overflow and now >= self._pnl_due and connection.pnl.take_fresh():
            self._pnl_due = now + PNL_PUBLISH_S
            await self._publish(connection)
        if overflow and self._account_refresh.idle and now >= self._overflow_due:
            self._overflow_due = now + self.settings.overflow_interval_s
            await self._publisher.enqueue(connection.feed, self._routes, overflow)

    async def _publish(self, connection: GatewayConnection) -> None:
        self._check_lease()
        session = self._ownership.session if self._ownership else None
        await self._publisher.publish(connection.feed, session=session)

    async def _reroute(self, connection: GatewayConnection) -> None:
        """Give and take lines, then send each holding its way."""
        lines = await self._lines.allocate(connection, connection.feed.holdings, self.registry.legs)
        routes = route(
            connection.feed.holdings,
            self.registry.legs,
            lines,
            sec_types=self.settings.sec_types,
        )
        self._route_log.record(routes, self._lines.reason_for)
        for key, state in routes.items():
            before = self._routes.get(key)
            if state is before:
                continue
            if state is LegState.STREAMED:
                self._pricer.await_tick([key], since=self._clock())
                continue
            if before is LegState.STREAMED and state is LegState.CLOSED:
                self._pricer.mark_due([key])  # its zero row is the stream's, whenever it closed
                continue
            if before is LegState.STREAMED or (before and state is LegState.OVERFLOW):
                self._unqueued.add(key)
        self._routes = routes
        # What cannot be queued now stays due, and has the next step route anew.
        self._unqueued = {key for key in self._unqueued if routes.get(key) in QUEUED}
        await self._publisher.enqueue(connection.feed, routes, self._unqueued)
        self._unqueued = set()

    def _flush(self, connection: GatewayConnection) -> None:
        """Value what changed since the last flush and hand it to the handlers."""
        self._check_lease()
        valued = self._pricer.flush(
            connection,
            self._ticks.take(),
            self._routes,
            now=self._clock(),
            by=self._ownership.provenance if self._ownership else Provenance(),
        )
        updates = [one for one in valued if not self._publisher.knows_closed(one.update)]
        self._publisher.written(connection.feed, [pending.update for pending in updates])
        for delivery in self._deliveries:
            delivery.put(updates)

    def _on_message(self, code: int, text: str) -> None:
        if code in OFFLINE:
            self._go_blind(text)
        elif code == GatewayCode.RESTORED_DATA_KEPT and self._connection is not None:
            self._health.live()
        elif code in (GatewayCode.RESTORED_DATA_LOST, GatewayCode.PORT_CHANGED):
            # The connection has asked for its lines again (1101) or is about to end (1300);
            # positions come first in both cases, as after every interruption.
            self._go_blind(text)
            self._connection = None
        elif code in FARM_BROKEN | FARM_OK:
            if code == GatewayCode.MARKET_DATA_FARM_BROKEN:
                self._pricer.invalidate_quotes(self._clock())
            self._health.farm(code, text)

    def _on_refusal(self, refusal: Refusal) -> None:
        if self._attached is not None:
            self._lines.refused(refusal, self._attached.lines)

    def _go_blind(self, why: str) -> None:
        if self._health.blind(why):
            self._pricer.invalidate_quotes(self._clock())

    def _require(self) -> GatewayConnection:
        if self._connection is None:
            raise GatewayLostError("There is no connection.", remedy="It is tried again.")
        return self._connection

    async def _close(self) -> None:
        self._health.ended()
        await self._account_refresh.end()
        await self._contracts.close()
        for delivery in self._deliveries:
            await delivery.close(timeout_s=CLOSE_TIMEOUT_S)
        if self._attached is not None:
            self._lines.release(self._attached.lines)
            self._attached.pnl.release(self)
            self._attached.on_message.remove(self._on_message)
            self._attached.lines.on_refusal.remove(self._on_refusal)
            self._attached = self._connection = None
            self._routes = {}
        await self._manager.close()


def pause_s(interval_s: float, waited_s: float) -> float:
    """Give the pause before the next flush, so that flushes come right behind the ticks.

    Where ticks come in step (a slow feed, or a snapshot a second) a flush at any moment would find
    each of its values to be old already; a shorter pause, once, moves it to where they are new.

    Args:
        waited_s: How long ago the newest tick arrived when the flush took it.

    >>> pause_s(1.0, 0.45), pause_s(1.0, 0.02), pause_s(1.0, 30.0)
    (0.6, 1.0, 1.0)
    """
    late_s = waited_s - GATHER_S
    return interval_s - min(late_s, interval_s / 2) if 0 < late_s < interval_s else interval_s
