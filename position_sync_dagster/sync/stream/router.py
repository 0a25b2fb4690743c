"""One step of the stream: tables, lines, routes and queue follow the broker and the registry."""

import asyncio
import logging
from collections import Counter
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass

from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.leg import LegState, route
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.errors import LakeError, NewerTableError
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.codes import Listener
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
from position_sync_dagster.sync.stream.broker_values import AccountRefresh, FollowedHoldings
from position_sync_dagster.sync.stream.contracts import (
    ContractCache,
    LegResolver,
    not_streamed,
)
from position_sync_dagster.sync.stream.lines import StreamLines
from position_sync_dagster.sync.stream.ownership import BackgroundWork, Ownership
from position_sync_dagster.sync.stream.parts import (
    ChangeFollower,
    MakesGreeks,
    PublishedGreeks,
    RulesOfLegs,
)
from position_sync_dagster.sync.stream.position_changes import ChangeWatcher
from position_sync_dagster.sync.stream.pricing import StreamPricer
from position_sync_dagster.sync.stream.publisher import Publisher, Submissions
from position_sync_dagster.sync.stream.routes import Routes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTables:
    """The tables that a stream uses besides the registry and the queue, and what an extension adds.

    Attributes:
        broker_positions: Keeps the positions of the broker.
        contracts: Keeps its contract details.
        account_values: Gets the net liquidation and profit of the accounts; with None, they are not
            subscribed.
        position_changes: Gets each change of a quantity, before that is published.
        followers: Follow the stored changes, in this order; an extension appends its own.
        rules: Chooses legs by the rules of the strategies file.
        greeks: Makes what computes greeks for options without any; with None, they have none.
        listeners: Each gets every message of the gateway.
        beside: What `stream` enters before it connects, and leaves after its last row.
        updates: The ledger. It shows at the start which closes have their row already.
        ownership: The lease, checked before each write; the tables are then those of an initialized
            lake. None: the streamer takes one of its own.
    """

    broker_positions: BrokerPositionsTable | None = None
    contracts: ContractsTable | None = None
    account_values: AccountValuesTable | None = None
    position_changes: RecordsTable[PositionChange] | None = None
    followers: tuple[ChangeFollower, ...] = ()
    rules: RulesOfLegs | None = None
    greeks: MakesGreeks | None = None
    listeners: tuple[Listener, ...] = ()
    beside: tuple[AbstractAsyncContextManager[object], ...] = ()
    updates: PositionUpdatesTable | None = None
    ownership: Ownership | None = None


