"""What an owner publishes: `broker_positions`, `account_values`, and requests of the queue.

`Announcements` remembers which state of a holding was last written as a row or queued.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from datetime import timedelta

import polars as pl

from position_sync_dagster.domain.broker_position import (
    AccountConfirmation,
    AccountSummary,
    BrokerPosition,
    Completeness,
    Key,
    LeastMove,
    has_moved,
    is_repeated,
)
from position_sync_dagster.domain.clock import rest_s
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.leg import QUEUED, LegState
from position_sync_dagster.domain.update import (
    ACTIVE_PRIORITY,
    MONITORING_PRIORITY,
    QueueRequest,
    Reason,
    ValueOrigin,
)
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.connection import GatewayConnection
from position_sync_dagster.gateway.holdings import PendingChanges
from position_sync_dagster.lake.broker_positions import AccountValuesTable, BrokerPositionsTable
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.sync.stream.account_greeks import PublishedGreeks
from position_sync_dagster.sync.stream.close_watcher import CloseWatcher, changes_between
from position_sync_dagster.sync.stream.ownership import OwnerContext, end_tasks

logger = logging.getLogger(__name__)


class Announcements:
    """Remembers the last announcement of each holding: a streamed row or a request.

    The stream and the queue share it, so that a close has exactly one zero row: whichever is first
    writes it, and the other one omits it.

    Args:
        updates: The ledger, which shows at the start which closes have their zero row. Without it,
            every recent close is announced again.

    Attributes:
        unwritten: Closes from before the start that the ledger has no zero row of.
    """

    def __init__(self, updates: PositionUpdatesTable | None = None) -> None:
        self._updates = updates
        # None: a holding that closed before the start, and has no zero row.
        self._announced: dict[Key, tuple[float, bool] | None] = {}
        self._open_at_start: frozenset[Key] = frozenset()
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
            self._open_at_start = _keys(rows, pl.col("position") != 0)
        gone = {holding.key for holding in holdings if not holding.position}
        self.unwritten = self._open_at_start & gone
        self._announced = {
            holding.key: _fingerprint(holding)
            if holding.position or holding.key in closed
            else None
            for holding in holdings
        }

    async def left_open(self, closes: Iterable[BrokerPosition]) -> frozenset[Key]:
        """Return which of these closed holdings are still open in the ledger, by their newest rows.

        The ledger is read only for holdings closed since the start: once for each, if the
        close is recorded afterwards.
        """
        keys = {holding.key for holding in closes}
        new = {key for key in keys if self._announced.get(key) is not None}
        found = (keys - new) & self._open_at_start
        if self._updates is None or not new:
            return frozenset(found)
        open_rows = _keys(await self._updates.latest(), pl.col("position") != 0)
        return frozenset(found | (new & open_rows))

    def record(self, holdings: Iterable[BrokerPosition]) -> None:
        """Record that a row was written, or a request queued, for these states of holdings."""
        for holding in holdings:
            self._announced[holding.key] = _fingerprint(holding)

    def is_current(self, holding: BrokerPosition) -> bool:
        """Return whether no change of this holding needs a new row at once."""
        return self._announced.get(holding.key) == _fingerprint(holding)

    def is_held(self, key: Key, position: float) -> bool:
        """Return whether this quantity of a holding was announced last."""
        announced = self._announced.get(key)
        return announced is not None and announced[0] == position

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


CLOSED_KEPT = timedelta(days=2)
"""How long a closed holding stays in `broker_positions`; longer if its zero row was not written."""

_Accounts = Mapping[str, tuple[Completeness, AccountConfirmation]]
"""How much of each account the broker has sent, and until when it has confirmed that."""


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
        self._greeks_changes = self.greeks.watch()
        self._published: dict[Key, BrokerPosition] = {}
        self._recorded: dict[Key, BrokerPosition] = {}
        self._is_unsure = False
        self._all_due = True
        self._changes: PendingChanges[Key] = PendingChanges()
        self._accounts: _Accounts = {}
        self._moved: set[Key] = set()
        self._requested: dict[Key, BrokerPosition] = {}
        self._least = LeastMove(
            part=self.context.settings.monitored_move_part,
            amount=self.context.settings.monitored_move_amount,
        )

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
        if self.watcher is not None:
            changed = await _unpublished(self.watcher, {one.key: one for one in stored})
            self._recorded = of_login(changed.values())
        await self.announced.restore(list(of_login(stored).values()))
        self._published = of_login(self._recent(stored))
        return list((self._published | self._recorded).values())

    def follow(self, feed: AccountFeed) -> None:
        """Collect the changes of an account feed from now on; all its holdings are due."""
        self._changes, self._all_due = feed.book.watch_all(), True

    async def publish(self, feed: AccountFeed, *, session: GatewaySession | None) -> None:
        """Write the changes of the followed feed to `broker_positions`, in one commit.

        The first time, and when most holdings changed, all rows of the gateway are replaced. A
        message of PnLSingle that repeats its value confirms the row that was written.

        Requests are made of the published holdings, not of the feed: a drain takes the values from
        the table. Later changes are due in the next step.
        """
        changes, accounts = self._changes.take(), _accounts_of(feed)
        of_greeks = self._greeks_changes.take()
        by_greeks = (key for conid in of_greeks for key in feed.book.keys_of(conid))
        keys = {*changes, *feed.book.profits, *by_greeks}
        every = self._all_due or 2 * len(keys) > len(self._published)
        reported = {
            key: self._with_greeks(holding)
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
        moved = {
            key
            for key, holding in changed.items()
            if key not in self._moved and self._is_moved(key, holding)
        }
        try:
            await self._record_changes(changed)
            if self._all_due:
                recent = self._recent(published.values())
                if self.broker_positions is not None:
                    await self._write(self.broker_positions.replace, recent, accounts, session)
            elif not await self._update(feed, changed, accounts, session):
                self._all_due = True
                self._changes.give_back(changes)
                await self.publish(feed, session=session)
                return
        except BaseException:
            self._changes.give_back(changes)
            self._greeks_changes.give_back(of_greeks)
            raise
        self._published, self._accounts, self._all_due = published, accounts, False
        self._recorded.clear()
        self._moved |= moved

    @property
    def greeks_moved(self) -> bool:
        """Return whether computed greeks changed that are not published yet."""
        return bool(self._greeks_changes)

    def _with_greeks(self, holding: BrokerPosition) -> BrokerPosition:
        greeks = self.greeks.of(holding)
        return holding if holding.greeks is greeks else replace(holding, greeks=greeks)

    async def _record_changes(self, changed: Mapping[Key, BrokerPosition]) -> None:
        """Store the quantities that changed; if the process dies here, the next owner does it.

        After a publication that failed, a quantity that was stored already is the one before. After
        an error of the table, the changes may be stored or not: it is read.
        """
        if self.watcher is None:
            return
        if self._is_unsure:
            self._recorded = await _unpublished(self.watcher, self._published)
            self._is_unsure = False
        confirmed = {name: one.confirmed_at for name, (_, one) in self._accounts.items()}
        before = self._published | self._recorded if self._recorded else self._published
        found = changes_between(before, changed, confirmed)
        if found:
            self._is_unsure = True
            await self.watcher.record(found)
            self._is_unsure = False
            self._recorded |= {one.key: changed[one.key] for one in found}

    def _is_moved(self, key: Key, holding: BrokerPosition) -> bool:
        """Return whether a value of PnLSingle moved since the last request of the holding."""
        before = self._requested.get(key)
        return holding.value_source is ValueOrigin.PNL_SINGLE and (
            before is None or has_moved(before, holding, self._least)
        )

    async def _update(
        self,
        feed: AccountFeed,
        changed: Mapping[Key, BrokerPosition],
        accounts: _Accounts,
        session: GatewaySession | None,
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
                completeness, _confirmation = accounts[account]
                rows.append(replace(holding, completeness=completeness))
        if not rows or self.broker_positions is None:
            return True
        version = await self._write(self.broker_positions.update, rows, accounts, session)
        return version is not None

    async def _write(
        self,
        write: Callable[..., int | None],
        rows: list[BrokerPosition],
        accounts: _Accounts,
        session: GatewaySession | None,
    ) -> int | None:
        return await offload(
            write,
            self.context.settings.gateway_id,
            rows,
            session=session,
            captured_at=self.context.clock(),
            accounts={name: confirmation for name, (_, confirmation) in accounts.items()},
        )

    async def requests_wait(self) -> bool:
        """Return whether the queue has requests that a drain may claim now."""
        return self.queue is not None and (await self.queue.overview()).claimable > 0

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
        closes = [h for h in self._published.values() if self.announced.lacks_zero_row(h)]
        keys += [holding.key for holding in closes if holding.key in routes]
        followed = self.context.settings.sec_types
        others = [
            holding
            for holding in closes
            if holding.key not in routes and holding.instrument.sec_type not in followed
        ]
        left_open = await self.announced.left_open(others)
        self.announced.record(holding for holding in others if holding.key not in left_open)
        return await self.enqueue(routes, [*keys, *left_open], reason)

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

    @property
    def moved(self) -> bool:
        """Return whether a published value of PnLSingle moved and is not queued yet."""
        return bool(self._moved)

    async def enqueue_moved(self, routes: Mapping[Key, LegState]) -> None:
        """Queue the monitored holdings whose value by PnLSingle moved."""
        keys = [key for key in self._moved if routes.get(key) is LegState.MONITORED]
        await self.enqueue(routes, keys)
        self._moved.clear()

    async def enqueue(
        self,
        routes: Mapping[Key, LegState],
        keys: Iterable[Key],
        reason: Reason = Reason.CHANGED,
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
        self._moved -= holdings.keys()
        for key, holding in holdings.items():
            if holding.value_source is ValueOrigin.PNL_SINGLE:
                self._requested[key] = holding
            else:
                self._requested.pop(key, None)
        self.context.counts.enqueued += len(holdings)
        return len(holdings)

    def _recent(self, holdings: Iterable[BrokerPosition]) -> list[BrokerPosition]:
        """Leave out the holdings that closed long ago, and have their zero row."""
        since, unwritten = self.context.clock() - CLOSED_KEPT, self.announced.unwritten
        return [h for h in holdings if h.position or h.position_time >= since or h.key in unwritten]


async def _unpublished(
    watcher: CloseWatcher, published: Mapping[Key, BrokerPosition]
) -> dict[Key, BrokerPosition]:
    """Return the holdings whose changes are stored and not published."""
    seen = [one.confirmed_at or one.received_at for one in published.values()]
    return await watcher.unpublished(published, max(seen) - CLOSED_KEPT if seen else None)


def _accounts_of(feed: AccountFeed) -> _Accounts:
    book, followed_until = feed.book, feed.book.followed_until()
    return {
        account: (
            completeness,
            AccountConfirmation(book.confirmed.of_account(account), followed_until.get(account)),
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
class AccountRecorder:
    """Writes a row for each account whose amounts changed, in one commit.

    Net liquidation and profit change with each tick: there is at most one commit for each flush of
    the holdings, with the newest amounts. It runs in a task, and no flush waits for it.

    After a commit that failed, the table is read again, and what it lacks is due again.

    Args:
        table: The table; with None, nothing is subscribed and nothing is written.
    """

    context: OwnerContext
    table: AccountValuesTable | None

    def __post_init__(self) -> None:
        self._written: dict[str, AccountSummary] | None = None
        self._next_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._outage = OutageLog(logger)

    def flush(self, connection: GatewayConnection, provenance: Provenance) -> None:
        """Start to write the changes if that is due, and keep the subscriptions alive."""
        table = self.table
        if table is None:
            return
        connection.summaries.subscribe()
        is_writing = self._task is not None and not self._task.done()
        if is_writing or self.context.monotonic() < self._next_at:
            return
        rows = changed(connection.summaries.current(), self._written or {})
        if rows or self._written is None:
            rows = [replace(row, **asdict(provenance)) for row in rows]
            self._task = asyncio.create_task(self._write(table, rows, self._written))

    async def close(self, *, timeout_s: float) -> None:
        """Wait until the rows that are being written are in the table."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)
            await end_tasks(self._task)
            self._task = None

    async def _write(
        self,
        table: AccountValuesTable,
        rows: list[AccountSummary],
        written: dict[str, AccountSummary] | None,
    ) -> None:
        """Write rows; if it is not known what was written last, read that from the table."""
        began = self.context.monotonic()
        try:
            if written is None:
                rows, written = await offload(table.latest_summaries), {}
            else:
                await offload(table.append, rows)
            self._written = written | {row.account: row for row in rows}
            self._outage.fault = None
        except LakeError as error:
            self._written = None
            self._outage.report(f"account_values: {error}")
        ended = self.context.monotonic()
        self._next_at = ended + rest_s(ended - began)


def changed(
    current: Iterable[AccountSummary], written: dict[str, AccountSummary]
) -> list[AccountSummary]:
    """Return the accounts whose amounts differ from their last row, by a cent or more.

    >>> from datetime import UTC, datetime
    >>> row = AccountSummary(account="U1", cash=5.0, timestamp=datetime(2027, 1, 4, tzinfo=UTC))
    >>> changed([row], {"U1": row}), changed([row], {}) == [row]
    ([], True)
    """
    return [
        row
        for row in current
        if (before := written.get(row.account)) is None or before.amounts != row.amounts
    ]
