"""The flush of a stream: changes are valued once per interval, and delivered to the handlers.

Events of ticks and holdings go in, rows come out. Each handler gets the rows at its own pace: if a
slow table has not taken rows yet, it later gets only the newest row of each holding.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from datetime import timedelta

from position_sync_dagster import errors
from position_sync_dagster.domain.broker_position import AccountSummary, BrokerPosition, Key
from position_sync_dagster.domain.clock import Backoff, rest_s
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.login_lines import LoginLines
from position_sync_dagster.domain.streamed_holding import Moment, StreamedHolding, StreamRules
from position_sync_dagster.domain.update import PositionUpdate, PositionUpdateHandler
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.holdings import PendingChanges
from position_sync_dagster.lake.broker_positions import AccountValuesTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.sync.stream.contracts import ContractCache
from position_sync_dagster.sync.stream.model_greeks import PublishedGreeks
from position_sync_dagster.sync.stream.ownership import BackgroundWork, OwnerContext
from position_sync_dagster.sync.stream.publisher import Announcements

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class StreamPricer:
    """Passes events to the streamed holdings, and collects the rows that are due.

    Each holding has one state (`domain.streamed_holding`), and each line one record
    (`domain.login_lines`), which its holdings share.

    Args:
        lines: The records of the lines.
        contracts: The price magnifiers and the trading hours.
        greeks: Computed greeks, for the legs for which the gateway sends none.
    """

    context: OwnerContext
    lines: LoginLines
    contracts: ContractCache
    greeks: PublishedGreeks = field(default_factory=PublishedGreeks)

    def __post_init__(self) -> None:
        settings = self.context.settings
        self._rules = StreamRules(
            max_last_age=timedelta(seconds=settings.max_last_age_s),
            band=settings.value_band,
            heartbeat_s=settings.row_interval_s,
            closed_heartbeat_s=max(settings.row_interval_s, settings.monitored_row_interval_s),
        )
        self._holdings: dict[Key, StreamedHolding] = {}

    def reset(self) -> None:
        """Forget every holding: a snapshot of the positions comes next."""
        self._holdings = {}

    def mark_due(self, keys: Iterable[Key]) -> None:
        """Value these holdings at the next flush, with or without a tick."""
        for key in keys:
            self._holding(key).due = True

    def is_due(self, key: Key) -> bool:
        """Return whether the holding is to be valued at the next flush."""
        holding = self._holdings.get(key)
        return holding is not None and holding.due

    def reroute(self, key: Key, before: LegState | None, state: LegState) -> None:
        """Value a holding by its line from now on, or end that.

        A new line has a moment to tick before the first row is due; with a line that already ticks,
        the row is due at once. The stream writes the zero row of a holding that it streamed,
        whenever it closed. A holding that is left to the queue still has a row that is due, if the
        line works.
        """
        if LegState.STREAMED not in (before, state):
            return
        holding = self._holding(key)
        holding.streamed = state is LegState.STREAMED
        if holding.streamed:
            holding.due |= holding.line.trusted
        elif state is LegState.CLOSED:
            holding.due = True
        elif holding.line.refused or not holding.due:
            del self._holdings[key]

    def flush(
        self,
        connection: GatewayConnection,
        ticked: Collection[int],
        valued: Iterable[Key] = (),
    ) -> list[tuple[PositionUpdate, BrokerPosition]]:
        """Value the holdings that are due; return the rows worth writing, each with its holding.

        A holding whose account has not been downloaded yet waits: its price factor is checked
        against its portfolio row before its first row is written. A holding whose account is in
        doubt also waits.

        Args:
            ticked: The contracts that ticked since the last flush.
            valued: Holdings with a new profit or value by PnLSingle.
        """
        now, now_s = self.context.clock(), self.context.monotonic()
        by = self.context.lease.provenance
        quotes = {conid: connection.lines.quote(conid) for conid in ticked}
        self.lines.ticked(quotes, now, now_s)
        for key in valued:
            if (state := self._holdings.get(key)) is not None:
                state.due = True
        updates = []
        for key, state in list(self._holdings.items()):
            conid = key[1]
            if conid in ticked:
                state.ticked()
            if not state.is_due(now_s):
                continue
            holding = connection.feed.get(key)
            if holding is not None and not connection.feed.is_known(holding):
                continue
            if holding is not None:
                if conid not in quotes:
                    quotes[conid] = connection.lines.quote(conid)
                computed = self.greeks.of(holding)
                update = state.row(
                    holding if computed is None else replace(holding, greeks=computed),
                    quotes[conid],
                    Moment(
                        now=now,
                        now_s=now_s,
                        by=by,
                        hours=self.contracts.hours(conid),
                        price_magnifier=self.contracts.magnifier(conid),
                    ),
                )
                if update is not None:
                    updates.append((update, holding))
            if holding is None or not (state.streamed or state.due):
                del self._holdings[key]
        return updates

    def _holding(self, key: Key) -> StreamedHolding:
        state = self._holdings.get(key)
        if state is None:
            line = self.lines.line(key[1])
            state = self._holdings[key] = StreamedHolding(key=key, line=line, rules=self._rules)
        return state


# Errors that another attempt cannot repair.
FINAL = (errors.LeaseLostError, errors.TradingModeError, errors.ForeignTableError)

# Delays between attempts. They are shorter than the time that `close` waits for a delivery.
RETRY = Backoff(first_s=0.5, longest_s=2.0)

# An error is logged again after this long without one of its kind: a handler may raise for one leg
# only.
QUIET_S = 60.0

# Maximum wait for a cancelled handler to end.
CANCEL_TIMEOUT_S = 1.0


@dataclass(eq=False, repr=False)
class Delivery:
    """Delivers updates to one handler; a slow or failing handler does not affect the others.

    A newer update of a position replaces an undelivered older one: memory is bounded by the number
    of positions, and the newest value is never lost.

    A handler with the method `on_position_updates` gets each flush in one call. After any error,
    unless the lease is lost, it gets the updates again, replaced by newer values where there are
    any. A handler without this method gets each update once, since it may have acted on the update
    before it raised: the error is logged, and the update counts as delivered. After what is no
    `Exception`, as a panic of a library in Rust, either gets the flush again with the next one.

    After a slow flush, a handler of whole flushes gets nothing for `rest_s`, unless an update is
    urgent.

    Args:
        monotonic: The clock that times the failures, in seconds.

    Attributes:
        failures: How often the handler raised.
        refused: The error of a table that a later release has migrated: nothing more is written.
    """

    handler: PositionUpdateHandler
    _: KW_ONLY
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.failures = 0
        self.refused: errors.NewerTableError | None = None
        self._batched = getattr(self.handler, "on_position_updates", None)
        self._failed_s: dict[str, float] = {}
        self._pending: dict[Key, PositionUpdate] = {}
        self._is_closing = self._is_closed = False
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def put(self, updates: Iterable[PositionUpdate], *, urgent: bool = False) -> None:
        """Add updates; a newer one of a position replaces an undelivered older one.

        Args:
            urgent: Whether to deliver at once, without a pause: a position itself changed.
        """
        if urgent:
            self._urgent.set()
        self._pending |= {(one.account, one.conid): one for one in updates}
        if self._pending and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run())

    async def close(self, *, timeout_s: float) -> None:
        """Deliver the remaining updates, for at most `timeout_s` seconds, and end."""
        self._is_closing = True
        self.put((), urgent=True)
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=timeout_s)
        if not self._task.done():
            logger.error("%s did not accept its last updates", type(self.handler).__name__)
            self._is_closed = True
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_TIMEOUT_S)

    async def _run(self) -> None:
        """Deliver until nothing is pending."""
        failures, loop = 0, asyncio.get_running_loop()
        while self._pending and not self._is_closed:
            self._urgent.clear()
            updates, self._pending = list(self._pending.values()), {}
            began = loop.time()
            try:
                failed = await self._deliver(updates)
            except BaseException:
                self._put_back(updates)
                raise
            if failed:
                self._put_back(updates)
                failures += 1
                await asyncio.sleep(RETRY.delay_s(failures))
                continue
            failures = 0
            if self._batched is not None and not self._is_closing:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), rest_s(loop.time() - began))

    def _put_back(self, updates: list[PositionUpdate]) -> None:
        newer, self._pending = self._pending, {}
        self.put(updates)
        self.put(newer.values())

    async def _deliver(self, updates: list[PositionUpdate]) -> bool:
        """Call the handler, and return whether it must get the updates again."""
        if self._batched is None:
            for update in updates:
                try:
                    await self.handler.on_position_update(update)
                except Exception as error:  # noqa: BLE001 - a handler's own code: log it, go on
                    self._log_failure(error)
            return False
        try:
            await self._batched(updates)
        except Exception as error:  # noqa: BLE001 - as above
            self._log_failure(error)
            if isinstance(error, errors.NewerTableError):
                self.refused = error
            return not isinstance(error, FINAL)
        return False

    def _log_failure(self, error: Exception) -> None:
        """Log the error; each kind once per outage."""
        self.failures += 1
        kind, now_s = type(error).__name__, self.monotonic()
        last_s, self._failed_s[kind] = self._failed_s.get(kind, float("-inf")), now_s
        if now_s - last_s > QUIET_S:
            trace = None if isinstance(error, errors.PositionSyncError) else error
            name, text = type(self.handler).__name__, str(error) or kind
            logger.error("%s failed: %s", name, text, exc_info=trace)


# Minimum seconds between two commits of the amounts of accounts: one costs as much as a commit of
# the ledger.
ACCOUNT_EVERY_S = 5.0


@dataclass(eq=False, repr=False)
class AccountRecorder:
    """Writes a row for each account whose amounts changed, in one commit.

    Net liquidation and profit change with each tick: there is at most one commit each
    `ACCOUNT_EVERY_S`, with the newest amounts, and no flush waits for it.

    After a commit that failed, the table is read again, and what it lacks is due again.
    """

    context: OwnerContext
    table: AccountValuesTable

    def __post_init__(self) -> None:
        self._written: dict[str, AccountSummary] | None = None
        self._next_at = float("-inf")

    async def record(self, connection: GatewayConnection) -> None:
        """Write the changes since the last commit, if that is due.

        Raises:
            LakeError: The table cannot be used.
        """
        began = self.context.monotonic()
        if began < self._next_at:
            return
        written, self._written = self._written, None
        if written is None:
            summaries = await offload(self.table.latest_summaries)
            written = {row.account: row for row in summaries}
        provenance = asdict(self.context.lease.provenance)
        rows = {
            row.account: replace(row, **provenance)
            for row in connection.summaries.current()
            if (before := written.get(row.account)) is None or before.amounts != row.amounts
        }
        if rows:
            await offload(self.table.append, list(rows.values()))
            ended = self.context.monotonic()
            self._next_at = ended + max(ACCOUNT_EVERY_S, rest_s(ended - began))
        self._written = written | rows


# Time limit for each handler to accept its last updates at the end of the stream.
CLOSE_TIMEOUT_S = 5.0


@dataclass(eq=False, repr=False)
class Flusher:
    """Delivers the newest value of each streamed holding to the handlers, once per interval.

    Args:
        announced: States of holdings with a row or request already; a close is written once.
        account_values: Gets the values of the accounts; with None, they are not subscribed.
    """

    context: OwnerContext
    pricer: StreamPricer
    announced: Announcements
    account_values: AccountValuesTable | None = None

    def __post_init__(self) -> None:
        self._ticks: PendingChanges[int] = PendingChanges()
        self._deliveries: list[Delivery] = []
        table = self.account_values
        self._accounts = None if table is None else AccountRecorder(self.context, table)
        self._beside = BackgroundWork(self.context.monotonic)

    def add_handler(self, handler: PositionUpdateHandler) -> None:
        """Add a handler that gets each flush."""
        self._deliveries.append(Delivery(handler, monotonic=self.context.monotonic))

    def watch(self, connection: GatewayConnection) -> None:
        """Collect the ticks of a new connection."""
        self._ticks = connection.lines.watch()

    async def run(self, live_connection: Callable[[], GatewayConnection | None]) -> None:
        """Flush once per interval, independent of the tables and requests of other steps.

        Args:
            live_connection: Returns the connection, or None while nothing may be flushed.

        Raises:
            LeaseLostError: The login belongs to another process now.
            NewerTableError: A later release has migrated a table.
        """
        while True:
            await asyncio.sleep(self.context.settings.flush_interval_s)
            connection = live_connection()
            for delivery in self._deliveries:
                if delivery.refused is not None:
                    raise delivery.refused
            if connection is not None and not self.context.lease.suspended:
                self._flush(connection)

    async def close(self) -> None:
        """Deliver the remaining updates, and end the deliveries."""
        for delivery in self._deliveries:
            await delivery.close(timeout_s=CLOSE_TIMEOUT_S)
        await self._beside.end(within_s=CLOSE_TIMEOUT_S)

    def _flush(self, connection: GatewayConnection) -> None:
        self.context.lease.check()
        valued = self.pricer.flush(connection, self._ticks.take(), connection.pnl.take_valued())
        due = [
            (update, holding)
            for update, holding in valued
            if update.position or not self.announced.is_held(holding.key, 0.0)
        ]
        urgent = not all(
            self.announced.is_held(holding.key, update.position) for update, holding in due
        )
        self.announced.record(holding for _update, holding in due)
        for delivery in self._deliveries:
            delivery.put([update for update, _holding in due], urgent=urgent)
        if self._accounts is not None:
            connection.summaries.subscribe()
            self._beside.begin("account_values", self._accounts.record, connection)
