"""What an owner writes: `broker_positions`, requests of the queue, and rows of streamed holdings.

`Announcements` remembers which state of a holding was last written as a row or queued.
`CloseWatcher` stores each change of a quantity before it is published, and asks the gateway why.
`Flusher` values what changed once per interval. Each handler gets the rows at its own pace: if a
slow table has not taken rows yet, it later gets only the newest row of each holding.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from datetime import timedelta

import polars as pl

from position_sync_dagster import errors
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.closes import Execution, PositionChange
from position_sync_dagster.domain.holding import (
    AccountConfirmation,
    BrokerPosition,
    Key,
    has_moved,
    is_repeated,
)
from position_sync_dagster.domain.leg import QUEUED, LegState
from position_sync_dagster.domain.login_lines import LoginLines
from position_sync_dagster.domain.position_update import (
    PositionUpdate,
    PositionUpdateHandler,
    ValueOrigin,
)
from position_sync_dagster.domain.queue_request import (
    ACTIVE_PRIORITY,
    MONITORING_PRIORITY,
    QueueRequest,
    Reason,
)
from position_sync_dagster.domain.retry import Backoff, rest_s
from position_sync_dagster.domain.valuation import Moment, StreamedHolding, StreamRules
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.connection import DayExecutions, GatewayConnection
from position_sync_dagster.gateway.holdings import PendingChanges
from position_sync_dagster.lake.account_values import AccountValuesTable
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.storage.table import offload
from position_sync_dagster.sync.explain_closes import CloseExplainer, after_changes, changes_between
from position_sync_dagster.sync.leg_followers import RollFollower
from position_sync_dagster.sync.stream.contracts import ContractCache
from position_sync_dagster.sync.stream.model_greeks import PublishedGreeks
from position_sync_dagster.sync.stream.ownership import BackgroundWork, OwnerContext

logger = logging.getLogger(__name__)


class Announcements:
    """Remembers the last announcement of each holding: a streamed row or a request.

    The stream and the queue share it, so that a close has exactly one zero row: whichever is first
    writes it, and the other one omits it.

    Args:
        updates: The ledger, which shows at the start which closes have their zero row. Without it,
            every recent close is announced again.

    Attributes:
        open_at_start: Holdings that are open in the ledger at the start, by their newest rows.
        unwritten: Closes from before the start that the ledger has no zero row of.
    """

    def __init__(self, updates: PositionUpdatesTable | None = None) -> None:
        self._updates = updates
        # None: a holding that closed before the start, and has no zero row.
        self._announced: dict[Key, BrokerPosition | None] = {}
        self.open_at_start: frozenset[Key] = frozenset()
        self.unwritten: frozenset[Key] = frozenset()

    async def restore(self, holdings: Collection[BrokerPosition]) -> None:
        """Continue from the holdings that the last owner of the login wrote.

        `broker_positions` is written before the rows. If a process dies in between, the zero row of
        a close is missing, and the next owner writes it, however long that takes.
        """
        closed = frozenset[Key]()
        if self._updates is not None:
            rows = await self._updates.latest()
            closed = _keys(rows, pl.col("position") == 0)
            self.open_at_start = _keys(rows, pl.col("position") != 0)
        gone = {holding.key for holding in holdings if not holding.position}
        self.unwritten = self.open_at_start & gone
        self._announced = {
            holding.key: holding if holding.position or holding.key in closed else None
            for holding in holdings
        }

    def record(self, holdings: Iterable[BrokerPosition]) -> None:
        """Record that a row was written, or a request queued, for these states of holdings."""
        self._announced |= {holding.key: holding for holding in holdings}

    def last(self, key: Key) -> BrokerPosition | None:
        """Return a holding as it was announced last; None if it was not."""
        return self._announced.get(key)

    def is_current(self, holding: BrokerPosition) -> bool:
        """Return whether no change of this holding needs a new row at once."""
        last = self.last(holding.key)
        return last is not None and _fingerprint(last) == _fingerprint(holding)

    def is_held(self, key: Key, position: float) -> bool:
        """Return whether this quantity of a holding was announced last."""
        last = self.last(key)
        return last is not None and last.position == position

    def lacks_zero_row(self, holding: BrokerPosition) -> bool:
        """Return whether a holding is closed now, and its close was not announced."""
        was_held = holding.key in self._announced
        return was_held and not holding.position and not self.is_current(holding)


def _keys(rows: pl.DataFrame, condition: pl.Expr) -> frozenset[Key]:
    """Return the holdings of the rows that meet a condition."""
    return frozenset(rows.filter(condition).select("account", "conid").iter_rows())


def _fingerprint(holding: BrokerPosition) -> tuple[float, bool]:
    """Return the quantity and whether the value is known: a change of these needs a row at once."""
    return (holding.position, holding.position == 0 or holding.market_value is not None)


# How long a closed holding stays in `broker_positions`; longer if its zero row was not written.
CLOSED_KEPT = timedelta(days=2)

# Seconds after a change, or after the start, at which the gateway is asked for the executions of
# the day: commissions follow an execution, and shares may come minutes after an option is gone. If
# the last request is not answered, it is repeated after the longest time, until it is.
LOOKS_S = (0.0, 5.0, 60.0, 960.0)


@dataclass(eq=False, repr=False)
class CloseWatcher:
    """Stores changes before they are published, then looks for their causes in the background.

    After a start it looks for the causes that an earlier process did not find.

    Args:
        rolls: Replaces the legs of strategies that follow rolls, after the causes were judged.
    """

    context: OwnerContext
    explainer: CloseExplainer
    rolls: RollFollower | None = None

    def __post_init__(self) -> None:
        self._due = self._looks()

    async def record(self, changes: list[PositionChange]) -> None:
        """Store changes; looks for their executions are due at `LOOKS_S` from now on.

        Raises:
            LakeError: The table cannot be written, or it has them and did not confirm it.
        """
        self.context.lease.check()
        self._due = sorted({*self._due, *self._looks()})
        await offload(self.explainer.record, changes)

    async def unpublished(
        self, published: Mapping[Key, BrokerPosition]
    ) -> dict[Key, BrokerPosition]:
        """Return the holdings whose changes were stored, and then not published.

        Args:
            published: All holdings of the login, and those that closed lately.

        Raises:
            LakeError: The table cannot be read.
        """
        seen = [one.confirmed_at or one.received_at for one in published.values()]
        since = max(seen) - CLOSED_KEPT if seen else None
        changes = await offload(self.explainer.lake.position_changes.records, since)
        gateway_id = self.context.settings.gateway_id
        return after_changes(published, (one for one in changes if one.gateway_id == gateway_id))

    def _looks(self) -> list[float]:
        now_s = self.context.monotonic()
        return [now_s + delay for delay in LOOKS_S]

    async def look_if_due(self, connection: GatewayConnection) -> None:
        """Ask the gateway for the executions of the day if a look is due, and judge the closes.

        Raises:
            LakeError: A table cannot be used; the look is due again.
        """
        now_s = self.context.monotonic()
        if not self._due or self._due[0] > now_s:
            return
        answer = await connection.executions()
        await self.look(connection.accounts, answer)
        self._due = [at for at in self._due if at > now_s]
        if answer is None and not self._due:
            self._due = [self.context.monotonic() + LOOKS_S[-1]]

    async def look(self, accounts: Iterable[str], answer: DayExecutions | None) -> None:
        """Judge the closes by what the gateway answered; None if it did not answer.

        Raises:
            LakeError: A table cannot be used.
        """
        self.context.lease.check()
        executions: Sequence[Execution] = () if answer is None else answer.executions
        span = None if answer is None else (answer.begin, answer.end)
        asked = {} if span is None else dict.fromkeys(accounts, span)
        await offload(self.explainer.explain, executions, asked)
        if self.rolls is not None:
            await offload(self.rolls.follow)


_Accounts = Mapping[str, AccountConfirmation]


@dataclass(eq=False, repr=False)
class Publisher:
    """Writes `broker_positions`, and queues the holdings that are not streamed.

    Args:
        queue: Without it, nothing is queued.
        broker_positions: Without it, nothing is written.
        announced: The announcements so far; requests are added to them.
        greeks: The computed greeks of options.
        watcher: Stores the changes of quantities before they are published, if there is one.
    """

    context: OwnerContext
    queue: PositionQueue | None
    broker_positions: BrokerPositionsTable | None
    announced: Announcements
    _: KW_ONLY
    greeks: PublishedGreeks = field(default_factory=PublishedGreeks)
    watcher: CloseWatcher | None = None

    def __post_init__(self) -> None:
        self._published: dict[Key, BrokerPosition] = {}
        # The changes that were stored and not published; None: the table has to be read.
        self._recorded: dict[Key, BrokerPosition] | None = {}
        self._all_due = True
        self._changes: PendingChanges[Key] = PendingChanges()
        self._accounts: _Accounts = {}

    async def restore(self) -> list[BrokerPosition]:
        """Continue where the last owner of the login ended.

        Returns:
            The holdings that it wrote, with the changes that it stored and did not publish; a
            holding that closed since then gets its zero row. Holdings of accounts that the gateways
            file no longer names are left out: they are not of this login.
        """
        if self.broker_positions is None:
            return []
        accounts = self.context.settings.accounts

        def of_login(holdings: Iterable[BrokerPosition]) -> dict[Key, BrokerPosition]:
            return {one.key: one for one in holdings if accounts is None or one.account in accounts}

        stored = await offload(self.broker_positions.read, self.context.settings.gateway_id)
        recorded = dict[Key, BrokerPosition]()
        if self.watcher is not None:
            changed = await self.watcher.unpublished({one.key: one for one in stored})
            recorded = self._recorded = of_login(changed.values())
        await self.announced.restore(list(of_login(stored).values()))
        self._published = of_login(self._recent(stored))
        return list((self._published | recorded).values())

    def follow(self, feed: AccountFeed) -> None:
        """Collect the changes of an account feed from now on; all its holdings are due."""
        self._changes, self._all_due = feed.book.watch_all(), True

    async def publish(self, feed: AccountFeed) -> None:
        """Write the changes of the followed feed to `broker_positions`, in one commit.

        The first time, and when most holdings changed, all rows of the gateway are replaced. A
        message of PnLSingle that repeats its value confirms the row that was written.

        Requests are made of the published holdings, not of the feed: a drain takes the values from
        the table. Later changes are due in the next step.
        """
        self.context.lease.check()
        changes, accounts = self._changes.take(), _accounts_of(feed)
        of_greeks = self.greeks.changes.take()
        by_greeks = (key for conid in of_greeks for key in feed.book.keys_of(conid))
        keys = {*changes, *feed.book.profits, *by_greeks}
        every = self._all_due or 2 * len(keys) > len(self._published)
        reported = {
            key: self.greeks.added_to(holding)
            for key, holding in feed.book.reported(None if every else keys).items()
        }
        changed = {
            key: holding
            for key, holding in reported.items()
            if (before := self._published.get(key)) is None or not is_repeated(before, holding)
        }
        # The completeness of an account changes in all its rows.
        self._all_due |= 2 * len(changed) > len(self._published)
        published = reported if self._all_due else self._published | changed
        try:
            await self._record_changes(changed)
            if self._all_due:
                await self._write("replace", self._recent(published.values()), accounts)
            elif not await self._update(feed, changed, accounts):
                self._all_due = True
                self._changes.give_back(changes)
                await self.publish(feed)
                return
        except BaseException:
            self._changes.give_back(changes)
            self.greeks.changes.give_back(of_greeks)
            raise
        self._published, self._accounts, self._all_due = published, accounts, False
        self._recorded = {}

    async def _record_changes(self, changed: Mapping[Key, BrokerPosition]) -> None:
        """Store the quantities that changed; if the process dies here, the next owner does it.

        After a publication that failed, a quantity that was stored already is the one before.
        """
        if self.watcher is None:
            return
        if self._recorded is None:
            self._recorded = await self.watcher.unpublished(self._published)
        confirmed = {name: one.confirmed_at for name, one in self._accounts.items()}
        before = self._published | self._recorded if self._recorded else self._published
        found = changes_between(before, changed, confirmed)
        if found:
            self._recorded = None
            await self.watcher.record(found)

    def _is_moved(self, key: Key) -> bool:
        """Return whether a value of PnLSingle moved since the last request of the holding."""
        holding, before = self._published[key], self.announced.last(key)
        part = self.context.settings.monitored_move_part
        amount = self.context.settings.monitored_move_amount
        return holding.value_source is ValueOrigin.PNL_SINGLE and (
            before is None
            or before.value_source is not ValueOrigin.PNL_SINGLE
            or has_moved(before, holding, part=part, amount=amount)
        )

    async def _update(
        self, feed: AccountFeed, changed: Mapping[Key, BrokerPosition], accounts: _Accounts
    ) -> bool:
        """Write the changed rows; return False if the table needs all rows instead.

        If the completeness or the confirmation of an account changed, at least one of its rows is
        written to carry it.
        """
        rows = list(changed.values())
        for account in accounts.keys() - {account for account, _conid in changed}:
            if accounts[account] == self._accounts.get(account):
                continue
            key = feed.book.one_of(account)
            if key is not None and (holding := self._published.get(key)) is not None:
                rows.append(replace(holding, completeness=accounts[account].completeness))
        return not rows or await self._write("update", rows, accounts)

    async def _write(self, how: str, rows: list[BrokerPosition], accounts: _Accounts) -> bool:
        if self.broker_positions is None:
            return True
        version = await offload(
            getattr(self.broker_positions, how),
            self.context.settings.gateway_id,
            rows,
            session=self.context.lease.session,
            captured_at=self.context.clock(),
            accounts=accounts,
        )
        return version is not None

    async def enqueue_all(
        self, routes: Mapping[Key, LegState], reason: Reason = Reason.SNAPSHOT
    ) -> int:
        """Queue every holding that is not streamed, and every close without a zero row.

        A holding of a security type that is not followed has no row, and its close needs none. If
        the type was followed before, the close is queued: the ledger must not keep it open.

        Returns:
            The number of requests.
        """
        keys = [key for key, state in routes.items() if state in QUEUED]
        have_rows = routes.keys() | self.announced.open_at_start
        keys += [
            holding.key
            for holding in self._published.values()
            if holding.key in have_rows and self.announced.lacks_zero_row(holding)
        ]
        return await self.enqueue(routes, keys, reason)

    async def enqueue_changed(self, routes: Mapping[Key, LegState], changed: Iterable[Key]) -> None:
        """Queue the holdings whose quantity changed, or whose value became known or unknown."""
        keys = [
            key
            for key in changed
            if key in routes
            and routes[key] is not LegState.STREAMED
            and (holding := self._published.get(key)) is not None
            and not self.announced.is_current(holding)
        ]
        await self.enqueue(routes, keys)

    async def enqueue_moved(self, routes: Mapping[Key, LegState]) -> None:
        """Queue the monitored holdings whose published value by PnLSingle moved."""
        monitored = (key for key in self._published if routes.get(key) is LegState.MONITORED)
        await self.enqueue(routes, filter(self._is_moved, monitored))

    async def enqueue(
        self, routes: Mapping[Key, LegState], keys: Iterable[Key], reason: Reason = Reason.CHANGED
    ) -> int:
        """Queue these holdings, as far as they were published, in one commit.

        Args:
            reason: The reason of the requests; active legs without a line have OVERFLOW instead.

        Returns:
            The number of requests.
        """
        if self.queue is None:
            return 0
        holdings = {key: self._published[key] for key in keys if key in self._published}
        if not holdings:
            return 0
        await self.queue.insert_many(
            [_request(holding, routes.get(key), reason) for key, holding in holdings.items()]
        )
        self.announced.record(holdings.values())
        self.context.counts.enqueued += len(holdings)
        return len(holdings)

    def _recent(self, holdings: Iterable[BrokerPosition]) -> list[BrokerPosition]:
        """Leave out the holdings that closed long ago, and have their zero row."""
        since, unwritten = self.context.clock() - CLOSED_KEPT, self.announced.unwritten
        return [h for h in holdings if h.position or h.position_time >= since or h.key in unwritten]


def _accounts_of(feed: AccountFeed) -> _Accounts:
    book, followed_until = feed.book, feed.book.followed_until()
    return {
        account: AccountConfirmation(
            book.confirmed.accounts.get(account), followed_until.get(account), completeness
        )
        for account, completeness in feed.completeness.items()
    }


def _request(holding: BrokerPosition, route: LegState | None, reason: Reason) -> QueueRequest:
    overflow = route is LegState.OVERFLOW
    return QueueRequest(
        conid=holding.instrument.conid,
        symbol=holding.instrument.symbol or str(holding.instrument.conid),
        priority=ACTIVE_PRIORITY if overflow else MONITORING_PRIORITY,
        account=holding.account,
        reason=Reason.OVERFLOW if overflow else reason,
    )


@dataclass(eq=False, repr=False)
class StreamPricer:
    """Passes events to the streamed holdings, and collects the rows that are due.

    Each holding has one state (`domain.valuation`), and each line one record
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
        self, connection: GatewayConnection, ticked: Collection[int], valued: Iterable[Key] = ()
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
            if holding is None:
                del self._holdings[key]
                continue
            if not connection.feed.is_known(holding):
                continue
            at = Moment(
                now=now,
                now_s=now_s,
                by=self.context.lease.provenance,
                hours=self.contracts.hours(conid),
                price_magnifier=self.contracts.magnifier(conid),
            )
            quote = quotes[conid] if conid in quotes else connection.lines.quote(conid)
            update = state.row(self.greeks.added_to(holding), quote, at)
            if update is not None:
                updates.append((update, holding))
            if not (state.streamed or state.due):
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
            pending, self._pending = self._pending, {}
            began = loop.time()
            try:
                failed = await self._deliver(list(pending.values()))
            except BaseException:
                self._pending = pending | self._pending
                raise
            if failed:
                self._pending = pending | self._pending
                failures += 1
                await asyncio.sleep(RETRY.delay_s(failures))
                continue
            failures = 0
            if self._batched is not None and not self._is_closing:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), rest_s(loop.time() - began))

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
