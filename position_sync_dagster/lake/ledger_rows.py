"""The rows of the ledger: each written once, and the newest row of each holding.

Files are chosen by the statistics in the log, and read directly. The newest rows are kept up to
date by reading only what was added. A row whose id the ledger holds is not written again: a
repeated update or batch has the same id.

Updates that other code made are checked before they are written: other spellings are converted, and
values that cannot be stored are refused. The checks follow the columns of `position_updates` (see
`PositionUpdate`). They are plain functions and not a pydantic model: such a model needs a Python
function for nearly every field (IB's spellings, local times, DBL_MAX) and a second list of the
fields, and it copies updates in which nothing has to change.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from operator import index
from threading import Lock
from typing import Any

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.instrument import Right, parse_expiry, parse_right
from position_sync_dagster.domain.update import (
    OwnUpdates,
    PositionUpdate,
    QueuedPosition,
    Source,
    TradingMode,
    trading_mode_of,
)
from position_sync_dagster.lake.schema.codec import LAST, content_id, moment, update_rows
from position_sync_dagster.lake.schema.table_spec import Kind, StoredColumn
from position_sync_dagster.lake.schema.tables import UPDATE_COLUMNS
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.maintenance import compact_if_needed
from position_sync_dagster.lake.storage.table import Table


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


def last_added(files: pl.DataFrame) -> int:
    """Return the greatest `ledger_version` of the files, from the log alone; 0 where none is."""
    last = files.get_column("max.ledger_version").max()
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
    later = rows.join(since.lazy(), on=HOLDING, how="inner").filter(
        pl.col(ADDED) >= pl.col("_since")
    )
    return pl.concat(
        [
            newest.join(since, on=HOLDING, how="anti"),
            newest_rows(later.drop("_since")),
        ]
    )


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

    def of(self, conids: Collection[int]) -> tuple[pl.DataFrame, int]:
        """Return the newest row of each holding of some contracts, as `read_through` does."""
        with self._mutex:
            self._follow()
            return self._rows.filter(pl.col("conid").is_in(conids)), self._through

    def read_through(self) -> tuple[pl.DataFrame, int]:
        """Return the newest row of each holding that the known rows have or that came since.

        Returns:
            The rows, in the order of account and conid, and the greatest `ledger_version` that was
            looked at.
        """
        with self._mutex:
            self._follow()
            return self._rows, self._through

    def _follow(self) -> None:
        # The known rows are read first, so that the ledger is the newer of the two.
        known = None if self._through else self._known_rows()
        self._table.snapshot(lambda handle: self._refresh(handle, known))

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


IN_ORDER = ["ledger_version", "committed_at", "timestamp", "update_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRows:
    """The last rows that were found, with their batches.

    Attributes:
        count, batch_count: The number of all rows and of all batches.
        batches: The last batches: `batch_id`, `version`, `rows`, `committed_at`.
        rows: The last rows.
    """

    count: int
    batch_count: int
    batches: pl.DataFrame
    rows: pl.DataFrame


class LedgerProvenance:
    """Finds rows of the ledger by where they come from."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def ids_beginning_with(self, column: str, prefix: str) -> list[str]:
        """Return the distinct ids of a column that begin with a prefix, in order.

        The statistics of files narrow `update_id` and `batch_id`; `run_id` is read from every file.
        """
        is_indexed = column in self._table.spec.indexed
        chosen = storage.may_have(column, prefix, prefix + LAST) if is_indexed else storage.EVERY
        rows = self._table.rows(pl.col(column).str.starts_with(prefix), chosen, [column])
        return sorted(rows.get_column(column).unique())

    def with_id(self, column: str, value: str, *, limit: int) -> LastRows:
        """Return the last rows with this id and their batches, and count all.

        Those of a `run_id` are searched for in every file.
        """
        is_indexed = column in self._table.spec.indexed
        chosen = storage.may_have(column, value, value) if is_indexed else storage.EVERY
        return self._last(pl.col(column) == value, chosen, limit)

    def of_request(self, request: QueuedPosition, *, limit: int) -> LastRows:
        """Return the rows that were written for a request, and the older one that answers it.

        Searched are the files of the request's days, and those that may have its answer.

        Args:
            request: The request.
            limit: The maximum number of rows, and of batches, to return.
        """
        ids, a_day = pl.Series([request.update_id or request.request_id]), timedelta(days=1)
        days = ((request.created_at - a_day).date(), (request.updated_at + a_day).date())
        wanted = pl.col("request_id") == request.request_id
        wanted |= pl.col("update_id") == ids.item()
        files = pl.col("partition.date").is_between(*days)
        return self._last(wanted, files | storage.may_have_one_of("update_id", ids), limit)

    def _last(self, wanted: pl.Expr, chosen: pl.Expr, limit: int) -> LastRows:
        def step(files: pl.DataFrame) -> LastRows:
            rows = self._table.scan_files(files.filter(chosen)).filter(wanted)
            batches = (
                rows.group_by("batch_id", version="ledger_version")
                .agg(rows=pl.len().cast(pl.Int64), committed_at=pl.col("committed_at").max())
                .sort("version", "batch_id")
                .collect()
            )
            newest = batches.tail(limit)
            written = rows.filter(pl.col("batch_id").is_in(newest.get_column("batch_id").implode()))
            return LastRows(
                count=int(batches.get_column("rows").sum()),
                batch_count=batches.height,
                batches=newest,
                rows=written.sort(IN_ORDER).tail(limit).collect(),
            )

        return self._table.read(step)

    def of_holding(
        self, account: str, conid: int, *, day: date | None, limit: int
    ) -> tuple[pl.DataFrame, bool]:
        """Return the newest rows of a holding in order of time, and whether there are more.

        Args:
            day: Only rows of this UTC date; None: the newest of all.
        """
        wanted = (pl.col("account") == account) & (pl.col("conid") == conid)
        on_day = storage.EVERY if day is None else pl.col("partition.date") == day
        found = self._table.rows(wanted, on_day).sort(BY_TIME)
        return found.tail(limit), found.height > limit


