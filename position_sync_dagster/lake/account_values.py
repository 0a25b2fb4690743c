"""The table `account_values`: what each account was worth, one row per change."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import polars as pl
from deltalake import DeltaTable
from polars import DataFrame, col

from position_sync_dagster.domain.account_values import AccountSource, AccountSummary
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.position_update import trading_mode_of
from position_sync_dagster.lake import position_updates
from position_sync_dagster.lake.ledger_rows import added_after, newest_version, read_between
from position_sync_dagster.lake.schema import ACCOUNT_VALUES, frame_of, new_ids
from position_sync_dagster.lake.storage.data_files import data_files
from position_sync_dagster.lake.storage.table import Table

# How far `latest` looks back from the day of the rows that were added last, so that its cost does
# not grow with the history.
VALUES_BACK = timedelta(days=14)


class AccountValuesTable:
    """The table `account_values`: what each account was worth, one row per change.

    Args:
        clock: Returns the current time, which each commit records.

    >>> lake.account_values.latest().select("account", "net_liquidation")  # doctest: +SKIP
    """

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        self.table = table
        self._clock = clock
        # The newest rows that `latest` read last, behind the key of the version that has them.
        self._newest = ((-1, -1), ACCOUNT_VALUES.empty)

    def append(self, summaries: Iterable[AccountSummary]) -> position_updates.AppendResult:
        """Write rows in one commit; a row whose id the table holds is not written again.

        An empty `row_id` is filled in, and an empty trading mode is that of the account.

        Raises:
            TradingModeError: The table holds data of another trading mode.
            LeaseLostError: The gateway has a later owner, which has fenced the table: rows of the
                earlier ones are refused.
        """
        listed = list(summaries)
        ids = [summary.row_id or new_ids(summary.timestamp, 1)[0] for summary in listed]
        modes = [summary.trading_mode or trading_mode_of(summary.account) for summary in listed]
        rows = frame_of(ACCOUNT_VALUES, listed, row_id=ids, trading_mode=modes)
        dated = rows.with_columns(date=col.timestamp.dt.date())
        return position_updates.append_rows(self.table, dated, clock=self._clock)

    def latest(self) -> DataFrame:
        """Return the newest row of the gateway for each account, in the order of accounts.

        The newest row is the one that was written last, whatever its timestamp, since one owner
        writes at a time. Rows of statements do not count. An account is left out if its last row
        is more than two weeks (`VALUES_BACK`) older than the rows that were added last: older
        files are not read, so that the cost does not grow with the history.
        """

        def step(handle: DeltaTable) -> DataFrame:
            # From memory, unless another version came: then what it added is read.
            key = self.table.cache_key(handle)
            before, rows = self._newest
            if before != key:
                # The first part of a key is the generation: in another one the table may have been
                # restored, and rows of before may be gone.
                earlier = rows if before[0] == key[0] else rows.clear()
                rows = self._newest_since(earlier, data_files(handle))
                self._newest = (key, rows)
            return rows

        return self.table.snapshot(step)

    def _newest_since(self, earlier: DataFrame, files: DataFrame) -> DataFrame:
        """Return the newest row of each account; read only what was added after `earlier`.

        Args:
            earlier: The newest rows of the last read.
            files: The files of the table.
        """
        if files.is_empty():
            return earlier.clear()

        # Back from the day of the file that was added last. From the greatest day, one row of a
        # clock that ran ahead would hide the others.
        days = files.sort("max.ledger_version", nulls_last=False)["partition.date"]
        first = pl.lit(days[-1] - VALUES_BACK)
        recent = files.filter(col("partition.date") >= first)
        added = added_after(self.table, recent, newest_version(earlier))

        rows = pl.concat([earlier.lazy(), added])
        return _newest(rows.filter(col.date >= first))

    def newest_at(self, moment: datetime) -> DataFrame:
        """Return the newest row of each account that was made by a moment.

        Those of statements do not count, nor those more than two weeks older than the moment.
        """
        return read_between(self.table, moment - VALUES_BACK, moment, _newest)

    def between(self, first: datetime, last: datetime) -> DataFrame:
        """Return all rows with `first` <= timestamp <= `last`, in order of time."""
        return read_between(self.table, first, last, pl.LazyFrame.collect).sort(
            "timestamp", "row_id"
        )


def _newest(rows: pl.LazyFrame) -> DataFrame:
    """Return the row of each account that a gateway sent and that was added last."""
    of_gateway = rows.filter(col.source == AccountSource.GATEWAY)
    last_added = pl.all().sort_by("ledger_version", "timestamp", "row_id").last()
    return (
        of_gateway.group_by("account")
        .agg(last_added)
        .select(*ACCOUNT_VALUES.columns)
        .sort("account")
        .collect()
    )
