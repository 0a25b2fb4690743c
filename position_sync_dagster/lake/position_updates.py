"""The ledger of values, `position_updates`: appended once per `update_id`, read, and followed.

`SyncUpdates` has blocking calls, `PositionUpdatesTable` is for asyncio. A handler that
writes streamed updates, for a program without a lake, is here too, and the checks of updates that
other code made: other spellings are converted, and values that cannot be stored are refused.

A row whose id the ledger holds is not written again: a repeated update or batch has the same id.
Where an update comes without one, `_update_id` makes it; the drain makes those of its own rows
(`sync/drain.py`).
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from operator import index
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import polars as pl
from deltalake import DeltaTable
from polars import DataFrame, Int64, LazyFrame, col, lit

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.holding import KEY, Key
from position_sync_dagster.domain.instrument import Right, parse_expiry, parse_right
from position_sync_dagster.domain.position_update import (
    PositionUpdate,
    Source,
    trading_mode_of,
)
from position_sync_dagster.errors import InvalidLegError, InvalidRequestError, NewerRowError
from position_sync_dagster.lake.followed_rows import LEDGER_POLL_S, Added, AddedRows, Follower
from position_sync_dagster.lake.ledger_rows import (
    BY_TIME,
    COMMITTED,
    LatestRows,
    added_after,
    clock_resets,
    last_added,
    newest_rows,
    read_between,
    stored_ids,
)
from position_sync_dagster.lake.schema import (
    POSITION_UPDATES,
    UPDATE_COLUMNS,
    StoredColumn,
    content_id,
    moment,
    one_of,
    storable,
    update_rows,
    updates_of,
)
from position_sync_dagster.lake.storage import commits
from position_sync_dagster.lake.storage.commits import bind, refuse_stale_owner
from position_sync_dagster.lake.storage.data_files import EVERY, data_files
from position_sync_dagster.lake.storage.object_store import StorageOptions
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded


def coerce_update(update: PositionUpdate) -> PositionUpdate:
    """Return the update in the form in which it is stored; the same object if nothing changes.

    A time without a zone is local time, as `datetime.now()` returns it. A right or an expiry may
    be text as IB writes it, "" for none. A number that is not finite, or IB's DBL_MAX, becomes
    None (unknown).

    Raises:
        InvalidRequestError: A field holds a value that cannot be stored, or a field that each row
            needs, such as the position, is unknown.
    """
    changes: dict[str, Any] = {}
    for name, column, coerce in _CHECKS:  # each column, and what reads a value for it
        value = getattr(update, name)
        coerced = None
        if value is not None:
            try:
                coerced = coerce(value)
            except (ValueError, TypeError, OverflowError, OSError, InvalidLegError):
                raise _refused(name, value, column) from None

        if coerced is None and not column.nullable:
            raise _refused(name, value, column)
        if coerced is not value:
            changes[name] = coerced
    return replace(update, **changes) if changes else update


def _refused(name: str, value: object, column: StoredColumn) -> InvalidRequestError:
    """Return the error of a value that a column cannot have, and what it may have."""
    if column.choices:
        wanted = f"one of {', '.join(column.choices)}"
    else:
        _coerce, wanted = _BY_KIND[column.kind]
    return InvalidRequestError(
        f"The update's {name} {value!r:.80} cannot be stored: it is not {wanted}.",
        remedy=f"Pass {name} as {wanted}.",
    )


# Greater numbers count as unknown: IB writes DBL_MAX for a number that it does not know, and the
# sum of two would be infinite.
UNSET_FROM = 1e300


def _number(value: Any) -> float | None:
    """Return a number; None for one that counts as unknown, such as IB's DBL_MAX.

    No text is taken for a number, and no bool.
    """
    if isinstance(value, bool | str | bytes):
        raise TypeError
    number = float(value)
    return number if -UNSET_FROM < number < UNSET_FROM else None


def _text(value: Any) -> str:
    """Return a text; nothing else counts as one."""
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: Any) -> int:
    """Return a whole number of at most 64 bits, as a column of the table has them."""
    count = index(value)
    if isinstance(value, bool) or not -(2**63) <= count < 2**63:
        raise TypeError
    return count


def _moment(value: Any) -> datetime:
    """Return a time with a zone; one without is local time."""
    if not isinstance(value, datetime):
        raise TypeError
    if value.tzinfo is not None:
        return value

    return value.astimezone(UTC)


# How a value of each kind is read, and what it has to be.
_BY_KIND: dict[type, tuple[Callable[[Any], object], str]] = {
    float: (_number, "a finite number"),
    str: (_text, "a str"),
    int: (_count, "a whole number"),
    datetime: (_moment, "a datetime, such as datetime.now(UTC)"),
    date: (parse_expiry, "a date, or text such as 20260220"),
}


def _check_of(column: StoredColumn) -> Callable[[Any], object]:
    """Return what reads a value for a column, and raises an error for a wrong one."""
    if column.choices is None and column.kind is not date:  # the one date is the expiry
        return _BY_KIND[column.kind][0]

    read = parse_right if column.choices is Right else column.choices or parse_expiry
    # IB writes "" for none: no right, no expiry.
    return lambda value: None if isinstance(value, str) and not value.strip() else read(value)


_CHECKS = [(name, column, _check_of(column)) for name, column in UPDATE_COLUMNS.items()]


def identified(
    updates: Iterable[PositionUpdate], batch_id: str = "", run_id: str | None = None
) -> DataFrame:
    """Return updates as rows of the table, with the empty ids and the trading mode filled in.

    An update without an id gets that of its request if it is of the queue, else the UUID of its
    content, and a batch that of its rows. The trading mode is that of the account. If several
    updates have one id, the first counts.

    Raises:
        InvalidRequestError: A field of an update cannot be stored; see `coerce_update`.
    """
    listed = list(map(coerce_update, updates))
    if not listed:
        return update_rows([])

    ids = [update.update_id or _update_id(update) for update in listed]
    newest_at = max(update.timestamp for update in listed)
    id_of_content = batch_id or content_id(newest_at, *sorted(ids))
    filled: dict[str, list[Any]] = {
        "update_id": ids,
        "batch_id": [batch_id or update.batch_id or id_of_content for update in listed],
        "run_id": [update.run_id or run_id for update in listed],
        "trading_mode": [
            update.trading_mode or (trading_mode_of(update.account) if update.account else None)
            for update in listed
        ],
    }
    return update_rows(listed, filled).unique("update_id", keep="first", maintain_order=True)


def _update_id(update: PositionUpdate) -> str:
    """Return the id of an update that has none: that of its request, or of its content.

    The same update has the same id again, and is written once.
    """
    if update.source is Source.QUEUE and update.request_id:
        return update.request_id
    at = update.timestamp.astimezone(UTC)
    content = (
        update.gateway_id,
        update.account,
        update.conid,
        at.isoformat(),
        update.source.value,
        update.position,
        update.market_price,
        update.market_value,
        update.average_cost,
        update.unrealized_pnl,
    )
    return content_id(update.timestamp, *content)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendResult:
    """The outcome of an append.

    Attributes:
        version: The table's version that holds the rows.
        rows: Rows written; 0 when the table held all of them already.
        batch_id: The batch of the rows; empty without any.
    """

    version: int
    rows: int
    batch_id: str = ""


def append_rows(
    table: Table,
    frame: DataFrame,
    *,
    clock: Clock,
    guard: Callable[[], None] | None = None,
    through: int | None = None,
) -> AppendResult:
    """Write the rows that the table does not hold, in one commit; see `SyncUpdates.append`.

    Concurrent appends conflict, so that each one checks its ids against all earlier rows.

    Args:
        table: `position_updates`, or another table whose rows have an id, a `ledger_version` and
            the owner that wrote them.
        frame: Its rows, as `identified` returned them.
        clock: Returns the current time, which each row gets as `committed_at`.
        guard: Called right before the commit: its error ends the append.
        through: The version up to which the caller had read the ledger, if it may write only while
            no row of its holdings was added since; None: whatever was added.
    """
    if frame.is_empty():
        return AppendResult(version=table.version(), rows=0)

    first_row = frame.row(0, named=True)
    names = ("batch_id", "run_id")
    commit_info = {name: str(first_row[name]) for name in names if first_row.get(name)}

    fenced = frame.select("gateway_id", "fencing_token").drop_nulls("fencing_token")
    owners = fenced.unique().rows()
    modes = frame["trading_mode"].unique()

    def step(handle: DeltaTable) -> AppendResult:
        """Check who writes, leave out what is stored, number the rows, and commit them.

        It runs again when another writer was first. Refused are an owner that a later one of its
        gateway has followed, and data of another trading mode than the table's (`bind`).
        """
        nonlocal through
        for gateway_id, token in owners:
            refuse_stale_owner(handle, gateway_id, token)
        bind(handle, table.path, modes)

        files = data_files(handle)
        rows = _without_stored(table, files, frame)
        if rows.is_empty():
            return AppendResult(version=handle.version(), rows=0)

        if through is not None:
            _refuse_newer(table, files, through, rows)
            # After a conflict only the rows that the winner added are checked. Otherwise each
            # commit of others would make the next attempt longer, and beside several streams no
            # attempt would win.
            through = max(through, last_added(files))
        if guard is not None:
            guard()

        version = handle.version() + 1
        # Rows that were copied from another table may have greater versions.
        ledger_version = max(version, last_added(files) + 1)
        now = clock()
        rows = rows.with_columns(
            ledger_version=lit(ledger_version, Int64), committed_at=moment(now)
        )
        # How often a writer's clock was behind a stored time: by it the newest row of a holding in
        # the ledger is found (`ledger_rows`). In other tables the row that was added last counts.
        if "clock_resets" in rows.columns:
            rows = rows.with_columns(clock_resets=lit(clock_resets(files, now), Int64))
        commits.write(handle, rows, commit_info, writer=table.spec.name)
        return AppendResult(
            version=handle.version(), rows=rows.height, batch_id=commit_info.get("batch_id", "")
        )

    return table.transact(step)


def _without_stored(table: Table, files: DataFrame, rows: DataFrame) -> DataFrame:
    """Return the rows of which the table holds neither batch nor id, whatever their times.

    A batch is stored whole: one row of it shows that all are there.
    """
    for column in table.spec.indexed:
        if column not in ("batch_id", *table.spec.key):
            continue
        stored = stored_ids(table, files, column, rows[column])
        if stored:
            rows = rows.filter(~col(column).is_in(stored))
    return rows


def _refuse_newer(table: Table, files: DataFrame, through: int, rows: DataFrame) -> None:
    """Raise an error if a row of one of the holdings was added after that version.

    Args:
        files: The data files of the version that the commit is decided on.
        through: The version at which the caller read the newest rows.
        rows: Those to be written.
    """
    added = added_after(table, files, through).select(KEY)
    holdings = rows.lazy().select(KEY)
    newer = added.join(holdings, on=KEY, how="semi").collect()
    if not newer.is_empty():
        account, conid = newer.row(0)
        raise NewerRowError(
            f"Another row of the conid {conid} in {account} was written meanwhile.",
            remedy="Read the newest rows again and decide anew.",
        )


# How far back `last_before` reads for the last row of a holding, in days.
LOOK_BACK_DAYS = 14


class NewestRows(NamedTuple):
    """The newest rows of some contracts at one version of the ledger, by account and conid.

    Attributes:
        through: The greatest `ledger_version` of the ledger's rows at that version.
    """

    rows: Mapping[Key, PositionUpdate]
    through: int = 0


class AddedCounts(NamedTuple):
    """The number of rows that were added to the ledger after a version.

    Attributes:
        rows: The number of rows, by STREAM and QUEUE.
        version: The greatest `ledger_version` of the ledger's rows.
    """

    rows: Mapping[str, int]
    version: int


class SyncUpdates:
    """The ledger with blocking calls; see `PositionUpdatesTable`."""

    def __init__(self, table: Table, clock: Clock = utc_now, known: Table | None = None) -> None:
        self.table = table
        self._clock = clock
        self._latest = LatestRows(table, known)
        self._added = AddedRows(table)

    def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there."""
        self.table.initialize()

    def count_after(self, version: int) -> AddedCounts:
        """Count the rows that were committed after a version; a merge of files adds none."""

        def step(files: DataFrame) -> AddedCounts:
            # Both from the files of one version, so that the next count goes on where this ends.
            newest = last_added(files)
            if newest <= version:  # an idle tick reads no row
                return AddedCounts({}, newest)
            added = added_after(self.table, files, version)
            counts = added.group_by("source").agg(pl.len()).collect()
            return AddedCounts(rows=dict(counts.iter_rows()), version=newest)

        return self.table.read(step)

    def append(
        self,
        updates: Iterable[PositionUpdate],
        batch_id: str = "",
        *,
        run_id: str | None = None,
        guard: Callable[[], None] | None = None,
        through: int | None = None,
    ) -> AppendResult:
        """Write updates in one commit; rows that the table holds are not written again.

        A batch that was committed before writes nothing. Neither does an update whose id is in
        the table, however old its row is. Empty ids are filled in: an update of the queue gets the
        id of its request, a streamed one the UUID of its content, and the batch that of its rows.

        Args:
            guard: Called right before the commit, again in each retry after a conflict, and not at
                all when there is nothing to write. Its errors reach the caller, and nothing is
                written (an OSError counts as one of the table). It runs in a thread of the lake,
                while this table's lock is held: keep it short, and do not call this table in it.
            through: The `through` that `newest_of` returned: nothing is written if any process
                added a row of one of the holdings since.

        Raises:
            TradingModeError: The table holds data of another trading mode.
            LeaseLostError: A later owner of the gateway has fenced the table.
            NewerRowError: A row of one of the holdings was added after `through`.
            InvalidRequestError: A field cannot be stored: no position, text for a number, a right
                or an expiry that does not parse. (A number that is not finite is stored as
                unknown, and a time without a zone is local time.)
        """
        return append_rows(
            self.table,
            identified(updates, batch_id, run_id),
            guard=guard,
            through=through,
            clock=self._clock,
        )

    def existing(self, update_ids: Iterable[str]) -> set[str]:
        """Return which of these ids the table holds."""
        ids = pl.Series(list(map(storable, update_ids)), dtype=pl.String)
        return self.table.read(lambda files: stored_ids(self.table, files, "update_id", ids))

    def latest(self) -> DataFrame:
        """Return the newest row per (account, conid).

        The newest row has the greatest `clock_resets`, then the greatest `timestamp`, then the
        greatest `update_id`, whatever the order of writing: while no clock was set back, the
        time decides.

        The first call reads the known rows and what was added since, or the whole table where there
        are no known rows; later calls only what was added since. `latest_positions` leaves out what
        closed more than 14 days ago, and so does this with it: `as_of` has the last rows of all.
        """
        return self._latest.read_through()[0]

    def latest_updates(self) -> list[PositionUpdate]:
        """Return the newest update per (account, conid)."""
        return updates_of(self.latest())

    def newest_of(self, conids: Collection[int], since: datetime) -> NewestRows:
        """Return the newest row of each holding of some contracts, if it is not older than `since`.

        It reads what `latest` reads, and copies no rows of other contracts. With the rows comes the
        newest version that was read, `through`: a row that is added later has a greater one.
        """
        rows, through = self._latest.read_through()
        is_recent = col.timestamp >= since.astimezone(UTC)
        recent = rows.filter(one_of("conid", conids), is_recent)

        newest = {(update.account, update.conid): update for update in updates_of(recent)}
        return NewestRows(rows=newest, through=through)

    def as_of(self, moment: datetime, *, as_known_now: bool = False) -> DataFrame:
        """Return the newest row per (account, conid) among those that were committed by a moment.

        This is what `latest` returned then. It reads a few columns of all rows up to the moment. A
        row of an older release, without the time of its commit, counts from its timestamp.

        Args:
            moment: With a time zone; one without is local time.
            as_known_now: Instead, return the last row with a timestamp at or before the moment,
                also if it was committed later.
        """
        at = col.timestamp if as_known_now else COMMITTED
        is_wanted = at <= moment.astimezone(UTC)
        scan = self.table.scan_files
        rows = self.table.read(lambda files: newest_rows(scan(files).filter(is_wanted)))
        return rows.sort(KEY)

    def days(self) -> set[date]:
        """Return the UTC days of which there are rows, from the log alone."""
        return self.table.read(lambda files: set(files["partition.date"].unique()))

    def last_before(self, moment: datetime, look_back_days: float = LOOK_BACK_DAYS) -> DataFrame:
        """Return the last row at or before a moment per (account, conid), as far as known now.

        A row that was committed after the moment counts too: its timestamp decides. Only files of
        the `look_back_days` before the moment are read.
        """
        first = moment - timedelta(days=look_back_days)
        return read_between(self.table, first, moment, newest_rows).sort(KEY)

    def follow(self, since: str | None = None) -> Follower:
        """Return a reader of what is committed from a place on; see `Follower`.

        Args:
            since: A token of an earlier read; "now" for what is committed from now on; None for the
                newest row of each holding first.

        Raises:
            TokenError: The text is no token.
        """
        return Follower(self.table, self._added, self._latest, since)

    def between(
        self,
        first: datetime,
        last: datetime,
        conids: Collection[int] | None = None,
        columns: Collection[str] = tuple(POSITION_UPDATES.columns),
    ) -> DataFrame:
        """Return all rows with `first` <= timestamp <= `last`, in order of time.

        Args:
            conids: The contracts that are wanted; None: all.
            columns: Names of columns, all by default; those of the order come too.
        """
        wanted = EVERY if conids is None else one_of("conid", conids)
        names = list(dict.fromkeys((*columns, *BY_TIME)))

        def step(rows: LazyFrame) -> DataFrame:
            return rows.filter(wanted).select(names).collect()

        return read_between(self.table, first, last, step).sort(BY_TIME)

    def count(self) -> int:
        """Count the rows, without reading them."""
        return self.table.count()

    def version(self) -> int:
        """Return the table's newest version."""
        return self.table.version()


