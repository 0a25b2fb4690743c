"""The ledger of values, `position_updates`: appended once per `update_id`, read, and followed.

`SyncUpdates` has blocking calls, `PositionUpdatesTable` is for asyncio. A handler that
writes streamed updates, for a program without a lake, is here too.

Files are chosen by the statistics in the log, and read directly. The newest rows are kept up to
date by reading only what was added. A row whose id the ledger holds is not written again: a
repeated update or batch has the same id.

A reader that follows the ledger stores a token, a text that names a place in it, and goes on from
there later, in another process or after a restart. Merging and deleting files do not change what it
reads: each row has the version that added it (`ledger_version`), and every commit has a greater one
than those before it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Unpack

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.position_update import (
    OwnUpdates,
    PositionUpdate,
    Source,
    TradingMode,
    trading_mode_of,
)
from position_sync_dagster.errors import TokenError
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.coercion import NUMBERS, coerce_update
from position_sync_dagster.lake.schema import POSITION_UPDATES, content_id, moment, one_of
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.table import Table, TableOptions, offload, offloaded


def stored_ids(table: Table, files: pl.DataFrame, column: str, ids: pl.Series) -> set[str]:
    """Return which of the ids a column holds; reads only the files that may hold one."""
    files = files.filter(storage.may_have_one_of(column, ids))
    if files.is_empty():
        return set()
    rows = table.scan_files(files).select(column)
    found = rows.filter(pl.col(column).is_in(ids.unique().implode())).collect()
    return set(found.get_column(column).to_list())


def rows_between(
    table: Table, files: pl.DataFrame, first: datetime, last: datetime
) -> pl.LazyFrame:
    """Return the rows with `first` <= timestamp <= `last`, from the files that may hold one.

    Args:
        table: The table.
        files: Its data files.
        first: The start; one without a time zone is local time.
        last: The end, likewise.
    """
    first, last = first.astimezone(UTC), last.astimezone(UTC)
    on_days = pl.col("partition.date").is_between(first.date(), last.date())
    chosen = files.filter(on_days, storage.may_have("timestamp", first, last))
    return table.scan_files(chosen).filter(pl.col("timestamp").is_between(first, last))


def added_after(table: Table, files: pl.DataFrame, version: int) -> pl.LazyFrame:
    """Return the rows that commits after a version added."""
    files = files.filter(pl.col("max.ledger_version") > version)
    return table.scan_files(files).filter(pl.col("ledger_version") > version)


def added_by(table: Table, files: pl.DataFrame, version: int) -> pl.LazyFrame:
    """Return the rows that the commit of a version added."""
    around = files.filter(storage.may_have("ledger_version", version, version))
    return table.scan_files(around).filter(pl.col("ledger_version") == version)


def unreadable_rows(table: Table, files: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Return the rows since a moment that no program can use, which readers leave out.

    The files are those with rows since the moment, and those with an impossible time or version.
    """
    spec, odd_time = table.spec, pl.col("min.timestamp") < schema.TIMES[0]
    odd_version = pl.col("max.ledger_version") > schema.MOST_VERSIONS
    chosen = files.filter(storage.may_have("timestamp", since) | odd_time | odd_version)
    if spec.readable is None:
        return spec.empty
    return table.scan_stored(chosen).filter(~spec.readable.fill_null(value=False)).collect()


def last_added(files: pl.DataFrame) -> int:
    """Return the greatest `ledger_version` of the files, from the log alone; 0 where none is."""
    greatest = files.get_column("max.ledger_version")
    last = greatest.filter(greatest <= schema.MOST_VERSIONS).max()
    return last if isinstance(last, int) else 0


# The columns that name a holding.
HOLDING = ["account", "conid"]

# The order of rows, whatever the order in which they were written: the newest is the last.
BY_TIME = ["timestamp", "update_id"]

# The order in which rows were added; null comes before all others.
ADDED = "ledger_version"

