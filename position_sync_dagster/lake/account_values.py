"""The table `account_values`: one row per change of an account, appended and never changed."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
from deltalake import DeltaTable

from position_sync_dagster.domain.broker_position import AccountSource, AccountSummary
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.update import trading_mode_of
from position_sync_dagster.lake.schema.codec import account_rows, records_of
from position_sync_dagster.lake.schema.ids import content_id
from position_sync_dagster.lake.schema.tables import ACCOUNT_VALUES
from position_sync_dagster.lake.storage.fencing import fence
from position_sync_dagster.lake.storage.table import Table, data_files
from position_sync_dagster.lake.updates.append import AppendResult, append_rows
from position_sync_dagster.lake.updates.latest import ADDED, LedgerFiles

LOOK_BACK = timedelta(days=14)
"""How far `latest` looks back from the day of the last commit, so that its cost does not grow with
the history."""

AT_ONCE = 4
"""Number of files that `newest_of` reads first: the newest ones. It doubles until each account has
a row."""

LAST_ADDED = f"max.{ADDED}"
"""The column of the log's statistics by which files sort by their newest row."""


class AccountValuesTable:
    """The table `account_values`: what each account was worth, one row per change.

    Args:
        clock: Returns the current time, which each commit records.

    >>> lake.account_values.latest().select("account", "net_liquidation")  # doctest: +SKIP
    """

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        self.table = table
        self._clock = clock
        self._files = LedgerFiles(table)
        self._newest: tuple[tuple[int, int], pl.DataFrame] | None = None
        self._summaries: tuple[pl.DataFrame, list[AccountSummary]] | None = None

    def append(self, summaries: Iterable[AccountSummary]) -> AppendResult:
        """Write rows in one commit; a row whose id the table holds is not written again.

        An empty `row_id` is filled in from the content of the row, so that the same row of a
        statement is written once.

        Raises:
            TradingModeError: The table holds data of another trading mode.
            LeaseLostError: A later owner of the gateway has fenced the table.
        """
        rows = account_rows(map(_identified, summaries))
        single = rows.unique("row_id", keep="first", maintain_order=True)
        return append_rows(self.table, self._files, single, clock=self._clock)

    def fence(self, gateway_id: str, token: int) -> None:
        """Refuse, from now on, rows of the gateway's owners with a smaller fencing token.

        Raises:
            LeaseLostError: An owner with a greater token has fenced the table already.
        """
        self.table.transact(lambda handle: fence(handle, gateway_id, token))

    def newest_of(self, accounts: Collection[str]) -> pl.DataFrame:
        """Return the newest row of each of some accounts, as `latest` does, from the newest files.

        Files are read from the newest on, until each account has a row: in an object store a file
        is a request, and two weeks have dozens of files.
        """

        def step(handle: DeltaTable) -> pl.DataFrame:
            files, count = _recent(data_files(handle)), AT_ONCE
            files = files.sort(LAST_ADDED, descending=True, nulls_last=True)
            while count < files.height:
                found = self._newest_in(files.head(count))
                added = found.filter(pl.col("account").is_in(accounts)).get_column(ADDED)
                if added.len() == len(accounts) and (added > files[LAST_ADDED][count]).all():
                    return found
                count *= 2
            return self._newest_in(files)

        return self.table.snapshot(step)

    def latest(self) -> pl.DataFrame:
        """Return the newest row of the gateway for each account, in the order of accounts.

        The newest row is the one that was written last, whatever its timestamp, since one owner
        writes at a time. Rows of statements do not count. An account is left out if its last row
        is more than two weeks older than the last commit.
        """

        def step(handle: DeltaTable) -> pl.DataFrame:
            key = self.table.cache_key(handle)
            if self._newest is None or self._newest[0] != key:
                self._newest = (key, self._newest_since(self._newest, key[0], data_files(handle)))
            return self._newest[1]

        return self.table.snapshot(step)

    def _newest_since(
        self,
        before: tuple[tuple[int, int], pl.DataFrame] | None,
        generation: int,
        files: pl.DataFrame,
    ) -> pl.DataFrame:
        """Return the newest rows; if those of before are known, only what came since is read."""
        known = None if before is None or before[0][0] != generation else before[1]
        version = None if known is None else known.get_column(ADDED).max()
        if known is None or version is None:
            return self._newest_in(_recent(files))
        added = self._files.added_after(files, int(str(version)))
        rows = _newest(pl.concat([known.lazy(), added.select(known.columns)]))
        last = rows.sort(ADDED).get_column("date")[-1]
        return rows.filter(pl.col("date") >= last - LOOK_BACK)

    def _newest_in(self, files: pl.DataFrame) -> pl.DataFrame:
        return _newest(self._files.scan(files))

    def latest_summaries(self) -> list[AccountSummary]:
        """Return the newest row of each account as values; see `latest`."""
        rows = self.latest()
        if self._summaries is None or self._summaries[0] is not rows:
            self._summaries = (rows, records_of(AccountSummary, rows))
        return list(self._summaries[1])

    def between(self, first: datetime, last: datetime) -> pl.DataFrame:
        """Return all rows with `first` <= timestamp <= `last`, in order of time."""
        rows = self.table.snapshot(
            lambda handle: self._files.between(handle, first, last).collect()
        )
        return rows.sort("timestamp", "row_id")


def _newest(rows: pl.LazyFrame) -> pl.DataFrame:
    return (
        rows.filter(pl.col("source") == AccountSource.GATEWAY.value)
        .group_by("account")
        .agg(pl.all().sort_by(ADDED, "timestamp", "row_id").last())
        .select(list(ACCOUNT_VALUES.columns))
        .sort("account")
        .collect()
    )


def _identified(summary: AccountSummary) -> AccountSummary:
    content = (
        summary.source.value,
        summary.gateway_id,
        summary.account,
        summary.timestamp.astimezone(UTC).isoformat(),
        *summary.amounts,
    )
    return replace(
        summary,
        row_id=summary.row_id or content_id(summary.timestamp, *content),
        trading_mode=summary.trading_mode or trading_mode_of(summary.account).value,
    )


def _recent(files: pl.DataFrame) -> pl.DataFrame:
    """Return the files from two weeks before the day of the last commit on; read the log only.

    The greatest date is not used: one row of a clock that ran ahead would hide the others.
    """
    day = pl.col("partition.date")
    return files.filter(day >= day.sort_by(LAST_ADDED, nulls_last=False).last() - LOOK_BACK)