@dataclass(eq=False, repr=False)
class Router:
    """Routes each holding to a line or to the queue, and publishes the broker's reports.

    Attributes:
        routes: The route of each holding.
        submitted: Which state of each holding was written or queued last.
        account_refresh: The downloads of the accounts.
    """

    ownership: Ownership
    registry: StrategyRegistry
    queue: PositionQueue
    tables: StreamTables

    def __post_init__(self) -> None:
        ownership = self.ownership
        tables = self.tables
        greeks = PublishedGreeks()
        self.submitted = Submissions(tables.updates)
        self._watcher: ChangeWatcher | None = None  # None: no change is stored
        if tables.position_changes is not None:
            self._watcher = ChangeWatcher(ownership, tables.position_changes, tables.followers)
        self._publisher = Publisher(
            ownership,
            self.queue,
            tables.broker_positions,
            self.submitted,
            greeks=greeks,
            watcher=self._watcher,
        )

        self.contracts = ContractCache(tables.contracts, clock=ownership.clock)
        self.lines = StreamLines(ownership, self.contracts)
        self.pricer = StreamPricer(ownership, self.lines.login, self.contracts, greeks)
        self.greeks = None
        if tables.greeks is not None:
            self.greeks = tables.greeks(ownership, self.contracts, self.lines, greeks)
        self.account_refresh = AccountRefresh(ownership, self._publisher)
        self._resolver = LegResolver(ownership, self.registry, self.contracts)
        self._followed = FollowedHoldings(ownership, self._publisher)
        self._beside = BackgroundWork(ownership.monotonic)  # no step waits for it

        self.routes = Routes()
        # Holdings that changed since the last step; a changed quantity is urgent.
        self._unrouted: PendingChanges[Key] = PendingChanges()
        self._routed_as_of: tuple[object, ...] = ()  # `_as_of` at the last routing
        self._registry_outage = OutageLog(logger)

    @property
    def urgent(self) -> asyncio.Event:
        """Set while a fill waits for the next step."""
        return self._unrouted.urgent

    def problems(self) -> list[str]:
        """Return why the registry cannot be read, and why legs have no contract."""
        return [
            *filter(None, [self._registry_outage.fault]),
            *(not_streamed(leg, leg.problem) for leg in self.registry.unresolved if leg.problem),
        ]

    def definitions_restored(self) -> None:
        """Request soon what the gateway did not know: IB, or its farm of definitions, is back."""
        self.lines.definitions_restored()
        self.contracts.definitions_restored()
        self._resolver.definitions_restored()

    async def reset(self) -> None:
        """Remove the routes and values: a snapshot of the positions comes next."""
        await self.account_refresh.end()
        self.routes.clear()
        self.pricer.reset()
        self.lines.reopened()

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
        book.magnifier = self.contracts.magnifier  # for the prices of PnLSingle values

        # What the previous connection did not know is requested soon, unless IB or its farm of
        # definitions is away now: then the gateway refuses every contract as unknown.
        if connection.connectivity.knows_contracts:
            self.contracts.definitions_restored()
        self._publisher.attach(connection.feed)
        self.lines.attach(connection.lines)
        if self.greeks is not None:
            self.greeks.attach(connection)
        self._unrouted = book.changes.watch()

    async def step(self, connection: GatewayConnection, *, first: bool = False) -> None:
        """Publish, route and queue what changed since the last step.

        Args:
            first: Whether this is the first step after a snapshot of the positions. It publishes
                and routes everything, and starts the download of the accounts.

        Raises:
            LakeError: A table cannot be used; the same changes are due again.
            GatewayError: A request to the gateway failed.
        """
        changed = self._unrouted.take()
        try:
            await self._update(connection, changed, first=first)
        except Exception:
            self._unrouted.note(*changed)
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

    async def _update(
        self, connection: GatewayConnection, changed: set[Key], *, first: bool
    ) -> None:
        """Publish, read the registry, choose the lines, route and queue, in this order."""
        feed = connection.feed
        if first:
            # The one request of this download precedes those of the lines, which take seconds at
            # the gateway's rate limit; the values arrive meanwhile.
            self.account_refresh.start(feed)
            await asyncio.sleep(0)  # its task sends the request now
        if first or changed:
            await self._publisher.publish(feed)

        self.lines.renew(connection)  # those that seem dead
        states = self.routes.states
        # Of these the stream writes the next row, that of a close included: they are not queued.
        streamed = {
            key
            for key in changed
            if states.get(key) is LegState.STREAMED or self.pricer.is_due(key)
        }
        self.pricer.mark_due(streamed)  # at the next flush, also without a tick

        await self._read_registry(feed, first=first)
        self.contracts.set_legs(self.registry.legs)
        self.lines.update(connection)
        has_changed = self._as_of(feed.book) != self._routed_as_of
        must_reroute = has_changed or self.lines.are_due(connection)
        if first or must_reroute or self.routes.unqueued:  # some wait for a request
            await self._reroute(connection)
        states = self.routes.states
        if first:
            number = Counter(states.values())
            queued = number[LegState.OVERFLOW] + number[LegState.MONITORED]
            logger.info("%d streamed, %d queued", number[LegState.STREAMED], queued)

        if not self.account_refresh.opening:  # else all are queued at its end
            await self._publisher.enqueue_changed(states, changed - streamed)
        await self.account_refresh.step(feed, states)
        await self._followed.step(connection, self.routes, may_queue=self.account_refresh.idle)

    async def _read_registry(self, feed: AccountFeed, *, first: bool) -> None:
        """Apply the rules of an extension, which choose legs, to what changed; read the registry.

        At the first step of a connection (`first`) they are applied in any case. While the registry
        cannot be read or written, the legs known so far stay active.
        """
        rules = self.tables.rules
        book = feed.book
        fault_before = self._registry_outage.fault
        try:
            if rules is not None and rules.is_due(book.moves, first=first):
                await offload(rules.apply, book.holdings, feed.accounts, book.moves)
            await self.registry.refresh()
            self._registry_outage.fault = None

        except NewerTableError:
            raise
        except LakeError as error:
            text = f"the legs known so far stay active: {error}"
            self._registry_outage.report(error.what, text=text)

        if self._registry_outage.fault != fault_before:
            self.ownership.renew_now()  # the detail of the session has the fault

    def _as_of(self, book: HoldingsBook) -> tuple[object, ...]:
        """Return what changes when a holding opens or closes, or a leg or a line changes."""
        return (book.moves, self.registry.version, self.contracts.version, self.lines.of_legs)

    async def _reroute(self, connection: GatewayConnection) -> None:
        """Allocate the lines, then route every holding."""
        book = connection.feed.book
        lines = await self.lines.allocate(connection)
        self._routed_as_of = self._as_of(book)

        holdings = book.rows
        held = [holding.instrument.conid for holding in holdings if holding.position]
        self.contracts.want([*held, *(leg.conid for leg in self.registry.legs)])

        routed = route(
            holdings, self.contracts.matching, lines, sec_types=self.ownership.settings.sec_types
        )
        for key, before in self.routes.update(routed).items():
            self.pricer.reroute(key, before, routed[key])

        # Holdings that cannot be queued now stay due: the next step routes again.
        await self._publisher.enqueue(self.routes.states, self.routes.unqueued)
        self.routes.unqueued.clear()