# When rows were committed; rows of older releases count from their timestamp.
COMMITTED = pl.coalesce("committed_at", "timestamp")


def newest_rows(rows: pl.LazyFrame) -> pl.DataFrame:
    """Return the newest row of each holding, also where a clock was wrong.

    The greatest timestamp wins, so that rows may be written late. But where a row of the same
    holding was added later, by a writer whose clock had not reached that timestamp yet, the two
    clocks disagree. Then the order of writing decides, which no clock can change: the rows before
    that later one do not count.
    """
    # Two passes: the first reads a few columns, the second all columns of the few newest rows.
    # Rows with equal times are rare; sorting each holding by id would cost ten times the rest.
    tops = rows.group_by(HOLDING).agg(pl.col("timestamp").max(), _last=pl.col(ADDED).max())
    tops = tops.collect().lazy()
    found = rows.join(tops, on=[*HOLDING, "timestamp"], how="inner").collect()
    if found.height > found.select(HOLDING).n_unique():
        found = found.sort("update_id").unique(HOLDING, keep="last")
    newest = found.drop("_last")
    since = _contradicted_since(rows, found)
    if since.is_empty():
        return newest
    later = rows.join(since.lazy(), on=HOLDING).filter(pl.col(ADDED) >= pl.col("_since"))
    kept = newest.join(since, on=HOLDING, how="anti")
    return pl.concat([kept, newest_rows(later.drop("_since"))])


def _contradicted_since(rows: pl.LazyFrame, newest: pl.DataFrame) -> pl.DataFrame:
    """Return the holdings whose newest timestamp a later writer contradicts.

    Args:
        newest: The row with the greatest timestamp of each holding; `_last` is the greatest
            `ledger_version` of the holding.

    Returns:
        Account, conid and `_since`: the `ledger_version` of the first row that contradicts.
    """
    added = pl.col(ADDED).fill_null(-1)
    overtaken = newest.filter(pl.col("_last") > added).select(
        *HOLDING, _top=added, _limit=pl.col("timestamp")
    )
    if overtaken.is_empty():
        return overtaken
    return (
        rows.join(overtaken.lazy(), on=HOLDING, how="inner")
        .filter(pl.col(ADDED) > pl.col("_top"), pl.col("committed_at") < pl.col("_limit"))
        .group_by(HOLDING)
        .agg(_since=pl.col(ADDED).min())
        .collect()
    )


def newest_version(rows: pl.DataFrame) -> int:
    """Return the greatest `ledger_version` of rows; 0 where none has one."""
    found = rows.get_column(ADDED).max()
    return found if isinstance(found, int) else 0