# Greater numbers count as unknown: IB writes DBL_MAX for a number that it does not know.
UNSET = 1e300


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
    for name, column, coerce in _CHECKS:
        value = getattr(update, name)
        try:
            found = None if value is None or _is_blank(value, column) else coerce(value)
        except (ValueError, TypeError, OverflowError, OSError, errors.InvalidLegError):
            raise _refused(name, value, column) from None
        if found is None and not column.nullable:
            raise _refused(name, value, column)
        if found is not value:
            changes[name] = found
    return replace(update, **changes) if changes else update


def _is_blank(value: object, column: StoredColumn) -> bool:
    may_be_blank = column.choices is not None or column.kind is Kind.DAY
    return may_be_blank and isinstance(value, str) and not value.strip()


def _refused(name: str, value: object, column: StoredColumn) -> errors.InvalidRequestError:
    wanted = f"one of {', '.join(column.choices)}" if column.choices else _BY_KIND[column.kind][1]
    return errors.InvalidRequestError(
        f"The update's {name} {value!r:.80} cannot be stored: it is not {wanted}.",
        remedy=f"Pass {name} as {wanted}.",
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool | str | bytes):
        raise TypeError
    number = float(value)
    return number if -UNSET < number < UNSET else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: Any) -> int:
    count = index(value)
    if isinstance(value, bool) or not -(2**63) <= count < 2**63:
        raise TypeError
    return count


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError
    return value if value.tzinfo is not None else value.astimezone(UTC)


# How a value of each kind is read, and what it has to be.
_BY_KIND: dict[Kind, tuple[Callable[[Any], object], str]] = {
    Kind.NUMBER: (_number, "a finite number"),
    Kind.TEXT: (_text, "a str"),
    Kind.COUNT: (_count, "a whole number"),
    Kind.MOMENT: (_moment, "a datetime, such as datetime.now(UTC)"),
    Kind.DAY: (parse_expiry, "a date, or text such as 20260220"),
}


def _check_of(column: StoredColumn) -> Callable[[Any], object]:
    if column.choices is Right:
        return parse_right
    return column.choices or _BY_KIND[column.kind][0]


_CHECKS = [(name, column, _check_of(column)) for name, column in UPDATE_COLUMNS.items()]

_NUMBERS = [name for name, column in UPDATE_COLUMNS.items() if column.kind is Kind.NUMBER]


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
        return update_rows([])
    ids = [update.update_id or _update_id(update) for update in listed]
    batch = batch_id or content_id(max(update.timestamp for update in listed), *sorted(ids))
    found: dict[str, list[Any]] = {
        "update_id": ids,
        "batch_id": [batch_id or update.batch_id or batch for update in listed],
        "run_id": [update.run_id or run_id for update in listed],
        "trading_mode": [update.trading_mode or _trading_mode(update) for update in listed],
    }
    rows = update_rows(listed, found)
    if own and not all(rows.select(pl.col(_NUMBERS).is_finite().all()).row(0)):
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
    first = frame.row(0, named=True)
    batch_id = first.get("batch_id", "")
    known = {"batch_id": batch_id, "run_id": first.get("run_id")}
    commit_info = {name: text for name, text in known.items() if text}
    checked = through
    written_by = set(frame.select("gateway_id", "fencing_token").iter_rows())
    owners = {(gateway_id, token) for gateway_id, token in written_by if token is not None}
    modes = [TradingMode(mode) for mode in set(frame.get_column("trading_mode")) if mode]

    def step(handle: DeltaTable) -> AppendResult:
        nonlocal checked
        for gateway_id, token in owners:
            storage.refuse_stale_owner(handle, gateway_id, token)
        storage.bind(handle, table.path, modes)
        present = storage.data_files(handle)
        new = _without_stored(table, present, frame)
        if new.is_empty():
            return AppendResult(version=handle.version(), rows=0)
        if checked is not None:
            _refuse_newer(table, present, checked, new)
            # After a conflict only the rows that the winner added are checked. Otherwise each
            # commit of others would make the next attempt longer, and beside several streams no
            # attempt would win.
            checked = max(checked, last_added(present))
        if guard is not None:
            guard()
        version = handle.version() + 1
        # Rows that were copied from another table may have greater versions.
        added = max(version, last_added(present) + 1)
        new = new.with_columns(ledger_version=pl.lit(added, pl.Int64), committed_at=moment(clock()))
        storage.append(handle, new, commit_info, [Transaction(table.spec.name, version)])
        return AppendResult(version=handle.version(), rows=new.height, batch_id=batch_id)

    result = table.transact(step)
    compact_if_needed(table)
    return result


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
