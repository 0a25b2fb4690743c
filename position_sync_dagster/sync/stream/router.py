"""One step of the stream: update tables, lines, routes and queue from the broker and the registry.

It also requests the values of accounts by a download, if they did not arrive by themselves, and
follows holdings by PnLSingle, which takes no line.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.domain.leg import QUEUED, LegState, route
from position_sync_dagster.domain.line_allocation import largest
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.domain.queue_request import Reason
from position_sync_dagster.domain.retry import rest_s
from position_sync_dagster.errors import LakeError, NewerTableError
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.holdings import HoldingsBook, PendingChanges
from position_sync_dagster.lake.account_values import AccountValuesTable
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.contracts import ContractsTable
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.records import RecordsTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.sync.stream import ownership
from position_sync_dagster.sync.stream.contracts import ContractCache, LegResolver
from position_sync_dagster.sync.stream.lines import StreamLines
from position_sync_dagster.sync.stream.ownership import BackgroundWork, OwnerContext, Ownership
from position_sync_dagster.sync.stream.parts import (
    ChangeFollower,
    MakesGreeks,
    PublishedGreeks,
    RulesOfLegs,
)
from position_sync_dagster.sync.stream.pricing import StreamPricer
from position_sync_dagster.sync.stream.publisher import Announcements, ChangeWatcher, Publisher

logger = logging.getLogger(__name__)

# Number of streamed holdings whose profit is subscribed, too.
STREAMED_PNL_SUBSCRIPTIONS = 250

# Shortest time between two publications of these profits, and of those of over 1,000 holdings.
# It is at least the flush interval; slow commits make it longer.
PUBLISH_S = 4.0

PUBLISH_MANY_S = 6.0

# How often monitored holdings whose values moved are queued: each time, a drain follows.
# Readers see the published values in the meantime.
MOVED_INTERVAL_S = 60.0

# How often legs of active strategies without a free line are valued, in seconds.
OVERFLOW_INTERVAL_S = 30.0


# Maximum number of route changes logged in a step: a line in the log of a run costs milliseconds.
MAX_LINES_LOGGED = 20


class Routes:
    """The route of each holding on the present connection.

    Attributes:
        states: (account, conid) → STREAMED, OVERFLOW, MONITORED or CLOSED.
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
        self.unqueued: set[Key] = set()

    def update(self, states: Mapping[Key, LegState]) -> dict[Key, LegState | None]:
        """Set the routes of these holdings; return the routes before of those that changed."""
        changed = {
            key: self.states.get(key)
            for key, state in states.items()
            if self.states.get(key) is not state
        }
        if changed:
            self.states |= states
            self.version += 1

        for key, before in changed.items():
            lost_its_line = before is LegState.STREAMED
            became_active = before is not None and states[key] is LegState.OVERFLOW
            if lost_its_line or became_active:
                self.unqueued.add(key)
        self.unqueued = {key for key in self.unqueued if self.states.get(key) in QUEUED}
        return changed

    def log(self, changed: Mapping[Key, LegState | None]) -> None:
        """Log routes that changed.

        Args:
            changed: The routes before; holdings without one are new.
        """
        moved = [(key, before) for key, before in changed.items() if before]
        for (account, conid), before in moved[:MAX_LINES_LOGGED]:
            logger.info("%s of %s: %s → %s", conid, account, before, self.states[account, conid])
        if len(moved) > MAX_LINES_LOGGED:
            logger.info("and %d more routes changed", len(moved) - MAX_LINES_LOGGED)


