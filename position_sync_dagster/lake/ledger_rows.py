"""The rows of the ledger: its data files, and the newest row of each holding.

Files are chosen by the statistics in the log, and read directly. The newest rows are kept up to
date by reading only what was added.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from threading import Lock

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.domain.update import QueuedPosition
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.schema.ids import LAST
from position_sync_dagster.lake.storage import table as storage
from position_sync_dagster.lake.storage.table import Table


def stored_ids(table: Table, files: pl.DataFrame, column: str, ids: pl.Series) -> set[str]:
    """Return which of the ids a column holds; reads only the files that may hold one."""
    files = files.filter(storage.may_have_one_of(column, ids))
    if files.is_empty():
        return set()
    rows = table.scan_files(files).select(column)
    found = rows.filter(pl.col(column).is_in(ids.unique().implode())).collect()
    return set(found.get_column(column).to_list())


def rows_between(table: Table, handle: DeltaTable, first: datetime, last: datetime) -> pl.LazyFrame:
    """Return the rows with `first` <= timestamp <= `last`, from the files that may hold one.

    Args:
        first: The start; one without a time zone is local time.
        last: The end, likewise.
    """
    first, last = first.astimezone(UTC), last.astimezone(UTC)
    files = storage.data_files(handle).filter(
        pl.col("partition.date").is_between(first.date(), last.date()),
        storage.may_have("timestamp", first, last),
    )
    return table.scan_files(files).filter(pl.col("timestamp").is_between(first, last))


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
        self._rows = self._ordered = table.spec.empty

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
            if self._ordered is not self._rows:
                self._rows = self._ordered = self._rows.sort(HOLDING)
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
        except LakeError:
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
            self._rows = newest_rows(self._first_rows(files, known))
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
        self._rows = pl.concat([self._rows.filter(~touched), newest])


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

    def of_request(self, request: QueuedPosition, ids: Collection[str], *, limit: int) -> LastRows:
        """Return the rows that were written for a request, and the older one that answers it.

        Args:
            request: The request.
            ids: Ids from its time: files with ids near them are searched first. If none has a row,
                those since the day before are searched.
            limit: The maximum number of rows, and of batches, to return.
        """
        begins = [one[:13] for one in ids]  # the milliseconds of the id
        wanted = pl.col("request_id") == request.request_id
        near = storage.may_have("update_id", min(begins), max(begins) + LAST)
        if (answer := request.update_id) is not None:
            wanted |= pl.col("update_id") == answer
            near |= storage.may_have("update_id", answer, answer)
        found = self._last(wanted, near, limit)
        since = (request.created_at - timedelta(days=1)).date()
        return (
            found if found.count else self._last(wanted, pl.col("partition.date") >= since, limit)
        )

    def _last(self, wanted: pl.Expr, chosen: pl.Expr, limit: int) -> LastRows:
        def step(handle: DeltaTable) -> LastRows:
            rows = self._table.scan_files(storage.data_files(handle).filter(chosen)).filter(wanted)
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

        return self._table.snapshot(step)

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