class LatestRows:
    """The newest rows of one ledger.

    The first read begins with the known rows, or reads the table; later ones read the new files.

    Args:
        table: The ledger.
        known: A table with the newest rows of an earlier version, which the first read begins with.
    """

    def __init__(self, table: Table, known: Table | None = None) -> None:
        self._table = table
        self._known = known
        self._mutex = Lock()
        self._generation = 0
        self._through = 0
        self._rows = table.spec.empty

    def read_through(self) -> tuple[pl.DataFrame, int]:
        """Return the newest row of each holding that the known rows have or that came since.

        Returns:
            The rows, in the order of account and conid, and the greatest `ledger_version` that was
            looked at.
        """
        with self._mutex:
            # The known rows are read first, so that the ledger is the newer of the two.
            known = None if self._through else self._known_rows()
            self._table.snapshot(lambda handle: self._refresh(handle, known))
            return self._rows, self._through

    def _known_rows(self) -> pl.DataFrame | None:
        """Return the known rows; None if there are none, or they cannot be read."""
        try:
            if self._known is None or not self._known.exists():
                return None
            rows = self._known.rows().with_columns(date=pl.col("timestamp").dt.date())
            return rows.select(list(self._table.spec.columns))
        except errors.LakeError:
            return None  # the ledger has them too

    def _refresh(self, handle: DeltaTable, known: pl.DataFrame | None) -> None:
        """Read the rows that were added.

        Args:
            handle: The ledger.
            known: What the first read begins with.
        """
        # Rows are only added: of those that were read the newest stays the newest, and the next
        # read needs only the rows that came since. A file that was merged has no others.
        files, generation = storage.data_files(handle), self._table.cache_key(handle)[0]
        last = last_added(files)
        # A smaller version: somebody took rows back, such as with `DeltaTable.restore`.
        if generation != self._generation or last < self._through:
            self._generation, self._through = generation, 0
        if not self._through:
            self._rows = newest_rows(self._first_rows(files, known)).sort(HOLDING)
        elif last > self._through:
            self._take(added_after(self._table, files, self._through).collect())
        self._through = last

    def _first_rows(self, files: pl.DataFrame, known: pl.DataFrame | None) -> pl.LazyFrame:
        """Return as few rows as possible that include the newest row of each holding held lately.

        Each commit has a greater version than those before it. Only rows that were added after
        the known ones can be newer than they are, whatever the clocks said.
        """
        through = 0 if known is None else newest_version(known)
        if known is not None and through:
            last = known.filter(pl.col(ADDED) == through).get_column("update_id")
            # After a repair the versions continue from an earlier one, with other rows.
            added = added_by(self._table, files, through).select("update_id").collect()
            if last.is_in(added.get_column("update_id").implode()).all():
                return pl.concat([known.lazy(), added_after(self._table, files, through)])
        return self._table.scan_files(files)

    def _take(self, added: pl.DataFrame) -> None:
        """Determine the newest row of each holding that has a new row."""
        # By contract: two joins by holding would cost twice as much at 20,000 holdings.
        touched = self._rows.get_column("conid").is_in(added.get_column("conid").unique().implode())
        newest = newest_rows(pl.concat([self._rows.filter(touched), added]).lazy())
        self._rows = pl.concat([self._rows.filter(~touched), newest]).sort(HOLDING)


def identified(
    updates: Iterable[PositionUpdate], batch_id: str = "", run_id: str | None = None
) -> pl.DataFrame:
    """Return updates as rows of the table, with the empty ids and the trading mode filled in.

    The update of a request takes the id of the request. Any other update takes the UUID of its
    content, and a batch that of its rows. The trading mode is that of the account. If several
    updates have one id, the first counts. For `OwnUpdates` only the numbers are checked, a column
    at a time.

    Raises:
        InvalidRequestError: A field of an update cannot be stored; see `coerce_update`.
    """
    own = isinstance(updates, OwnUpdates)
    listed = list(updates) if own else [coerce_update(update) for update in updates]
    if not listed:
        return schema.update_rows([])
    ids = [update.update_id or _update_id(update) for update in listed]
    batch = batch_id or content_id(max(update.timestamp for update in listed), *sorted(ids))
    found: dict[str, list[Any]] = {
        "update_id": ids,
        "batch_id": [batch_id or update.batch_id or batch for update in listed],
        "run_id": [update.run_id or run_id for update in listed],
        "trading_mode": [update.trading_mode or _trading_mode(update) for update in listed],
    }
    rows = schema.update_rows(listed, found)
    if own and not all(rows.select(pl.col(NUMBERS).is_finite().all()).row(0)):
        return identified(listed, batch_id, run_id)
    if len(set(ids)) == len(ids):
        return rows
    return rows.unique("update_id", keep="first", maintain_order=True)


def _trading_mode(update: PositionUpdate) -> TradingMode | None:
    return trading_mode_of(update.account) if update.account else None