@dataclass(eq=False, repr=False)
class AccountRefresh:
    """Downloads the accounts on a new connection, at each refresh interval, and after changes.

    It also requests the list of positions again when that is due, and an account again if its
    values do not arrive. One download runs at a time; its values are published when it ends. After
    the first download of a connection, and after a refresh, every holding that is not streamed is
    queued.
    """

    context: OwnerContext
    publisher: Publisher

    def __post_init__(self) -> None:
        self._download: asyncio.Future[None] | None = None
        self._reason = Reason.SNAPSHOT
        self._next_at = 0.0

    @property
    def idle(self) -> bool:
        """Return whether no download is running."""
        return self._download is None

    @property
    def opening(self) -> bool:
        """Return whether the first download of a connection runs, which queues every holding."""
        return self._download is not None and self._reason is Reason.SNAPSHOT

    def start(self, feed: AccountFeed, reason: Reason = Reason.SNAPSHOT) -> None:
        """Start to download every account whose values are older than half an interval."""
        interval_s = self.context.settings.refresh_interval_s
        self._next_at = self.context.monotonic() + interval_s
        self._begin(reason, feed.ensure(timedelta(seconds=interval_s / 2)))

    async def step(self, feed: AccountFeed, routes: Mapping[Key, LegState]) -> None:
        """Finish a download that has ended, or start the next one that is due.

        Raises:
            GatewayError: The download failed.
            LakeError: A table is busy; the same step is due again.
        """
        if feed.lapse():
            await self.publisher.publish(feed)
        download = self._download
        if download is None:
            self._begin_due(feed)
        elif download.cancelled():
            self._download = None
        elif download.done():
            if download.exception() is None:
                await self.publisher.publish(feed)
                if self._reason is not Reason.CHANGED:
                    await self.publisher.enqueue_all(routes, self._reason)
            self._download = None
            download.result()

    def interrupt(self) -> None:
        """Cancel the running download: the gateway dropped its subscriptions.

        Otherwise it would count as complete, with values of some accounts from before the loss.
        """
        if self._download is not None:
            self._download.cancel()

    async def end(self) -> None:
        """Cancel the running download, and wait until it has ended."""
        self.interrupt()
        download, self._download = self._download, None
        if download is not None:
            await asyncio.gather(download, return_exceptions=True)

    def _begin_due(self, feed: AccountFeed) -> None:
        if self.context.monotonic() >= self._next_at:
            self.start(feed, Reason.REFRESH)
        elif feed.positions_due:
            self._begin(Reason.CHANGED, feed.snapshot())
        elif overdue := feed.overdue:
            self._begin(Reason.CHANGED, feed.download(overdue))

    def _begin(self, reason: Reason, download: Awaitable[None]) -> None:
        self._reason = reason
        self._download = asyncio.ensure_future(download)


# More holdings than these are published less often.
MANY = 1000

# Seconds after which the holdings to follow are chosen again by their values.
CHOOSE_S = 60.0


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
        self._publish_at = -math.inf
        self._queue_at = -math.inf
        self._moved_at = -math.inf
        self._choose_at = -math.inf
        self._chosen_as_of: int | None = None
        self._legs: list[Key] = []
        self._monitored: list[Key] = []

    async def step(self, connection: GatewayConnection, routes: Routes, *, may_queue: bool) -> None:
        """Subscribe to the values of holdings; publish and queue them when that is due.

        Args:
            may_queue: False while a download runs, which may queue every holding anyway. Until
                the first one has ended, no monitored holding is followed: their values are unknown.
        """
        now = self.context.monotonic()
        self._choose(connection, routes, now, values_known=may_queue)
        connection.pnl.step()

        queues_legs = bool(self._legs) and may_queue and now >= self._queue_at
        if queues_legs or now >= self._publish_at:
            await self._publish(connection, now, at_once=queues_legs)
            if may_queue:  # a value that became known needs a row at once
                await self.publisher.enqueue_changed(routes.states, self._monitored)
        if queues_legs:
            await self.publisher.enqueue(routes.states, self._legs)
            self._queue_at = now + OVERFLOW_INTERVAL_S
        if may_queue and now >= self._moved_at:
            await self.publisher.enqueue_moved(routes.states)
            self._moved_at = now + MOVED_INTERVAL_S

    async def _publish(self, connection: GatewayConnection, now: float, *, at_once: bool) -> None:
        """Publish the newest values and greeks, if there are any; set when it is due again."""
        greeks_moved = bool(self.publisher.greeks.changes)
        if not (at_once or self._legs or self._monitored or greeks_moved):
            return
        if connection.pnl.take_fresh() or greeks_moved:
            await self.publisher.publish(connection.feed)

        ended = self.context.monotonic()
        many = len(self._legs) + len(self._monitored) > MANY
        shortest_s = PUBLISH_MANY_S if many else PUBLISH_S
        pause_s = max(shortest_s, self.context.settings.flush_interval_s)
        self._publish_at = max(now + pause_s, ended + rest_s(ended - now))

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

        keys = grouped(routes.states.__getitem__, routes.states)
        monitored = keys[LegState.MONITORED]
        self._legs = sorted(keys[LegState.OVERFLOW])
        settings = self.context.settings
        if values_known:
            values = connection.feed.book.values(monitored)
            self._monitored = largest(values, connection.pnl.keys, settings.pnl_subscriptions)
        else:
            still_monitored = set(monitored)
            self._monitored = [key for key in self._monitored if key in still_monitored]
        streamed = sorted(keys[LegState.STREAMED])[:STREAMED_PNL_SUBSCRIPTIONS]
        connection.pnl.keep([*self._legs, *streamed, *self._monitored])

    def release(self, connection: GatewayConnection) -> None:
        """End the subscriptions that only this stream needs."""
        connection.pnl.release()
        self._chosen_as_of = None
        self._legs = []
        self._monitored = []


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTables:
    """The tables that a stream uses besides the registry and the queue, and its further parts.

    Attributes:
        broker_positions, contracts: Keep the positions and the contract details of the broker.
        account_values: Gets the net liquidation and profit of the accounts; with None, they are not
            subscribed.
        position_changes: Gets each change of a quantity, before that is published.
        closes: Judges why holdings close, by the stored changes.
        rolls: Replaces the legs of strategies that follow rolls, after closes were judged.
        rules: Chooses legs by the rules of the strategies file.
        greeks: Makes what computes greeks for options without any; with None, they have none.
        updates: The ledger. It shows at the start which closes have their row already.
        ownership: The lease, checked before each write; the tables are then those of an initialized
            lake. None: the streamer takes one of its own.
    """

    broker_positions: BrokerPositionsTable | None = None
    contracts: ContractsTable | None = None
    account_values: AccountValuesTable | None = None
    position_changes: RecordsTable[PositionChange] | None = None
    closes: ChangeFollower | None = None
    rolls: ChangeFollower | None = None
    rules: RulesOfLegs | None = None
    greeks: MakesGreeks | None = None
    updates: PositionUpdatesTable | None = None
    ownership: Ownership | None = None


