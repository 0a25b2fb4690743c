"""The ledger of values as plain calls: appended once per `update_id`, read by holding."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Lock

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.update import PositionUpdate, Source, trading_mode_of
from position_sync_dagster.lake.storage.codec import update_rows, updates_of
from position_sync_dagster.lake.storage.fencing import owner_transaction, refuse_stale_owner
from position_sync_dagster.lake.storage.frames import append, data_files
from position_sync_dagster.lake.storage.ids import content_id
from position_sync_dagster.lake.storage.maintenance import compact_if_needed
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.trading_mode import check_mode
from position_sync_dagster.lake.updates.coercion import coerce_updates

WRITER = "position_updates"
"""The application transaction of every append: two of them conflict, so that each checks its ids
against all rows before it."""

LOOK_BACK_DAYS = 14
"""How far back `asof` reads for the last row of a holding, in days."""

_KEY = ["account", "conid"]
_NEWEST = ["timestamp", "update_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendResult:
    """What an append did.

    Attributes:
        version: The table's version that holds the rows.
        rows: Rows written; 0 when all of them were there already.
    """

    version: int
    rows: int


class _RefusedError(Exception):
    """Carry what a guard raised past the retries, which would read an OSError as the table's."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class SyncUpdates:
    """The ledger as plain calls, for callers that may block; see `PositionUpdatesTable`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._mutex = Lock()
        self._epoch = 0
        self._seen: frozenset[str] = frozenset()
        self._latest = pl.DataFrame(schema=table.spec.polars)

    def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there."""
        self.table.initialize()

    def append(
        self,
        updates: Iterable[PositionUpdate],
        batch_id: str = "",
        *,
        run_id: str | None = None,
        guard: Callable[[], None] | None = None,
    ) -> AppendResult:
        """Write updates in one commit; what is there already is not written again.

        A batch that was committed before writes nothing; neither does an update whose id is in
        the table, however old its row. Empty ids are filled: a drained row takes its request's, a
        streamed one the UUID of its content, and the batch that of its rows.

        Args:
            guard: Called right before the commit, anew in each attempt while other writers win,
                and not at all when there is nothing to write. What it raises reaches the caller
                as it is, and nothing is written. It runs in a thread of the lake, with the turn
                of this table held: keep it short, and call nothing of this table in it.

        Raises:
            TradingModeError: The table holds data of another trading mode.
            LeaseLostError: A later owner of the gateway has fenced the table.
            InvalidRequestError: A field cannot be stored: no position, text for a number, a right
                or an expiry that does not parse. A number that is not finite is stored as
                unknown, a time without a zone as local time.
        """
        rows = identified(updates, batch_id, run_id)
        if not rows:
            return AppendResult(version=self.table.version(), rows=0)
        frame = update_rows(rows).unique("update_id", keep="first", maintain_order=True)
        first = rows[0]
        note = {"batch_id": first.batch_id} | ({"run_id": first.run_id} if first.run_id else {})
        owners = {(u.gateway_id, u.fencing_token) for u in rows if u.fencing_token is not None}

        def step(handle: DeltaTable) -> AppendResult:
            for gateway_id, token in owners:
                refuse_stale_owner(
                    token, handle.transaction_version(owner_transaction(gateway_id)), gateway_id
                )
            modes = (u.trading_mode for u in rows if u.trading_mode is not None)
            check_mode(handle, modes, self.table.path)
            files = data_files(handle)
            new = self._without_stored(files, "batch_id", frame)
            new = self._without_stored(files, "update_id", new)
            if new.is_empty():
                return AppendResult(version=handle.version(), rows=0)
            if guard is not None:
                _ask(guard)
            append(handle, new, note, [Transaction(WRITER, handle.version() + 1)])
            return AppendResult(version=handle.version(), rows=new.height)

        refused: Exception
        try:
            result = self.table.transact(step)
        except _RefusedError as refusal:
            refused = refusal.error
        else:
            compact_if_needed(self.table)
            return result
        raise refused  # out here, where it gets no context that the guard did not give it

    def fence(self, gateway_id: str, token: int) -> None:
        """Let no owner of the gateway with a smaller fencing token add a row from now on.

        Raises:
            LeaseLostError: An owner with a greater token was here already.
        """
        fence = owner_transaction(gateway_id)

        def step(handle: DeltaTable) -> None:
            before = handle.transaction_version(fence)
            refuse_stale_owner(token, before, gateway_id)
            if before != token:
                marks = [Transaction(WRITER, handle.version() + 1), Transaction(fence, token)]
                append(handle, update_rows([]), {"action": "fence"}, marks)

        self.table.transact(step)

    def existing(self, update_ids: Iterable[str]) -> set[str]:
        """Give which of these ids are written already."""
        ids = pl.Series(list(update_ids), dtype=pl.String)
        return self.table.snapshot(
            lambda handle: self._stored(data_files(handle), "update_id", ids)
        )

    def latest(self) -> pl.DataFrame:
        """Give the newest row per (account, conid).

        The newest by `timestamp`, then by `update_id`, however the rows came in. The first call
        reads the table, later ones what was added since.
        """
        with self._mutex:
            return self.table.snapshot(self._refresh_latest)

    def latest_updates(self) -> list[PositionUpdate]:
        """Give the newest update per (account, conid)."""
        return updates_of(self.latest())

    def asof(self, moment: datetime, look_back_days: int = LOOK_BACK_DAYS) -> pl.DataFrame:
        """Give the last row at or before a moment per (account, conid).

        Reads only files of the `look_back_days` before the moment.
        """
        moment = moment.astimezone(UTC)
        first = moment - timedelta(days=look_back_days)
        rows = pl.col("timestamp").is_between(first, moment)

        def step(handle: DeltaTable) -> pl.DataFrame:
            files = _overlapping(data_files(handle), first, moment)
            return self._newest(self._scan(files).filter(rows)).collect()

        return self.table.snapshot(step).sort(_KEY)

    def latest_since(self, since: datetime) -> pl.DataFrame:
        """Give the newest row per (account, conid) among those not older than `since`."""
        rows = pl.col("timestamp") >= since

        def step(handle: DeltaTable) -> pl.DataFrame:
            files = _overlapping(data_files(handle), since.astimezone(UTC), None)
            return self._newest(self._scan(files).filter(rows)).collect()

        return self.table.snapshot(step).sort(_KEY)

    def between(self, first: datetime, last: datetime) -> pl.DataFrame:
        """Give all rows with `first` <= timestamp <= `last`, in order of time."""
        rows = pl.col("timestamp").is_between(first, last)

        def step(handle: DeltaTable) -> pl.DataFrame:
            files = _overlapping(data_files(handle), first.astimezone(UTC), last.astimezone(UTC))
            return self._scan(files).filter(rows).collect()

        return self.table.snapshot(step).sort(_NEWEST)

    def count(self) -> int:
        """Count the rows, without reading them."""
        return self.table.snapshot(lambda handle: _rows(data_files(handle)))

    def version(self) -> int:
        """Give the table's newest version."""
        return self.table.version()

    def _without_stored(self, files: pl.DataFrame, column: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Drop the rows whose id the table holds, whatever any clock said of either."""
        stored = self._stored(files, column, rows.get_column(column))
        return rows.filter(~pl.col(column).is_in(stored)) if stored else rows

    def _stored(self, files: pl.DataFrame, column: str, ids: pl.Series) -> set[str]:
        """Give which of the ids a column holds; reads the files that may hold one, no other."""
        candidates = _candidates(files, column, ids)
        if candidates.is_empty():
            return set()
        rows = self._scan(candidates).select(column)
        found = rows.filter(pl.col(column).is_in(ids.unique().implode())).collect()
        return set(found.get_column(column).to_list())

    def _refresh_latest(self, handle: DeltaTable) -> pl.DataFrame:
        # Rows are only ever added, so what was the newest stays so against older files: a second
        # call reads the files that came since.
        epoch = self.table.cache_key(handle)[0]
        if epoch != self._epoch:
            self._epoch, self._seen, self._latest = epoch, frozenset(), self._latest.clear()
        files = data_files(handle)
        present = frozenset(files.get_column("path")) if not files.is_empty() else frozenset()
        new = present - self._seen
        if new:
            fresh = self._scan(files.filter(pl.col("path").is_in(list(new))))
            joined = pl.concat([self._latest.lazy(), fresh])
            self._latest = self._newest(joined).collect().sort(_KEY)
        self._seen = present
        return self._latest

    def _newest(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        # Two passes: the first reads three columns, the second all of the few rows that count.
        times = rows.group_by(_KEY).agg(pl.col("timestamp").max())
        return (
            rows.join(times, on=[*_KEY, "timestamp"], how="semi")
            .group_by(_KEY)
            .agg(pl.all().sort_by(_NEWEST).last())
            .select(list(self.table.spec.columns))
        )

    def _scan(self, files: pl.DataFrame) -> pl.LazyFrame:
        schema = self.table.spec.polars
        if files.is_empty():
            return pl.LazyFrame(schema=schema)
        stored = pl.Schema({name: kind for name, kind in schema.items() if name != "date"})
        paths = [f"{self.table.path}/{path}" for path in files.get_column("path")]
        return (
            pl.scan_parquet(
                paths,
                schema=stored,
                missing_columns="insert",
                glob=False,
                hive_partitioning=False,
                storage_options=self.table.options,
            )
            .with_columns(date=pl.col("timestamp").dt.date())
            .select(list(schema))
        )


def identified(
    updates: Iterable[PositionUpdate], batch_id: str = "", run_id: str | None = None
) -> list[PositionUpdate]:
    """Fill empty ids of updates, the same for the same content, and the account's trading mode.

    Updates may come from anyone: a time without a zone is taken as local time, which is what
    `datetime.now()` means; see `coerce_update` for what else is read, or refused by name.

    Raises:
        InvalidRequestError: A field of an update cannot be stored.
    """
    listed = coerce_updates(updates)
    if not listed:
        return []
    ids = [u.update_id or _update_id(u) for u in listed]
    batch = batch_id or content_id(max(u.timestamp for u in listed), *sorted(ids))
    return [
        replace(
            u,
            update_id=update_id,
            batch_id=batch_id or u.batch_id or batch,
            run_id=u.run_id or run_id,
            trading_mode=u.trading_mode or (trading_mode_of(u.account) if u.account else None),
        )
        for u, update_id in zip(listed, ids, strict=True)
    ]


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


def _ask(guard: Callable[[], None]) -> None:
    try:
        guard()
    except Exception as error:
        raise _RefusedError(error) from error


def _overlapping(files: pl.DataFrame, first: datetime, last: datetime | None) -> pl.DataFrame:
    if files.is_empty():
        return files
    first -= timedelta(milliseconds=1)  # the log's statistics are cut to milliseconds
    days: pl.Expr = pl.col("partition.date") >= first.date()
    if last is not None:
        days &= pl.col("partition.date") <= last.date()
        days &= pl.col("min.timestamp").is_null() | (pl.col("min.timestamp") <= last)
    return files.filter(
        days, pl.col("max.timestamp").is_null() | (pl.col("max.timestamp") >= first)
    )


def _candidates(files: pl.DataFrame, column: str, ids: pl.Series) -> pl.DataFrame:
    """Keep the files that may hold one of the ids, by the log's statistics of the column.

    An id must lie between a file's least and most: that the ids as a whole span the file is not
    enough, since one old id among new ones would then name every file that came between.
    """
    if files.is_empty() or ids.is_empty():
        return files.clear()
    least, most = files.get_column(f"min.{column}"), files.get_column(f"max.{column}")
    ordered = ids.sort()
    hits = ordered.search_sorted(most, side="right") > ordered.search_sorted(least, side="left")
    return files.filter(hits | least.is_null() | most.is_null())


def _rows(files: pl.DataFrame) -> int:
    return 0 if files.is_empty() else int(files.get_column("num_records").sum())