def _update_id(update: PositionUpdate) -> str:
    if update.source is Source.QUEUE and update.request_id:
        return update.request_id
    content = (
        update.gateway_id,
        update.account,
        update.conid,
        update.timestamp.astimezone(UTC).isoformat(),
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
    frame: pl.DataFrame,
    *,
    clock: Clock,
    guard: Callable[[], None] | None = None,
    through: int | None = None,
) -> AppendResult:
    """Write the rows that the table does not hold, in one commit; see `SyncUpdates.append`.

    The application transaction of each append is named like the table. Concurrent appends with
    equal ids conflict, so that each one checks its ids against all earlier rows.

    Args:
        table: `position_updates`, or another table whose rows have an id, a `ledger_version` and
            the owner that wrote them.
        frame: Its rows, as `identified` returned them.
    """
    if frame.is_empty():
        return AppendResult(version=table.version(), rows=0)

    first_row = frame.row(0, named=True)
    batch_id = first_row.get("batch_id", "")
    ids = {"batch_id": batch_id, "run_id": first_row.get("run_id")}
    commit_info = {name: text for name, text in ids.items() if text}

    writers = set(frame.select("gateway_id", "fencing_token").iter_rows())
    owners = [(gateway_id, token) for gateway_id, token in writers if token is not None]
    modes = [TradingMode(mode) for mode in set(frame.get_column("trading_mode")) if mode]
    checked_through = through

    def step(handle: DeltaTable) -> AppendResult:
        nonlocal checked_through
        for gateway_id, token in owners:
            storage.refuse_stale_owner(handle, gateway_id, token)
        storage.bind(handle, table.path, modes)

        present = storage.data_files(handle)
        rows = _without_stored(table, present, frame)
        if rows.is_empty():
            return AppendResult(version=handle.version(), rows=0)

        if checked_through is not None:
            _refuse_newer(table, present, checked_through, rows)
            # After a conflict only the rows that the winner added are checked. Otherwise each
            # commit of others would make the next attempt longer, and beside several streams no
            # attempt would win.
            checked_through = max(checked_through, last_added(present))
        if guard is not None:
            guard()

        version = handle.version() + 1
        # Rows that were copied from another table may have greater versions.
        ledger_version = max(version, last_added(present) + 1)
        rows = rows.with_columns(
            ledger_version=pl.lit(ledger_version, pl.Int64), committed_at=moment(clock())
        )
        storage.write(handle, rows, commit_info, [Transaction(table.spec.name, version)])
        return AppendResult(version=handle.version(), rows=rows.height, batch_id=batch_id)

    return table.transact(step)


