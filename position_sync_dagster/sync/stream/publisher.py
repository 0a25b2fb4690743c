"""What an owner writes of the broker's holdings: `broker_positions` and requests of the queue.

`ChangeWatcher` stores changes of quantities before, and calls those who follow them.
`Announcements` remembers which state of a holding was last written as a row or queued.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import timedelta

import polars as pl

from position_sync_dagster.domain.execution import Asked
from position_sync_dagster.domain.holding import (
    AccountConfirmation,
    BrokerPosition,
    Key,
    has_moved,
    is_repeated,
)
from position_sync_dagster.domain.leg import QUEUED, LegState
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.domain.queue_request import (
    ACTIVE_PRIORITY,
    MONITORING_PRIORITY,
    QueueRequest,
    Reason,
)
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.connection import DayExecutions, GatewayConnection
from position_sync_dagster.gateway.holdings import PendingChanges
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.records import RecordsTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.sync.position_changes import after_changes, changes_between
from position_sync_dagster.sync.stream.ownership import OwnerContext
from position_sync_dagster.sync.stream.parts import ChangeFollower, PublishedGreeks

# Seconds after a change, or after the start, at which the gateway is asked for the executions
# of the day: commissions follow an execution, and shares may come minutes after an option is
# gone. If the last request is not answered, it is repeated after the longest time, until it is.
EXECUTION_LOOKS_S = (0.0, 5.0, 60.0, 960.0)


# How long a closed holding stays in `broker_positions`; longer if its zero row was not written.
CLOSED_KEPT = timedelta(days=2)


@dataclass(eq=False, repr=False)
class ChangeWatcher:
    """Stores changes before they are published, then calls their followers in the background.

    After a start it calls them too, for what an earlier process left.

    Args:
        changes: Gets the changes.
        followers: Are called in this order, such as for causes, and then for rolls.
    """

    context: OwnerContext
    changes: RecordsTable[PositionChange]
    followers: Sequence[ChangeFollower] = ()

    def __post_init__(self) -> None:
        self._due = self._looks()

    async def record(self, changes: list[PositionChange]) -> None:
        """Store changes; looks for their executions are due from now on.

        Raises:
            LakeError: The table cannot be written, or it has them and did not confirm it.
        """
        self.context.lease.check()
        self._due = sorted({*self._due, *self._looks()})
        lease = self.context.lease
        await offload(self.changes.add, changes, lease.provenance.run_id, lease.check)

    async def unpublished(
        self, published: Mapping[Key, BrokerPosition]
    ) -> dict[Key, BrokerPosition]:
        """Return the holdings whose changes were stored, and then not published.

        Args:
            published: All holdings of the login, and those that closed lately.

        Raises:
            LakeError: The table cannot be read.
        """
        times = [holding.confirmed_at or holding.received_at for holding in published.values()]
        now = self.context.clock()
        since = min(now, max(times)) - CLOSED_KEPT if times else None
        changes = await offload(self.changes.records, since)
        gateway_id = self.context.settings.gateway_id
        return after_changes(
            published, [change for change in changes if change.gateway_id == gateway_id]
        )

    def _looks(self) -> list[float]:
        now_s = self.context.monotonic()
        return [now_s + delay for delay in EXECUTION_LOOKS_S]

    async def look_if_due(self, connection: GatewayConnection) -> None:
        """Ask the gateway for the executions of the day if a look is due; call the followers.

        Raises:
            LakeError: A table cannot be used; the look is due again.
        """
        now_s = self.context.monotonic()
        if not self.followers or not self._due or self._due[0] > now_s:
            return
        answer = await connection.executions()
        await self.look(connection.accounts, answer)
        self._due = [at for at in self._due if at > now_s]
        if answer is None and not self._due:
            self._due = self._looks()[-1:]

    async def look(self, accounts: Iterable[str], answer: DayExecutions | None) -> None:
        """Call the followers with what the gateway answered; None if it did not answer.

        Raises:
            LakeError: A table cannot be used.
        """
        self.context.lease.check()
        asked: Asked = {}
        if answer is not None:
            asked = dict.fromkeys(accounts, (answer.begin, answer.end))
        executions = () if answer is None else answer.executions
        for follower in self.followers:
            await offload(follower.follow_changes, executions, asked)


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
        self.unwritten = self.open_at_start & {
            holding.key for holding in holdings if not holding.position
        }
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

    def is_announced(self, holding: BrokerPosition) -> bool:
        """Return whether this state was announced: no change of it needs a new row at once."""
        last = self.last(holding.key)
        return last is not None and _fingerprint(last) == _fingerprint(holding)

    def is_held(self, key: Key, position: float) -> bool:
        """Return whether this quantity of a holding was announced last."""
        last = self.last(key)
        return last is not None and last.position == position

    def lacks_zero_row(self, holding: BrokerPosition) -> bool:
        """Return whether a holding is closed now, and its close was not announced."""
        was_held = holding.key in self._announced
        return was_held and not holding.position and not self.is_announced(holding)


def _keys(rows: pl.DataFrame, condition: pl.Expr) -> frozenset[Key]:
    """Return the holdings of the rows that meet a condition."""
    return frozenset(rows.filter(condition).select("account", "conid").iter_rows())


def _fingerprint(holding: BrokerPosition) -> tuple[float, bool]:
    """Return the quantity and whether the value is known: a change of these needs a row at once."""
    return (holding.position, holding.position == 0 or holding.market_value is not None)


_Accounts = Mapping[str, AccountConfirmation]


@dataclass(eq=False, repr=False)
class Publisher:
    """Writes `broker_positions`, and queues the holdings that are not streamed.

    Args:
        queue: Gets the requests.
        broker_positions: Without it, nothing is written.
        announced: The announcements so far; requests are added to them.
        greeks: The computed greeks of options.
        watcher: Stores the changes of quantities before they are published, if there is one.
    """

    context: OwnerContext
    queue: PositionQueue
    broker_positions: BrokerPositionsTable | None
    announced: Announcements
    _: KW_ONLY
    greeks: PublishedGreeks = field(default_factory=PublishedGreeks)
    watcher: ChangeWatcher | None = None

    def __post_init__(self) -> None:
        self._published: dict[Key, BrokerPosition] = {}
        # Whether changes may have been stored after the last publication.
        self._may_be_ahead = False
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
            return {
                holding.key: holding
                for holding in holdings
                if accounts is None or holding.account in accounts
            }

        stored = await offload(self.broker_positions.read, self.context.settings.gateway_id)
        await self.announced.restore(list(of_login(stored).values()))
        self._published = of_login(self._recent(stored))
        if self.watcher is not None:
            changed = await self.watcher.unpublished({holding.key: holding for holding in stored})
            self._published |= of_login(changed.values())
        return list(self._published.values())

    def follow(self, feed: AccountFeed) -> None:
        """Collect the changes of an account feed from now on; all its holdings are due."""
        self._changes = feed.book.watch_all()
        self._all_due = True

    async def publish(self, feed: AccountFeed) -> None:
        """Write the changes of the followed feed to `broker_positions`, in one commit.

        The first time, and when most holdings changed, all rows of the gateway are replaced. A
        message of PnLSingle that repeats its value confirms the row that was written.

        Requests are made of the published holdings, not of the feed: a drain takes the values from
        the table. Later changes are due in the next step.
        """
        self.context.lease.check()
        changes = self._changes.take()
        of_greeks = self.greeks.changes.take()
        keys = {*changes, *feed.book.profits}
        for conid in of_greeks:
            keys.update(feed.book.keys_of(conid))

        try:
            if not await self._publish_changes(feed, keys):
                await self._publish_all(feed)
        except BaseException:
            self._changes.give_back(changes)
            self.greeks.changes.give_back(of_greeks)
            raise

    async def _publish_changes(self, feed: AccountFeed, keys: Collection[Key]) -> bool:
        """Write which of these holdings changed; return False if all are to be written instead."""
        if self._all_due:
            return False
        accounts = _accounts_of(feed)
        changed = self._changed(self._reported(feed, keys))
        if 2 * len(changed) > len(self._published):
            return False

        await self._record_changes(changed)
        if not await self._update(feed, changed, accounts):
            return False
        self._note_published(self._published | changed, accounts)
        return True

    async def _publish_all(self, feed: AccountFeed) -> None:
        """Replace the rows of the gateway; until that succeeds, each publication does it."""
        self._all_due = True
        accounts = _accounts_of(feed)
        reported = self._reported(feed, None)
        await self._record_changes(self._changed(reported))
        await self._write("replace", self._recent(reported.values()), accounts)
        self._note_published(reported, accounts)
        self._all_due = False

    def _note_published(self, holdings: dict[Key, BrokerPosition], accounts: _Accounts) -> None:
        self._published = holdings
        self._accounts = accounts
        self._may_be_ahead = False

    def _reported(
        self, feed: AccountFeed, keys: Collection[Key] | None
    ) -> dict[Key, BrokerPosition]:
        """Return holdings of a feed with their greeks; all of them by default."""
        holdings = feed.book.reported(keys)
        return {key: self.greeks.added_to(holding) for key, holding in holdings.items()}

    def _changed(self, reported: Mapping[Key, BrokerPosition]) -> dict[Key, BrokerPosition]:
        """Return the holdings that say something else than what was published of them."""
        published = self._published
        return {
            key: holding
            for key, holding in reported.items()
            if key not in published or not is_repeated(published[key], holding)
        }

    async def _record_changes(self, changed: Mapping[Key, BrokerPosition]) -> None:
        """Store the quantities that changed; if the process dies here, the next owner does it.

        After a publication that failed, a quantity that was stored already is the one before.
        """
        if self.watcher is None:
            return
        before = self._published
        if self._may_be_ahead:
            before = before | await self.watcher.unpublished(before)
        confirmed = {name: account.confirmed_at for name, account in self._accounts.items()}
        changes = changes_between(before, changed, confirmed)
        if changes:
            self._may_be_ahead = True
            await self.watcher.record(changes)

    def _is_moved(self, key: Key) -> bool:
        """Return whether a value of PnLSingle moved since the last request of the holding."""
        holding = self._published[key]
        if holding.value_source is not ValueOrigin.PNL_SINGLE:
            return False
        before = self.announced.last(key)
        if before is None or before.value_source is not ValueOrigin.PNL_SINGLE:
            return True
        settings = self.context.settings
        return has_moved(
            before,
            holding,
            part=settings.monitored_move_part,
            amount=settings.monitored_move_amount,
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
        keys.extend(
            key
            for key, holding in self._published.items()
            if key in have_rows and self.announced.lacks_zero_row(holding)
        )
        return await self.enqueue(routes, keys, reason)

    async def enqueue_changed(self, routes: Mapping[Key, LegState], changed: Iterable[Key]) -> None:
        """Queue the holdings whose quantity changed, or whose value became known or unknown."""
        keys = []
        for key in changed:
            route = routes.get(key)
            holding = self._published.get(key)
            if route is None or route is LegState.STREAMED or holding is None:
                continue
            if not self.announced.is_announced(holding):
                keys.append(key)
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
        holdings = {key: self._published[key] for key in keys if key in self._published}
        if not holdings:
            return 0
        requests = [_request(holding, routes.get(key), reason) for key, holding in holdings.items()]
        await self.queue.insert_many(requests)
        self.announced.record(holdings.values())
        self.context.counts.enqueued += len(holdings)
        return len(holdings)

    def _recent(self, holdings: Iterable[BrokerPosition]) -> list[BrokerPosition]:
        """Leave out the holdings that closed long ago, and have their zero row."""
        since = self.context.clock() - CLOSED_KEPT
        unwritten = self.announced.unwritten
        return [
            holding
            for holding in holdings
            if holding.position or holding.position_time >= since or holding.key in unwritten
        ]


def _accounts_of(feed: AccountFeed) -> _Accounts:
    confirmed_at = feed.book.confirmed.accounts
    followed_until = feed.book.followed_until()
    return {
        account: AccountConfirmation(
            confirmed_at.get(account), followed_until.get(account), completeness
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