class PositionUpdatesTable:
    """The table `position_updates`: every value of every holding, kept for good.

    An `update_id` or a `batch_id` that is in the table is never written again, whatever the
    clocks say. Each append searches for its ids in the files whose range of ids includes one of
    them. For ids that sort by time these are few, and all ids that this package makes sort by time.
    Use ids that sort by time too (UUIDs of version 7). Random ids, such as `uuid4`, are safe but
    slow: with them, each append reads the ids of most files, which takes a second or more at ten
    million rows.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.
        clock: Returns the current time, which each commit records.
        known: A table with the newest rows of an earlier version, such as `latest_positions`:
            with it, the cost of `latest` does not grow with the history. It may lack holdings
            that are closed.

    Attributes:
        sync: The same table with blocking calls.

    >>> updates = PositionUpdatesTable("data/lake/position_updates")  # doctest: +SKIP
    >>> await updates.append([update], batch_id="drain-1")            # doctest: +SKIP
    >>> (await updates.latest()).select("account", "conid", "position")  # doctest: +SKIP
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/position_updates",
        *,
        clock: Clock = utc_now,
        known: Table | None = None,
        **options: Unpack[TableOptions],
    ) -> None:
        self.table = Table(delta_lake_path, POSITION_UPDATES, **options)
        self.sync = SyncUpdates(self.table, clock, known)

    initialize = offloaded(SyncUpdates.initialize)
    append = offloaded(SyncUpdates.append)
    latest = offloaded(SyncUpdates.latest)
    latest_updates = offloaded(SyncUpdates.latest_updates)
    as_of = offloaded(SyncUpdates.as_of)
    between = offloaded(SyncUpdates.between)
    count = offloaded(SyncUpdates.count)
    version = offloaded(SyncUpdates.version)

    def follow(
        self, since: str | None = None, poll_s: float = LEDGER_POLL_S
    ) -> AsyncIterator[Added]:
        """Yield what is committed, in order, nothing twice and nothing left out, for ever.

        Without a token it begins with the newest row of each holding, then follows. Many readers
        of one object share the work. `sync.follow` returns a reader with blocking calls.

        Args:
            since: The token of the rows that were read last; "now" for what is committed from now
                on.
            poll_s: How often to look for a new commit while there is none, in seconds.

        Raises:
            TokenError: The text is no token, or the ledger cannot go on at its place.

        >>> async for rows, token in updates.follow(stored):        # doctest: +SKIP
        ...     print(rows.select("symbol", "market_value"), token)
        """
        return self.sync.follow(since).rows_async(poll_s)


class DeltaLakePositionWriter:
    """Writes streamed updates to `position_updates`; a repeated update writes nothing.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.
        table: The table to write to, instead of the one at `delta_lake_path`.

    >>> streamer.register_handler(DeltaLakePositionWriter())  # doctest: +SKIP
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/position_updates",
        *,
        table: PositionUpdatesTable | None = None,
        storage_options: StorageOptions = None,
        fsync: bool = True,
    ) -> None:
        self.table = table or PositionUpdatesTable(
            delta_lake_path, storage_options=storage_options, fsync=fsync
        )

    @property
    def delta_lake_path(self) -> str:
        """Return the folder or URI of the table."""
        return self.table.table.path

    async def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there."""
        await self.table.initialize()

    async def on_position_update(self, update: PositionUpdate) -> None:
        """Write one update."""
        await self.on_position_updates([update])

    async def on_position_updates(self, updates: Iterable[PositionUpdate]) -> None:
        """Write updates in one commit."""
        await self.table.append(updates)
