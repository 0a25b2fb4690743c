"""What an owner writes of the broker's holdings: `broker_positions` and requests of the queue.

`Submissions` remembers which state of a holding was last written as a row or queued.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from datetime import timedelta

import polars as pl
from polars import col

from position_sync_dagster.domain.holding import (
    AccountConfirmation,
    BrokerPosition,
    Holdings,
    Key,
    has_moved,
    is_repeated,
)
from position_sync_dagster.domain.leg import QUEUED, LegState, LegStates
from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.domain.queue_request import (
    ACTIVE_PRIORITY,
    MONITORING_PRIORITY,
    QueueRequest,
    Reason,
)
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.holdings import PendingChanges
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.parts import PublishedGreeks
from position_sync_dagster.sync.stream.position_changes import ChangeWatcher, changes_between

# How long a closed holding stays in `broker_positions`; longer if its zero row was not written.
CLOSED_PUBLISHED = timedelta(days=2)


class Submissions:
    """Remembers the last submission of each holding: a streamed row or a request.

    The stream and the queue share it, so that a close has exactly one zero row: whichever is first
    writes it, and the other one omits it.

    Args:
        updates: The ledger, which shows at the start which closes have their zero row. Without it,
            every recent close is submitted again.

    Attributes:
        open_at_start: Holdings that are open in the ledger at the start, by their newest rows.
        unwritten: Closes from before the start that the ledger has no zero row of.
    """

    def __init__(self, updates: PositionUpdatesTable | None = None) -> None:
        self._updates = updates
        # Each holding as it was at its newest row or request; None: it closed before the start,
        # and has no zero row.
        self._submitted: dict[Key, BrokerPosition | None] = {}
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
            closed = _keys(rows, col.position == 0)
            self.open_at_start = _keys(rows, col.position != 0)
        self.unwritten = self.open_at_start & {
            holding.key for holding in holdings if not holding.position
        }
        # None of a close without its zero row: nothing of it counts as submitted.
        self._submitted = {
            holding.key: holding if holding.position or holding.key in closed else None
            for holding in holdings
        }

    def record(self, holdings: Iterable[BrokerPosition]) -> None:
        """Record that a row was written, or a request queued, for these states of holdings."""
        self._submitted |= {holding.key: holding for holding in holdings}

    def last(self, key: Key) -> BrokerPosition | None:
        """Return a holding as it was submitted last; None if it was not."""
        return self._submitted.get(key)

    def is_submitted(self, holding: BrokerPosition) -> bool:
        """Return whether its quantity, and whether it has a value, are as they were submitted."""
        last = self.last(holding.key)
        return last is not None and _fingerprint(last) == _fingerprint(holding)

    def is_held(self, key: Key, position: float) -> bool:
        """Return whether this quantity of a holding was submitted last."""
        last = self.last(key)
        return last is not None and last.position == position

    def lacks_zero_row(self, holding: BrokerPosition) -> bool:
        """Return whether a holding is closed now, and its close was not submitted."""
        was_held = holding.key in self._submitted
        return was_held and not holding.position and not self.is_submitted(holding)


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

    A closed holding stays published for `CLOSED_PUBLISHED`, or longer without its zero row.

    Args:
        queue: Gets the requests.
        broker_positions: Without it, nothing is written.
        submitted: The submissions so far; requests are added to them.
        greeks: The computed greeks of options.
        watcher: Stores the changes of quantities before they are published, if there is one.
    """

    ownership: Ownership
    queue: PositionQueue
    broker_positions: BrokerPositionsTable | None
    submitted: Submissions
    _: KW_ONLY
    greeks: PublishedGreeks
    watcher: ChangeWatcher | None = None

    def __post_init__(self) -> None:
        self._published: Holdings = {}  # as they were published last
        # Whether changes may be stored that no publication has; `_record_changes` begins at them.
        self._may_have_unpublished = False
        self._all_due = True  # the next publication replaces all rows
        # What changed in the feed since the last publication.
        self._unpublished: PendingChanges[Key] = PendingChanges()
        self._accounts: _Accounts = {}  # their confirmations, as they were published last

    async def restore(self) -> list[BrokerPosition]:
        """Continue where the last owner of the login ended.

        Returns:
            The holdings that it wrote, with the changes that it stored and did not publish; a
            holding that closed since then gets its zero row. Holdings of accounts that the gateways
            file no longer names are left out: they are not of this login.
        """
        if self.broker_positions is None:
            return []
        rows = await offload(self.broker_positions.read, self.ownership.settings.gateway_id)
        await self.submitted.restore(rows)

        published = {holding.key: holding for holding in self._not_long_closed(rows)}
        if self.watcher is not None:
            stored = {row.key: row for row in rows}
            # Changes are read as far back as closed holdings stay published.
            published |= await self.watcher.unpublished(stored, CLOSED_PUBLISHED)
        accounts = self.ownership.settings.accounts
        self._published = {
            key: holding
            for key, holding in published.items()
            if accounts is None or key[0] in accounts
        }
        return list(self._published.values())

    def attach(self, feed: AccountFeed) -> None:
        """Collect the changes of an account feed from now on; all its holdings are due."""
        self._unpublished = feed.book.all_changes.watch()
        self._all_due = True

    async def publish(self, feed: AccountFeed) -> None:
        """Write the changes of the followed feed to `broker_positions`, in one commit.

        The first time, and when most holdings changed, all rows of the gateway are replaced. A
        message of PnLSingle that repeats its value confirms the row that was written.

        Nothing is queued here. Later changes are due in the next step.
        """
        self.ownership.check()
        changes = self._unpublished.take()
        of_greeks = self.greeks.changes.take()
        # Values of PnLSingle are not among the changes.
        keys = {*changes, *feed.book.profits}.union(*map(feed.book.keys_of, of_greeks))
        try:
            if self._all_due or not await self._publish(feed, keys):
                self._all_due = True  # until this succeeds
                await self._publish(feed, None)
        except BaseException:
            self._unpublished.note(*changes)
            self.greeks.changes.note(*of_greeks)
            raise
        self._all_due = False

    async def _publish(self, feed: AccountFeed, keys: Collection[Key] | None) -> bool:
        """Publish holdings: the quantities that changed are stored first, then the rows written.

        Args:
            feed: The account feed.
            keys: Of which holdings what changed is written; None: all rows are replaced.

        Returns:
            False if all rows must be replaced instead; nothing was written then.
        """
        is_whole = keys is None
        published = self._published
        accounts = feed.book.confirmations()
        reported = feed.book.reported(keys, self.greeks)
        changed = {
            key: holding
            for key, holding in reported.items()
            if key not in published or not is_repeated(published[key], holding)
        }
        if not is_whole and 2 * len(changed) > len(published):
            return False  # most of them changed

        if is_whole:
            rows = self._not_long_closed(reported.values())
        else:
            # And a row of each account that was only confirmed anew, since rows carry that.
            rows = [*changed.values(), *self._rows_that_confirm(feed, changed, accounts)]
        await self._record_changes(changed)
        if (rows or is_whole) and not await self._write(rows, accounts, whole=is_whole):
            return False

        if is_whole:
            self._published = reported
        else:
            published |= changed
        self._accounts = accounts
        self._may_have_unpublished = False  # these rows have all that was stored
        return True

    async def _record_changes(self, changed: Holdings) -> None:
        """Store the quantities that changed, before they are published.

        If the process dies in between, the next owner publishes them (`restore`). After a
        publication that failed, a change begins at the quantity that was stored, not at the
        published one.
        """
        if self.watcher is None:
            return
        before = self._published
        if self._may_have_unpublished:
            # They are read as far back as closed holdings stay published.
            before = before | await self.watcher.unpublished(before, CLOSED_PUBLISHED)
        confirmed = {name: account.confirmed_at for name, account in self._accounts.items()}
        changes = changes_between(before, changed, confirmed)
        if changes:
            self._may_have_unpublished = True
            await self.watcher.record(changes)

    def _is_moved(self, key: Key) -> bool:
        """Return whether a value of PnLSingle moved since the last row or request of the holding.

        A move of a value of another source waits for the next refresh.
        """
        holding = self._published[key]
        if holding.value_source is not ValueOrigin.PNL_SINGLE:
            return False
        before = self.submitted.last(key)
        if before is None or before.value_source is not ValueOrigin.PNL_SINGLE:
            return True  # its first value of PnLSingle
        settings = self.ownership.settings
        return has_moved(
            before,
            holding,
            part=settings.monitored_move_part,
            amount=settings.monitored_move_amount,
        )

    def _rows_that_confirm(
        self, feed: AccountFeed, changed: Holdings, accounts: _Accounts
    ) -> Iterator[BrokerPosition]:
        """Yield a row for each account whose confirmation changed and that has no changed row.

        A confirmation of an account is stored in its rows alone: the write adds it to each row
        (`account_confirmed_at`).
        """
        for account in accounts.keys() - {account for account, _conid in changed}:
            if accounts[account] == self._accounts.get(account):
                continue
            key = feed.book.one_of(account)
            if key is not None and (holding := self._published.get(key)) is not None:
                yield replace(holding, completeness=accounts[account].completeness)

    async def _write(self, rows: list[BrokerPosition], accounts: _Accounts, *, whole: bool) -> bool:
        """Write all rows of the gateway, or some; return False if the table needs all instead."""
        table = self.broker_positions
        if table is None:
            return True

        # An update returns None for a new session or table, and where it leaves too many files.
        write: Callable[..., int | None] = table.replace if whole else table.update
        version = await offload(
            write,
            self.ownership.settings.gateway_id,
            rows,
            session=self.ownership.session,
            captured_at=self.ownership.clock(),
            accounts=accounts,
        )
        return version is not None

    async def enqueue_all(self, routes: LegStates, reason: Reason = Reason.SNAPSHOT) -> None:
        """Queue every holding that is not streamed, and every close without a zero row.

        A holding of a security type that is not valued has no row, and its close needs none. If
        the type was valued before, the close is queued: the ledger must not keep it open.
        """
        keys = [key for key, state in routes.items() if state in QUEUED]
        keys += [
            key
            for key in self._published.keys() & (routes.keys() | self.submitted.open_at_start)
            if self.submitted.lacks_zero_row(self._published[key])
        ]
        await self.enqueue(routes, keys, reason)

    async def enqueue_changed(self, routes: LegStates, changed: Iterable[Key]) -> None:
        """Queue the holdings whose quantity changed, or whose value became known or unknown.

        Only what is published: a drain takes the values from `broker_positions`. What was queued or
        written as it is now needs no request. A streamed holding has its rows by its line, and one
        without a route is of a security type that is not valued.
        """
        keys = [
            key
            for key in changed
            if key in self._published
            and routes.get(key) not in (None, LegState.STREAMED)
            and not self.submitted.is_submitted(self._published[key])
        ]
        await self.enqueue(routes, keys)

    async def enqueue_moved(self, routes: LegStates) -> None:
        """Queue the monitored holdings whose published value by PnLSingle moved."""
        moved = [
            key
            for key in self._published
            if routes.get(key) is LegState.MONITORED and self._is_moved(key)
        ]
        await self.enqueue(routes, moved)

    async def enqueue(
        self, routes: LegStates, keys: Iterable[Key], reason: Reason = Reason.CHANGED
    ) -> None:
        """Queue these holdings, as far as they were published, in one commit.

        What only the feed has is not queued yet: a drain takes values from `broker_positions`.

        Args:
            reason: The reason of the requests; active legs without a line have OVERFLOW instead.
        """
        holdings = {key: self._published[key] for key in keys if key in self._published}
        if not holdings:
            return
        requests = [_request(holding, routes.get(key), reason) for key, holding in holdings.items()]
        await self.queue.insert_many(requests)
        self.submitted.record(holdings.values())
        self.ownership.counts.enqueued += len(holdings)

    def _not_long_closed(self, holdings: Iterable[BrokerPosition]) -> list[BrokerPosition]:
        """Leave out the holdings that closed `CLOSED_PUBLISHED` ago or earlier.

        Those that lacked their zero row at the start stay in any case.
        """
        since = self.ownership.clock() - CLOSED_PUBLISHED
        return [
            holding
            for holding in holdings
            if holding.position
            or holding.position_time >= since
            or holding.key in self.submitted.unwritten
        ]


def _request(holding: BrokerPosition, route: LegState | None, reason: Reason) -> QueueRequest:
    """Return the request for a holding; an active leg without a line comes first."""
    overflow = route is LegState.OVERFLOW
    return QueueRequest(
        conid=holding.instrument.conid,
        symbol=holding.instrument.symbol or str(holding.instrument.conid),
        priority=ACTIVE_PRIORITY if overflow else MONITORING_PRIORITY,
        account=holding.account,
        reason=Reason.OVERFLOW if overflow else reason,
    )