@dataclass(eq=False, repr=False)
class Router:
    """Routes each holding to a line or to the queue, and publishes the broker's reports.

    Attributes:
        routes: The route of each holding.
        announced: Which state of each holding was written or queued last.
        account_refresh: The downloads of the accounts.
    """

    context: OwnerContext
    registry: StrategyRegistry
    queue: PositionQueue
    tables: StreamTables

    def __post_init__(self) -> None:
        context = self.context
        tables = self.tables
        greeks = PublishedGreeks()
        self.announced = Announcements(tables.updates)
        self._watcher: ChangeWatcher | None = None
        if tables.position_changes is not None:
            followers = [part for part in (tables.closes, tables.rolls) if part is not None]
            self._watcher = ChangeWatcher(context, tables.position_changes, followers)
        self._publisher = Publisher(
            context,
            self.queue,
            tables.broker_positions,
            self.announced,
            greeks=greeks,
            watcher=self._watcher,
        )

        self.contracts = ContractCache(tables.contracts, clock=context.clock)
        self.lines = StreamLines(context, self.contracts)
        self.pricer = StreamPricer(context, self.lines.login, self.contracts, greeks)
        self.greeks = None
        if tables.greeks is not None:
            self.greeks = tables.greeks(context, self.contracts, self.lines, greeks)
        self.account_refresh = AccountRefresh(context, self._publisher)
        self._resolver = LegResolver(context, self.registry, self.contracts)
        self._followed = FollowedHoldings(context, self._publisher)
        self._beside = BackgroundWork(context.monotonic, ownership.WORK_AGAIN_S)

        self.routes = Routes()
        self._changes: PendingChanges[Key] = PendingChanges()
        self._routed_as_of: tuple[object, ...] = ()
        self._registry_outage = OutageLog(logger)

    @property
    def urgent(self) -> asyncio.Event:
        """Set while a fill waits for the next step."""
        return self._changes.urgent

    def problems(self) -> list[str]:
        """Return why the registry cannot be read, and why legs have no contract."""
        texts = []
        if self._registry_outage.fault:
            texts.append(self._registry_outage.fault)
        for leg in self.registry.unresolved:
            if leg.problem:
                name = f"{leg.described} of strategy {leg.strategy_id}"
                texts.append(f"{name} is not streamed: {leg.problem}")
        return texts

    def definitions_restored(self) -> None:
        """Request soon what the gateway refused as unknown lately: it knows contracts again."""
        self.lines.definitions_restored()
        self.contracts.definitions_restored()
        self._resolver.definitions_restored()

    async def reset(self) -> None:
        """Remove the routes and values: a snapshot of the positions comes next."""
        await self.account_refresh.end()
        self.routes.clear()
        self.pricer.reset()
        self.lines.login.reopened(self.context.monotonic())

    async def attach(self, connection: GatewayConnection, before: GatewayConnection | None) -> None:
        """Follow a new connection, from the holdings known before it.

        Args:
            before: The previous connection; with None, the holdings of the last owner are read.
        """
        book = connection.feed.book
        if before is None:
            book.remember(await self._publisher.restore())
        else:
            book.remember(before.feed.book.reported().values())
        book.magnifier = self.contracts.magnifier

        if connection.connectivity.knows_contracts:
            self.contracts.definitions_restored()
        self._publisher.follow(connection.feed)
        self.lines.attach(connection.lines)
        if self.greeks is not None:
            self.greeks.attach(connection)
        self._changes = book.watch()

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
            await self._follow(connection, changed, first=first)
        except Exception:
            self._changes.give_back(changed)
            raise

        begin = self._beside.begin
        if self.registry.unresolved:
            begin("looking up the contracts of legs", self._resolver.resolve_due, connection)
        if self.greeks is not None:
            await self.greeks.step(connection, self.routes.states, self.routes.version)
        if self._watcher is not None:
            begin("following changes of quantities", self._watcher.look_if_due, connection)
        begin("contract details", self.contracts.fetch_due, connection, self.lines.held)

    async def close(self) -> None:
        """End the background tasks, and store the contract details that they fetched."""
        await self.account_refresh.end()
        await self._beside.end()
        # What cannot be stored is fetched again by the next stream.
        with suppress(LakeError):
            await self.contracts.store()

    def detach(self, connection: GatewayConnection) -> None:
        """Release the lines and subscriptions on a connection, and remove the routes."""
        self.lines.detach(connection.lines)
        self._followed.release(connection)
        self.routes.clear()

    async def _follow(
        self, connection: GatewayConnection, changed: set[Key], *, first: bool
    ) -> None:
        feed = connection.feed
        if first:
            # The one request of this download precedes those of the lines, which take seconds at
            # the gateway's rate limit; the values arrive meanwhile.
            self.account_refresh.start(feed)
            await asyncio.sleep(0)
        if first or changed:
            await self._publisher.publish(feed)

        self.lines.renew(connection)
        streamed = {key for key in changed if self._is_streamed(key)}
        self.pricer.mark_due(streamed)

        await self._read_registry(feed, first=first)
        self.contracts.follow(self.registry.legs)
        self.lines.follow(connection)
        has_changed = self._as_of(feed.book) != self._routed_as_of
        is_stale = has_changed or self.lines.are_due(connection)
        if first or is_stale or self.routes.unqueued:
            await self._reroute(connection)
        states = self.routes.states
        if first:
            number = Counter(states.values())
            queued = sum(number[state] for state in QUEUED)
            logger.info("%d streamed, %d queued", number[LegState.STREAMED], queued)

        if not self.account_refresh.opening:
            await self._publisher.enqueue_changed(states, changed - streamed)
        await self.account_refresh.step(feed, states)
        await self._followed.step(connection, self.routes, may_queue=self.account_refresh.idle)

    def _is_streamed(self, key: Key) -> bool:
        return self.routes.states.get(key) is LegState.STREAMED or self.pricer.is_due(key)

    async def _read_registry(self, feed: AccountFeed, *, first: bool) -> None:
        """Apply the rules to what changed, and read the registry.

        While it cannot be read or written, the legs known so far stay active.
        """
        rules = self.tables.rules
        try:
            if rules is not None and rules.is_due(feed.book.moves, first=first):
                book = feed.book
                await offload(rules.follow, book.holdings, feed.accounts, book.moves)
            await self.registry.refresh()

        except NewerTableError:
            raise
        except LakeError as error:
            text = f"the legs known so far stay active: {error}"
            if self._registry_outage.report(error.what, text=text):
                self.context.lease.renew_now()
            return

        if self._registry_outage.fault is not None:
            self._registry_outage.fault = None
            self.context.lease.renew_now()

    def _as_of(self, book: HoldingsBook) -> tuple[object, ...]:
        """Return what changes when a holding opens or closes, or a leg or a line changes."""
        return (book.moves, self.registry.version, self.contracts.version, self.lines.of_legs)

    async def _reroute(self, connection: GatewayConnection) -> None:
        """Allocate the lines, then route every holding."""
        book = connection.feed.book
        lines = await self.lines.allocate(connection)
        self._routed_as_of = self._as_of(book)

        holdings = book.holdings
        self.contracts.want(holding.instrument.conid for holding in holdings if holding.position)
        self.contracts.want(leg.conid for leg in self.registry.legs)

        routed = route(
            holdings, self.contracts.matching, lines, sec_types=self.context.settings.sec_types
        )
        changed = self.routes.update(routed)
        self.routes.log(changed)
        for key, before in changed.items():
            self.pricer.reroute(key, before, routed[key])

        # Holdings that cannot be queued now stay due: the next step routes again.
        await self._publisher.enqueue(self.routes.states, self.routes.unqueued)
        self.routes.unqueued.clear()