def _without_stored(table: Table, present: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose batch and id the table does not hold, whatever the clocks say."""
    batch = [name for name in table.spec.indexed if name == "batch_id"]
    for column in (*batch, *table.spec.key):
        stored = stored_ids(table, present, column, rows.get_column(column))
        if stored:
            rows = rows.filter(~pl.col(column).is_in(stored))
    return rows


def _refuse_newer(table: Table, present: pl.DataFrame, through: int, rows: pl.DataFrame) -> None:
    """Raise an error if a row of one of the holdings was added after that version."""
    added = added_after(table, present, through).select(HOLDING)
    newer = added.join(rows.lazy().select(HOLDING), on=HOLDING, how="semi").collect()
    if not newer.is_empty():
        account, conid = newer.row(0)
        raise errors.NewerRowError(
            f"Another row of the conid {conid} in {account} was written meanwhile.",
            remedy="Read the newest rows again and decide anew.",
        )


# Instead of a token: begin with the oldest row, or with the next commit.
START, NOW = "start", "now"

# How often a waiting reader looks for a new commit, in seconds.
POLL_S = 0.5

# A reader that is far behind gets at most this many rows at a time, or one whole commit.
MOST_ROWS = 100_000

# The order in which rows are given.
ORDER = [ADDED, "timestamp", "update_id"]

_LEDGER_LENGTH = 13
_TOKEN = re.compile(r"ps(?:1|2:([0-9]{1,18})):([^:]*):([0-9]{1,18}):(.*)", re.DOTALL)
_AT = pl.col("committed_at").dt.epoch("us").alias("at")

_BEGIN_AGAIN = "Begin again without a token: with the newest row of each holding."


class Added(NamedTuple):
    """Rows of the ledger, and the place behind them.

    Attributes:
        rows: Rows of `position_updates`, in the order of ORDER.
        token: The place behind the rows: pass it as `since` to go on there.
    """

    rows: pl.DataFrame
    token: str


class Place(NamedTuple):
    """A place in a ledger, which a token names.

    Attributes:
        ledger: The beginning of the id that Delta gave the table.
        version: The `ledger_version` of the last rows that were read; 0 before the first.
        update_id: One of these rows; empty before the first.
        at: When it was committed, in Unix microseconds: in a restored backup the same row may be
            written again in the same version. None in a token of an older release.

    >>> Place("0193a1c2-7f3e", 812, "0193a1c3", 1772200000000000).token
    'ps2:1772200000000000:0193a1c2-7f3e:812:0193a1c3'
    >>> Place.of("ps1:0193a1c2-7f3e:812:0193a1c3").version
    812
    """

    ledger: str
    version: int
    update_id: str
    at: int | None = None

    @property
    def token(self) -> str:
        """Return the place as a text."""
        form = "ps1" if self.at is None else f"ps2:{self.at}"
        return f"{form}:{self.ledger}:{self.version}:{self.update_id}"

    @classmethod
    def of(cls, token: str) -> "Place":
        """Return the place that a token names.

        Raises:
            TokenError: The text is no token.
        """
        found = _TOKEN.fullmatch(token)
        if found is not None and (int(found[3]) > 0) == bool(found[4]):
            return cls(found[2], int(found[3]), found[4], int(found[1]) if found[1] else None)
        raise TokenError(
            f"{token[:80]!r} is no token of a ledger.",
            remedy=f"Pass a token as `follow` printed it, {START!r} or {NOW!r}. {_BEGIN_AGAIN}",
        )


class AddedRows:
    """What was added to one ledger, read once for all followers at the same place."""

    def __init__(self, table: Table) -> None:
        self._table = table
        # The last two answers of `after`, by the key of the table's content and the place.
        self._answers: dict[object, Added | None] = {}

    def after(self, handle: DeltaTable, place: Place) -> Added | None:
        """Return the first rows behind a place; None without any.

        They are at most MOST_ROWS, or one whole commit.

        Raises:
            TokenError: As `_check`.
        """
        key, answer = (self._table.cache_key(handle), place), None
        if key not in self._answers:
            files = storage.data_files(handle)
            self._check(handle, files, place)
            if last_added(files) > place.version:
                rows = self._read(files, place.version)
                last = rows.select(ADDED, "update_id", _AT).row(-1)
                answer = Added(rows, Place(place.ledger, *last).token)
            self._answers = dict([*self._answers.items()][-1:]) | {key: answer}
        return self._answers[key]

    def place(self, handle: DeltaTable, version: int) -> Place:
        """Return the place behind the rows of a version."""
        rows = added_by(self._table, storage.data_files(handle), version).select("update_id", _AT)
        last = rows.sort("update_id").tail(1).collect().rows()
        return Place(_ledger(handle), version, *(last[0] if last else ("",)))

    def has(self, handle: DeltaTable, place: Place) -> bool:
        """Return whether the ledger has the row of a place."""
        try:
            self._check(handle, storage.data_files(handle), place)
        except TokenError:
            return False
        return True

    def _check(self, handle: DeltaTable, files: pl.DataFrame, place: Place) -> None:
        """Check that the ledger has the row of a place.

        Raises:
            TokenError: The ledger is another one, or somebody took the row back.
        """
        if place.ledger != _ledger(handle):
            raise TokenError(
                f"The token is of another ledger than {self._table.path}.",
                remedy=f"Pass it with the lake that it was printed for. {_BEGIN_AGAIN}",
            )
        added = added_by(self._table, files, place.version)
        named = added.filter(pl.col("update_id") == place.update_id).select(_AT).collect()
        if place.version and (
            named.is_empty() or (place.at is not None and place.at not in named["at"])
        ):
            raise TokenError(
                f"{self._table.path} has no row {place.update_id[:80]} of version {place.version}: "
                f"a repair or a restored backup took it back. The last version with rows is "
                f"{last_added(files)}.",
                remedy=_BEGIN_AGAIN,
            )

    def _read(self, files: pl.DataFrame, version: int) -> pl.DataFrame:
        """Read the first rows after a version; files that can only have later ones are not read."""
        smallest = f"min.{ADDED}"
        later = files.filter(pl.col(f"max.{ADDED}") > version).sort(smallest)
        few = later.filter(pl.col("num_records").cum_sum() <= MOST_ROWS).height + 1
        counts = POSITION_UPDATES.empty
        while counts.is_empty():
            rows = added_after(self._table, later.head(few), version)
            if few < later.height:  # a commit may have rows in several files
                rows = rows.filter(pl.col(ADDED) < later.item(few, smallest))
            counts = rows.group_by(ADDED).len().sort(ADDED).collect()
            few *= 2
        first = counts.item(0, ADDED)
        within = counts.filter(pl.col("len").cum_sum() <= MOST_ROWS).get_column(ADDED).max()
        return rows.filter(pl.col(ADDED) <= (within or first)).sort(ORDER).collect()


def _ledger(handle: DeltaTable) -> str:
    return str(handle.metadata().id)[:_LEDGER_LENGTH]


class Follower:
    """One reader of the ledger, at one place.

    Args:
        table: The ledger.
        added: What was added to it.
        latest: Its newest rows, which a reader without a token begins with.
        since: A token; START for every row; NOW for what is committed after the first read, which
            has no rows then; None for the newest row of each holding first.

    Raises:
        TokenError: `since` is no token.
    """

    def __init__(
        self, table: Table, added: AddedRows, latest: LatestRows, since: str | None
    ) -> None:
        self._table = table
        self._added = added
        self._latest = latest
        self._since = since
        self._place = None if since in (None, START, NOW) else Place.of(since)

    def read(self) -> Added | None:
        """Return what was committed since the last read; None if nothing was.

        Raises:
            TokenError: The token is of another ledger, or of rows that were taken back.
            LakeError: The table cannot be read; the next read goes on at the same place.
        """
        place = self._place
        if place is None:
            rows, through = self._latest.read_through()
            if self._since is not None:
                rows, through = rows.clear(), 0 if self._since == START else through
            self._place = self._table.snapshot(lambda handle: self._added.place(handle, through))
            return Added(rows.sort(ORDER), self._place.token)

        found = self._table.snapshot(lambda handle: self._added.after(handle, place))
        if found is not None:
            self._place = Place.of(found.token)
        return found

    async def rows_async(self, poll_s: float = POLL_S) -> AsyncIterator[Added]:
        """Yield what is committed, for ever; other tasks run while there is nothing."""
        while True:
            found = await offload(self.read)
            if found is None:
                await asyncio.sleep(poll_s)
            else:
                yield found


# The columns that a sample has: few, because a day has many rows.
SAMPLED = [
    *HOLDING,
    "timestamp",
    "update_id",
    "symbol",
    "sec_type",
    "currency",
    "position",
    "unrealized_pnl",
    "daily_pnl",
]

SHORTEST = timedelta(seconds=1)


def sample(rows: pl.LazyFrame, last: datetime, slots: int) -> pl.DataFrame:
    """Return the newest row per holding in each of `slots` equal parts up to `last`."""
    found = rows.collect()
    first = found.get_column("timestamp").min()
    if not isinstance(first, datetime):
        return found.with_columns(slot=pl.col("timestamp"))
    length = max((last - first) / slots, SHORTEST) // timedelta(microseconds=1)
    before_last = (pl.lit(last) - pl.col("timestamp")).dt.total_microseconds() // length
    ends = pl.lit(last).dt.cast_time_unit("us") - pl.duration(microseconds=before_last * length)
    return (
        found.with_columns(slot=ends)
        .sort("timestamp", "update_id")
        .unique(["slot", *HOLDING], keep="last")
        .sort("slot", *HOLDING)
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

        def step(files: pl.DataFrame) -> AddedCounts:
            newest = last_added(files)
            if newest <= version:
                return AddedCounts({}, newest)
            added = added_after(self.table, files, version)
            counts = added.group_by("source").agg(pl.len()).collect()
            return AddedCounts(rows=dict(counts.iter_rows()), version=newest)

        return self.table.read(step)

    def place_at(self, version: int) -> str:
        """Return the token of the place behind the rows of a version."""
        return self.table.snapshot(lambda handle: self._added.place(handle, version)).token

    def has_place(self, token: str) -> bool:
        """Return whether the ledger has the row that a token names.

        It has not where it is another ledger, or an older copy, however many rows came since.
        """
        place = Place.of(token)
        return self.table.snapshot(lambda handle: self._added.has(handle, place))

    def version_at(self, moment: datetime) -> int:
        """Return the greatest `ledger_version` committed by a moment; 0 without any."""

        def step(files: pl.DataFrame) -> int:
            rows = self.table.scan_files(files).filter(moment.astimezone(UTC) >= COMMITTED)
            last = rows.select(pl.col(ADDED).max()).collect().item()
            return last if isinstance(last, int) else 0

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
        the table, however old its row is. Empty ids are filled in: the update of a request takes
        the id of the request, a streamed one the UUID of its content, and the batch that of its
        rows.

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
        rows = identified(updates, batch_id, run_id)
        return append_rows(self.table, rows, guard=guard, through=through, clock=self._clock)

    def fence(self, gateway_id: str, token: int) -> None:
        """Refuse, from now on, rows of the gateway's owners with a smaller fencing token.

        Raises:
            LeaseLostError: An owner with a greater token has fenced the table already.
        """
        self.table.fence(gateway_id, token)

    def existing(self, update_ids: Iterable[str]) -> set[str]:
        """Return which of these ids the table holds."""
        ids = pl.Series(list(map(schema.storable, update_ids)), dtype=pl.String)
        return self.table.read(lambda files: stored_ids(self.table, files, "update_id", ids))

    def latest(self) -> pl.DataFrame:
        """Return the newest row per (account, conid).

        The newest row has the greatest `timestamp`, then the greatest `update_id`, whatever the
        order of writing. The order of writing decides only if a later writer found that `timestamp`
        to be in the future (see `newest_rows`).

        The first call reads the known rows and what was added since, or the whole table where there
        are no known rows; later calls only what was added since. `latest_positions` leaves out what
        closed more than 14 days ago, and so does this with it: `as_of` has the last rows of all.
        """
        return self._latest.read_through()[0]

    def latest_updates(self) -> list[PositionUpdate]:
        """Return the newest update per (account, conid)."""
        return schema.updates_of(self.latest())

    def newest_of(self, conids: Collection[int], since: datetime) -> NewestRows:
        """Return the newest row of each holding of some contracts, if it is not older than `since`.

        It reads what `latest` reads, and copies no rows of other contracts.
        """
        rows, through = self._latest.read_through()
        recent = rows.filter(one_of("conid", conids), pl.col("timestamp") >= since.astimezone(UTC))
        found = {(row.account, row.conid): row for row in schema.updates_of(recent)}
        return NewestRows(rows=found, through=through)

    def as_of(self, moment: datetime, *, as_known_now: bool = False) -> pl.DataFrame:
        """Return the newest row per (account, conid) among those that were committed by a moment.

        This is what `latest` returned then. It reads a few columns of all rows up to the moment.

        Args:
            moment: With a time zone; one without is local time.
            as_known_now: Instead, return the last row with a timestamp at or before the moment,
                also if it was committed later.
        """
        wanted = (pl.col("timestamp") if as_known_now else COMMITTED) <= moment.astimezone(UTC)
        scan = self.table.scan_files
        rows = self.table.read(lambda files: newest_rows(scan(files).filter(wanted)))
        return rows.sort(HOLDING)

    def begun_at(self) -> datetime | None:
        """Return when the first row was committed, and None without rows; reads two columns."""
        scan = self.table.scan_files
        first = self.table.read(lambda files: scan(files).select(COMMITTED.min()).collect())
        found: datetime | None = first.item()
        return found

    def last_before(self, moment: datetime, look_back_days: int = LOOK_BACK_DAYS) -> pl.DataFrame:
        """Return the last row at or before a moment per (account, conid), as far as known now.

        Reads only files of the `look_back_days` before the moment.
        """
        last = moment.astimezone(UTC)
        first = last - timedelta(days=look_back_days)
        rows = self.table.read(
            lambda files: newest_rows(rows_between(self.table, files, first, last))
        )
        return rows.sort(HOLDING)

    def follow(self, since: str | None = None) -> Follower:
        """Return a reader of what is committed from a place on; see `Follower`.

        Args:
            since: A token of an earlier read; "now" for what is committed from now on; None for the
                newest row of each holding first.

        Raises:
            TokenError: The text is no token.
        """
        return Follower(self.table, self._added, self._latest, since)

    def latest_since(self, since: datetime) -> pl.DataFrame:
        """Return those rows of `latest` that have a timestamp since a moment."""
        return self.latest().filter(pl.col("timestamp") >= since.astimezone(UTC))

    def added_after(self, version: int) -> pl.DataFrame:
        """Return the rows of all commits after a version, whatever their timestamps say."""
        return self.table.read(lambda files: added_after(self.table, files, version).collect())

    def between(
        self, first: datetime, last: datetime, conids: Collection[int] | None = None
    ) -> pl.DataFrame:
        """Return all rows with `first` <= timestamp <= `last`, in order of time.

        Args:
            conids: The contracts that are wanted; None: all.
        """
        wanted = storage.EVERY if conids is None else one_of("conid", conids)
        return self.table.read(
            lambda files: rows_between(self.table, files, first, last).filter(wanted).collect()
        ).sort(BY_TIME)

    def sampled(
        self, conids: Iterable[int], first: datetime, last: datetime, slots: int
    ) -> pl.DataFrame:
        """Return the newest row per holding in each of `slots` equal parts of a span of time.

        The span begins with the first row at `first` or later, and ends at `last`.

        Returns:
            The columns of SAMPLED, and `slot`: the end of the part, in order.
        """
        last, wanted = last.astimezone(UTC), one_of("conid", conids)

        def step(files: pl.DataFrame) -> pl.DataFrame:
            rows = rows_between(self.table, files, first, last).filter(wanted)
            return sample(rows.select(SAMPLED), last, slots)

        return self.table.read(step)

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

    def follow(self, since: str | None = None, poll_s: float = POLL_S) -> AsyncIterator[Added]:
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

    Attributes:
        last_version: The table's version after the last commit; None before the first.
        rows_written, commits: Totals since the writer was created.

    >>> streamer.register_handler(DeltaLakePositionWriter())  # doctest: +SKIP
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/position_updates",
        *,
        table: PositionUpdatesTable | None = None,
        storage_options: Mapping[str, str] | None = None,
        fsync: bool = True,
    ) -> None:
        self.table = table or PositionUpdatesTable(
            delta_lake_path, storage_options=storage_options, fsync=fsync
        )
        self.last_version: int | None = None
        self.rows_written = 0
        self.commits = 0

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
        done = await self.table.append(updates)
        if done.rows:
            self.last_version = done.version
            self.rows_written += done.rows
            self.commits += 1
