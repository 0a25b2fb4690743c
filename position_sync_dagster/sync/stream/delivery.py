"""Delivers rows of streamed holdings to the handlers, and the amounts of accounts to their table.

`Flusher` values what changed once per interval, or at each tick where a handler wants it at once.
Each handler gets the rows at its own pace: if a slow table has not taken rows yet, it later gets
only the newest row of each holding.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.position_update import PositionUpdate, PositionUpdateHandler
from position_sync_dagster.domain.retry import Backoff, rest_s
from position_sync_dagster.errors import (
    ForeignTableError,
    LakeError,
    LeaseLostError,
    NewerTableError,
    PositionSyncError,
    TradingModeError,
)
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.holdings import PendingChanges
from position_sync_dagster.lake.account_values import AccountValuesTable
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.sync.stream.ownership import BackgroundWork, Ownership
from position_sync_dagster.sync.stream.parts import LiveConnection
from position_sync_dagster.sync.stream.pricing import StreamPricer, ValuedRows
from position_sync_dagster.sync.stream.publisher import Submissions
from position_sync_dagster.sync.waits import wait_for_first

logger = logging.getLogger(__name__)

# Errors of a table that another attempt cannot repair: nothing more of this stream is written.
ENDS_STREAM = (
    LeaseLostError,
    TradingModeError,
    ForeignTableError,
    NewerTableError,
)

DELIVERY_RETRY = Backoff(first_s=0.5, longest_s=2.0)


@dataclass(eq=False, repr=False)
class HandlerDelivery:
    """Delivers updates to one handler; a slow or failing handler does not affect the others.

    A newer update of a position replaces an undelivered older one: memory is bounded by the number
    of positions, and the newest value is never lost.

    A handler with the method `on_position_updates` gets each flush in one call. After an error it
    gets the updates again, replaced by newer values where there are any; an error of `ENDS_STREAM`
    ends the stream. A handler without this method gets each update once, since it may have acted on
    the update before it raised: the error is logged, and the update counts as delivered. After what
    is no `Exception`, as a panic of a library in Rust, either gets the flush again with the next
    one.

    After a slow flush, a handler of whole flushes gets nothing for `rest_s`, unless an update is
    urgent.

    Attributes:
        immediate: Whether it gets the rows of each tick before the flush.
        delays: Those between attempts, shorter than the time that `close` waits for a delivery.
        cancel_s: Maximum wait for a cancelled handler to end.
        failures: How often the handler raised.
        refused: The error that ends the stream: nothing more is written.
    """

    handler: PositionUpdateHandler
    immediate: bool = False
    delays: Backoff = DELIVERY_RETRY
    cancel_s: float = 1.0

    def __post_init__(self) -> None:
        self.failures = 0
        self.refused: LakeError | None = None
        # Its method for whole flushes; None: it gets each update by itself.
        self._batched = getattr(self.handler, "on_position_updates", None)
        self._outage = OutageLog(logger)
        self._pending: dict[Key, PositionUpdate] = {}  # not delivered yet, in order
        self._is_closing = False  # without pauses from now on
        self._is_closed = False  # what is still pending is given up
        self._urgent = asyncio.Event()  # ends the pause after a slow flush
        self._task: asyncio.Task[None] | None = None  # `_run`, while anything is pending

    def put(self, updates: Iterable[PositionUpdate], *, urgent: bool = False) -> None:
        """Add updates; a newer one of a position replaces an undelivered older one.

        Args:
            urgent: Whether to deliver at once, without a pause: a position itself changed.
        """
        if urgent:
            self._urgent.set()
        for update in updates:
            key = (update.account, update.conid)
            self._pending.pop(key, None)  # the newer one comes in its own order
            self._pending[key] = update

        is_running = self._task is not None and not self._task.done()
        if self._pending and not is_running and self.refused is None:
            self._task = asyncio.create_task(self._run())

    async def close(self, *, timeout_s: float) -> None:
        """Deliver the remaining updates, for at most `timeout_s` seconds, and end."""
        self._is_closing = True
        self.put((), urgent=True)  # ends a pause, and begins again after what was no `Exception`
        if self._task is None:
            return

        await asyncio.wait({self._task}, timeout=timeout_s)
        if not self._task.done():
            logger.error("%s did not accept its last updates", type(self.handler).__name__)
            self._is_closed = True
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=self.cancel_s)

    async def _run(self) -> None:
        """Deliver until nothing is pending, or the handler refuses all that may come."""
        loop = asyncio.get_running_loop()
        failures = 0
        while self._pending and not self._is_closed:
            self._urgent.clear()
            batch = self._pending
            self._pending = {}
            began_s = loop.time()
            is_delivered = False

            try:
                is_delivered = await self._deliver(list(batch.values()))
            finally:
                if not is_delivered:  # again, but for what came anew meanwhile
                    self._pending = batch | self._pending

            if self.refused is not None:
                return
            if not is_delivered:
                failures += 1
                await asyncio.sleep(self.delays.delay_s(failures))
                continue

            failures = 0
            # A handler that gets each update by itself (`_batched` is None) needs no pause.
            if self._batched is not None and not self._is_closing:
                await wait_for_first([self._urgent], timeout_s=rest_s(loop.time() - began_s))

    async def _deliver(self, updates: list[PositionUpdate]) -> bool:
        """Call the handler; return whether the updates are done, and not to be delivered again."""
        failures = self.failures
        if self._batched is None:
            for update in updates:
                try:
                    await self.handler.on_position_update(update)
                except Exception as error:  # noqa: BLE001 - a handler's own code: log it, go on
                    self._log_failure(error)
        else:
            try:
                await self._batched(updates)
            except Exception as error:  # noqa: BLE001 - as above
                self._log_failure(error)
                if isinstance(error, ENDS_STREAM):
                    self.refused = error
                return False

        if self.failures == failures:
            self._outage.fault = None
        return True

    def _log_failure(self, error: Exception) -> None:
        """Log the error, unless the last one of the same outage was of its kind."""
        self.failures += 1
        kind = type(error).__name__
        self._outage.report(
            kind,
            text=f"{type(self.handler).__name__} failed: {str(error) or kind}",
            error=None if isinstance(error, PositionSyncError) else error,
        )


# Minimum seconds between two commits of the amounts of accounts: one costs as much as a commit of
# the ledger.
ACCOUNT_EVERY_S = 5.0


@dataclass(eq=False, repr=False)
class AccountRecorder:
    """Writes a row for each account whose amounts changed, in one commit.

    Net liquidation and profit change with each tick: there is at most one commit each
    `ACCOUNT_EVERY_S`, with the newest amounts, and no flush waits for it. Each row has the profit
    of the open holdings beside that of the account: no later reading finds both at one moment.

    After a commit that failed, the same changes are due again.
    """

    ownership: Ownership
    table: AccountValuesTable

    def __post_init__(self) -> None:
        self._written: dict[str, AccountSummary] = {}  # the newest of each account
        self._next_at_s = float("-inf")  # no commit comes earlier

    async def record(self, connection: GatewayConnection) -> None:
        """Write the changes since the last commit, if that is due.

        Each flush begins it in the background. After a slow commit the pause is longer (`rest_s`).

        Raises:
            LakeError: The table cannot be used.
        """
        began = self.ownership.monotonic()
        if began < self._next_at_s:
            return

        provenance = asdict(self.ownership.provenance)
        changed = {}
        of_types = self.ownership.settings.sec_types
        book = connection.feed.book
        for values in connection.summaries.current():
            summary = values.with_open_profit(
                book.daily_profits(values.account, of_types),
                number=book.open_in(values.account, of_types),  # also those of unknown profit
            )
            before = self._written.get(summary.account)
            if before is None or before.content != summary.content:
                changed[summary.account] = replace(summary, **provenance)

        if changed:
            await offload(self.table.append, list(changed.values()))
            ended = self.ownership.monotonic()
            self._next_at_s = ended + max(ACCOUNT_EVERY_S, rest_s(ended - began))
            self._written |= changed


# Time limit for each handler to accept its last updates at the end of the stream.
CLOSE_TIMEOUT_S = 5.0


@dataclass(eq=False, repr=False)
class Flusher:
    """Delivers the newest value of each streamed holding to the handlers, once per interval.

    Where a handler is immediate, holdings are valued at their ticks, and that value goes into the
    next flush.

    Args:
        submitted: States of holdings with a row or request already; a close is written once.
        account_values: Gets the values of the accounts; with None, they are not subscribed.
    """

    ownership: Ownership
    pricer: StreamPricer
    submitted: Submissions
    account_values: AccountValuesTable | None = None

    def __post_init__(self) -> None:
        self._ticks: PendingChanges[int] = PendingChanges()  # conids that ticked and are not valued
        self._live_connection: LiveConnection = lambda: None  # that of `run`; none before and after
        self._deliveries: list[HandlerDelivery] = []  # one for each handler
        # Rows since the last flush, for the handlers that are not immediate.
        self._rows: list[PositionUpdate] = []
        # Whether a quantity changed in them: then no handler pauses before they are delivered.
        self._urgent = False
        table = self.account_values
        self._accounts = None if table is None else AccountRecorder(self.ownership, table)
        self._beside = BackgroundWork(self.ownership.monotonic)  # no flush waits for it

    def add_handler(self, handler: PositionUpdateHandler, *, immediate: bool = False) -> None:
        """Add a handler, or change when one gets its rows: with each tick, or with each flush."""
        for delivery in self._deliveries:
            if delivery.handler is handler:
                delivery.immediate = immediate
                return
        self._deliveries.append(HandlerDelivery(handler, immediate))

    def watch(self, connection: GatewayConnection) -> None:
        """Collect the ticks of a new connection."""
        self._ticks = connection.lines.ticked.watch()
        connection.ib.pendingTickersEvent += self._on_ticks

    def unwatch(self, connection: GatewayConnection) -> None:
        """Leave a connection, which others may go on to use."""
        connection.ib.pendingTickersEvent -= self._on_ticks

    async def run(self, live_connection: LiveConnection) -> None:
        """Flush once per interval, independent of the tables and requests of other steps.

        Args:
            live_connection: Returns the connection, or None while nothing may be flushed.

        Raises:
            LakeError: A handler raised an error of `ENDS_STREAM`, or the lease is lost.
        """
        self._live_connection = live_connection
        while True:
            await asyncio.sleep(self.ownership.settings.flush_interval_s)
            connection = live_connection()
            for delivery in self._deliveries:
                if delivery.refused is not None:
                    raise delivery.refused
            # Suspended: the lease ran out, and may still be renewed.
            if connection is not None and not self.ownership.suspended:
                self._flush(connection)

    async def close(self) -> None:
        """Deliver the remaining updates; end the deliveries, and the commit of `account_values`."""
        self._live_connection = lambda: None  # later ticks are not valued
        self._deliver_rows()
        for delivery in self._deliveries:
            await delivery.close(timeout_s=CLOSE_TIMEOUT_S)
        await self._beside.end(within_s=CLOSE_TIMEOUT_S)

    def _on_ticks(self, _tickers: object) -> None:
        """Value what ticked, and deliver it, if a handler wants that at once."""
        connection = self._live_connection()
        if connection is None or not any(delivery.immediate for delivery in self._deliveries):
            return
        if not self.ownership.suspended:  # else the lease ran out, and nothing is written
            self._take(self.pricer.value_ticked(connection, self._ticks.take()))

    def _take(self, valued: ValuedRows) -> None:
        """Deliver rows to the immediate handlers, and keep them for the flush.

        Each flush calls it; each tick as well, if a handler is immediate.
        """
        updates = []
        for update, holding in valued:
            # Another quantity than the one that was written or queued last.
            has_moved = not self.submitted.is_held(holding.key, update.position)
            if update.position or has_moved:  # a close has one row, whoever was first to write it
                self._urgent |= has_moved  # then no handler pauses before it gets the rows
                self.submitted.record([holding])
                updates.append(update)
        self._rows += updates
        for delivery in self._deliveries:
            if delivery.immediate:
                delivery.put(updates, urgent=True)

    def _deliver_rows(self) -> None:
        """Deliver the rows since the last flush to the handlers that are not immediate."""
        for delivery in self._deliveries:
            if not delivery.immediate:
                delivery.put(self._rows, urgent=self._urgent)
        self._rows = []
        self._urgent = False

    def _flush(self, connection: GatewayConnection) -> None:
        """Value what is due, and deliver it with the rows of ticks since the last flush."""
        if self.ownership.lost.is_set():  # a lease that only ran out may still be renewed
            self.ownership.check()
        profits = connection.pnl
        self._take(self.pricer.flush(connection, self._ticks.take(), profits.valued))
        profits.valued.clear()
        self._deliver_rows()

        if self._accounts is not None:
            connection.summaries.subscribe()
            self._beside.begin("account_values", self._accounts.record, connection)


@dataclass(eq=False, repr=False)
class UpdatesWriter:
    """The handler that checks the lease, then writes and counts streamed updates."""

    table: PositionUpdatesTable
    ownership: Ownership

    async def on_position_update(self, update: PositionUpdate) -> None:
        await self.on_position_updates([update])

    async def on_position_updates(self, updates: Sequence[PositionUpdate]) -> None:
        """Write updates in one commit, unless the lease is over."""
        self.ownership.check()
        written = await self.table.append(updates)
        if written.rows:
            counts = self.ownership.counts
            counts.rows += written.rows
            counts.commits += 1
