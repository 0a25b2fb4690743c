"""One step of the stream: update tables, lines, routes and queue from the broker and the registry.

It also requests the values of accounts by a download, if they did not arrive by themselves.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import ActiveContract, LegState
from position_sync_dagster.domain.line_allocation import route
from position_sync_dagster.domain.update import Reason
from position_sync_dagster.errors import LakeError, NewerTableError
from position_sync_dagster.gateway.accounts.account_feed import AccountFeed
from position_sync_dagster.gateway.changes import PendingChanges
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.sync.owner.leg_resolver import LegResolver
from position_sync_dagster.sync.owner.ownership import OwnerContext
from position_sync_dagster.sync.owner.publisher import QUEUED, Publisher
from position_sync_dagster.sync.rule_legs import RuleFollower
from position_sync_dagster.sync.stream.contract_cache import ContractCache
from position_sync_dagster.sync.stream.delivery import StreamPricer
from position_sync_dagster.sync.stream.followed_holdings import FollowedHoldings
from position_sync_dagster.sync.stream.lines import LineManager
from position_sync_dagster.sync.stream.model_greeks import ModelGreeks
from position_sync_dagster.sync.stream.routes import RouteLog, Routes

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class AccountRefresh:
    """Downloads the accounts on a new connection, at each refresh interval, and after changes.

    It also requests the list of positions again when that is due, and an account again if its
    values do not arrive. One download runs at a time; its values are published when it ends. After
    the first download of a connection, and after a refresh, every holding that is not streamed is
    queued.

    Attributes:
        ended: Set when a download ends after which all holdings are queued: the next step is due at
            once.
    """

    context: OwnerContext
    publisher: Publisher

    def __post_init__(self) -> None:
        self.ended = asyncio.Event()
        self._download: asyncio.Future[None] | None = None
        self._reason = Reason.SNAPSHOT
        self._next_at = 0.0
        self._accounts_to_download: set[str] = set()

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
        half = timedelta(seconds=interval_s / 2)
        self._begin(reason, feed.ensure(half))

    def add_changes(self, feed: AccountFeed, keys: Collection[Key]) -> None:
        """Add changed holdings; an account that sends no values by itself is downloaded next."""
        self._accounts_to_download |= feed.unsubscribed(keys)

    async def step(
        self,
        feed: AccountFeed,
        routes: Mapping[Key, LegState],
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        """Finish a download that has ended, or start the next one that is due.

        Args:
            publish: Writes `broker_positions`.

        Raises:
            GatewayError: The download failed.
            LakeError: A table is busy; the same step is due again.
        """
        if feed.lapse():
            await publish()
        download = self._download
        if download is not None and download.cancelled():
            self._download = None
        elif download is not None and download.done():
            if download.exception() is None:
                await publish()
                if self._reason is not Reason.CHANGED:
                    await self.publisher.enqueue_all(routes, self._reason)
            self._download = None
            download.result()
        elif download is None and self.context.monotonic() >= self._next_at:
            self.start(feed, Reason.REFRESH)
        elif download is None and feed.positions_due:
            self._begin(Reason.CHANGED, feed.snapshot())
        elif download is None and (overdue := feed.overdue):
            self._begin(Reason.CHANGED, feed.download(overdue))
        elif download is None and self._accounts_to_download:
            accounts, self._accounts_to_download = self._accounts_to_download, set()
            # The login may have lost an account since the connection on which it changed.
            if accounts := accounts & set(feed.accounts):
                self._begin(Reason.CHANGED, feed.download(accounts))

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

    def _begin(self, reason: Reason, download: Awaitable[None]) -> None:
        self._reason = reason
        self._download = asyncio.ensure_future(download)
        if reason is not Reason.CHANGED:
            self.ended.clear()
            self._download.add_done_callback(lambda _: self.ended.set())


DOWNLOAD_S = 1.0
"""Maximum wait for the values of the accounts, in seconds, while lines wait for contracts."""


class RoutedBy(NamedTuple):
    """The inputs of the last routing: the conids with a line, and the legs with their version."""

    lines: frozenset[int]
    legs: tuple[ActiveContract, ...]
    version: int


@dataclass(eq=False, repr=False)
class Router:
    """Routes each holding to a line or to the queue, and publishes the broker's reports.

    Attributes:
        routes: The route of each holding.
    """

    context: OwnerContext
    _: KW_ONLY
    registry: StrategyRegistry
    publisher: Publisher
    contracts: ContractCache
    lines: LineManager
    pricer: StreamPricer
    greeks: ModelGreeks
    rules: RuleFollower | None = None

    def __post_init__(self) -> None:
        self._lease = self.context.lease
        self._sec_types = self.context.settings.sec_types
        self._registry_outage = OutageLog(logger)
        self.routes = Routes()
        self._changes: PendingChanges[Key] = PendingChanges()
        self._route_log = RouteLog(self.context.metrics)
        self._routed_by = RoutedBy(frozenset(), (), 0)
        self._expected: dict[Key, LegState] | None = None
        self._registry_version = self.registry.version
        self._account_refresh = AccountRefresh(self.context, self.publisher)
        self._resolver = LegResolver(self.context, self.registry, self.contracts.remember)
        self._followed = FollowedHoldings(self.context, self.publisher)

    @property
    def urgent(self) -> asyncio.Event:
        """Set while a fill waits for the next step."""
        return self._changes.urgent

    @property
    def downloaded(self) -> asyncio.Event:
        """Set when the values of all holdings have arrived, until the streamer clears it."""
        return self._account_refresh.ended

    def problems(self) -> list[str]:
        """Return why the registry cannot be read, and why legs have no contract."""
        fault = self._registry_outage.fault
        return ([fault] if fault else []) + [
            f"{leg.described} of strategy {leg.strategy_id} is not streamed: {leg.problem}"
            for leg in self.registry.unresolved
            if leg.problem
        ]

    def interrupt(self) -> None:
        """Cancel the running download: the gateway dropped its subscriptions."""
        self._account_refresh.interrupt()

    def definitions_restored(self) -> None:
        """Request soon what the gateway refused as unknown lately: it knows contracts again."""
        self.lines.definitions_restored()
        self.contracts.definitions_restored()
        self._resolver.definitions_restored()

    async def reset(self) -> None:
        """Remove the routes and values: a snapshot of the positions comes next."""
        await self._account_refresh.end()
        self.routes.clear()
        self._expected = None
        self.pricer.reset()
        self.lines.reopened()

    async def attach(self, connection: GatewayConnection, before: GatewayConnection | None) -> None:
        """Follow a new connection, from the holdings known before it.

        Args:
            before: The previous connection; with None, the holdings of the last owner are read.
        """
        connection.feed.book.remember(
            before.feed.book.reported().values()
            if before is not None
            else await self.publisher.restore()
        )
        connection.feed.book.magnifier = self.contracts.magnifier
        if connection.connectivity.knows_contracts:
            self.contracts.definitions_restored()
        self.publisher.follow(connection.feed)
        self.lines.attach(connection.lines)
        self.greeks.attach(connection)
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
            await self._follow(connection, changed, first=first)
        except Exception:
            self._changes.give_back(changed)
            raise
        if self.registry.unresolved:
            self._resolver.resolve_in_background(connection)
        await self.greeks.step(connection, self.routes)
        if self.publisher.watcher is not None:
            self.publisher.watcher.look_in_background(connection)
        self.contracts.fetch_in_background(connection, streamed=self.lines.held)

    async def close(self) -> None:
        """End the background tasks."""
        await self._account_refresh.end()
        await self._resolver.close()
        if self.publisher.watcher is not None:
            await self.publisher.watcher.close()
        await self.contracts.close()

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
            self._account_refresh.start(feed)
            await asyncio.sleep(0)
            if await self._queue_before_lines(connection):
                return  # the next step, which follows at once, requests the lines
        if first or changed:
            await self._publish(connection)
        first = first or self._expected is not None
        self.lines.renew(connection)
        self._account_refresh.add_changes(feed, changed)
        streamed = {key for key in changed if self._is_streamed(key)}
        self.pricer.mark_due(streamed)
        await self._read_registry(feed, None if first else changed)
        before, self._registry_version = self._registry_version, self.registry.version
        changed_legs = self.registry.version != before
        self.contracts.follow(self.registry.legs)
        compared = feed.book.reported(None if first else changed).values()
        self.contracts.compare_rows(row.instrument for row in compared if row.position)
        self.lines.follow(connection)
        stale = self.lines.are_due(connection) or self.lines.of_legs != self._routed_by.lines
        stale = stale or self.contracts.version != self._routed_by.version
        moved = self.routes.outdated(feed.book, changed)
        if changed_legs or first or moved or stale or self.routes.unqueued:
            await self._reroute(connection, None if first else moved)
        states, publish = self.routes.states, partial(self._publish, connection)
        if not self._account_refresh.opening:
            await self.publisher.enqueue_changed(states, changed - streamed)
        await self._account_refresh.step(feed, states, publish)
        await self._followed.step(
            connection, self.routes, publish, may_queue=self._account_refresh.idle
        )

    def _is_streamed(self, key: Key) -> bool:
        return self.routes.states.get(key) is LegState.STREAMED or self.pricer.is_due(key)

    async def _publish(self, connection: GatewayConnection) -> None:
        self._lease.check()
        connection.pnl.read()
        await self.publisher.publish(connection.feed, session=self._lease.session)

    async def _read_registry(self, feed: AccountFeed, changed: Collection[Key] | None) -> None:
        """Apply the rules to what changed, and read the registry.

        While it cannot be read or written, the legs known so far stay active.

        Args:
            changed: The holdings that changed; None for all.
        """
        rules, book = self.rules, feed.book
        keys = changed if changed is not None else [one.key for one in book.holdings]
        quantities = {} if rules is None else {key: book.position(key) for key in keys}
        is_due = rules is not None and rules.is_due(quantities, first=changed is None)
        try:
            if rules is not None and is_due:
                await offload(rules.follow, book.holdings, feed.accounts)
            await self.registry.refresh()
        except NewerTableError:
            raise
        except LakeError as error:
            text = f"the legs known so far stay active: {error}"
            if self._registry_outage.report(error.what, text=text):
                self._lease.renew_now()
            return
        if self._registry_outage.fault is not None:
            self._registry_outage.fault = None
            self._lease.renew_now()

    async def _reroute(self, connection: GatewayConnection, moved: set[Key] | None) -> None:
        """Allocate the lines, then route every holding whose route may have changed.

        Args:
            moved: The holdings that were opened or closed; None for all.
        """
        book = connection.feed.book
        lines = await self.lines.allocate(connection)
        legs, version = self.contracts.matching, self.contracts.version
        if moved is None:
            self.contracts.want(h.instrument.conid for h in book.holdings if h.position)
            holdings = book.holdings
        else:
            self.contracts.want(conid for _account, conid in moved)
            keys = moved.union(*(book.keys_of(conid) for conid in self._rerouted(lines, legs)))
            holdings = tuple(holding for key in keys if (holding := book.get(key)) is not None)
        self.contracts.want(leg.conid for leg in self.registry.legs)
        routed = route(holdings, legs, lines, sec_types=self._sec_types)
        expected, self._expected = self._expected or {}, None
        self._routed_by = RoutedBy(lines, legs, version)
        self._route_log.record(routed, self.lines.reason_for)
        changes = self.routes.update(routed)
        if moved is None:
            queued = sum(state in QUEUED for state in self.routes.states.values())
            logger.info("%d streamed, %d queued", len(self.routes.streamed), queued)
        self.pricer.add(changes.streamed)
        self.pricer.leave(changes.left)
        # The stream writes the zero row of a holding that it streamed, whenever it closed.
        self.pricer.close(changes.closed)
        # These were not queued with the others, because a line was expected for them.
        self.routes.unqueued |= {
            key
            for key, state in expected.items()
            if state is LegState.STREAMED and self.routes.states.get(key) in QUEUED
        }
        # Holdings that cannot be queued now stay due: the next step routes again.
        await self.publisher.enqueue(self.routes.states, self.routes.unqueued)
        self.routes.unqueued.clear()

    async def _queue_before_lines(self, connection: GatewayConnection) -> bool:
        """Queue the holdings that need no line, if lines must wait for unknown contracts.

        At the gateway's rate limit the contracts take seconds, and the values of the accounts take
        less than one second.

        Returns:
            Whether the lines have to wait.
        """
        self.contracts.follow(self.registry.legs)
        self.lines.follow(connection)
        lines = self.lines.legs_in(self.lines.chosen(connection))
        if not self.contracts.missing(lines):
            return False
        feed, legs = connection.feed, self.contracts.matching
        expected = route(feed.book.holdings, legs, lines, sec_types=self._sec_types)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.downloaded.wait(), DOWNLOAD_S)
        await self._publish(connection)
        await self._account_refresh.step(feed, expected, partial(self._publish, connection))
        self._expected = expected
        return True

    def _rerouted(self, lines: frozenset[int], legs: tuple[ActiveContract, ...]) -> frozenset[int]:
        """Return the conids whose line or legs changed since the last routing."""
        before = self._routed_by
        conids = lines ^ before.lines
        if self.contracts.version != before.version:
            conids |= {leg.conid for leg in set(legs) ^ set(before.legs)}
        return conids
