"""The table `contracts`: the newest details of each contract."""

from collections.abc import Iterable
from datetime import date

import polars as pl
from polars import col

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.lake.schema import CONTRACTS, frame_of, one_of, records_of
from position_sync_dagster.lake.storage import commits
from position_sync_dagster.lake.storage.data_files import EVERY
from position_sync_dagster.lake.storage.table import Table, is_noting


class ContractsTable:
    """The table `contracts`: one row per conid."""

    def __init__(self, table: Table) -> None:
        self.table = table
        # What was read of a version of the table: its details by conid, each made once.
        self._read: tuple[object, dict[int, ContractDetails]] = (None, {})

    def put(self, details: Iterable[ContractDetails]) -> None:
        """Store the details of these contracts in one commit; older ones are replaced."""
        rows = frame_of(CONTRACTS, details).unique("conid", keep="last", maintain_order=True)
        if rows.is_empty():
            return
        conids = ",".join(map(str, rows["conid"]))
        predicate = f"conid IN ({conids})"

        # Of two commits at once with one `writer` one runs again: else both rows would stay.
        self.table.transact(
            lambda handle: commits.write(handle, rows, {}, predicate, writer=CONTRACTS.name)
        )

    def unexpired(self, since: date, besides: Iterable[int]) -> dict[int, ContractDetails]:
        """Return the details of contracts that had not expired on a day, and of some others.

        Args:
            since: The day. A contract without an end, such as a stock, does not expire.
            besides: Conids of the others.
        """
        ends = pl.coalesce("expires_on", "last_trade_date")
        is_unexpired = ends.is_null() | (ends >= since)
        return self._details(is_unexpired | col.conid.is_in(set(besides)))

    def get(self, conids: Iterable[int] | None = None) -> dict[int, ContractDetails]:
        """Return the details of these contracts, or of all, by conid; unknown ones are absent.

        Of these contracts, each object is made once for a version of the table.
        """
        if conids is None:
            return self._details(EVERY)
        # `derive` notes what is read of tables, to look for changes later: nothing from memory.
        if is_noting():
            return self._details(one_of("conid", set(conids)))

        version = self.table.snapshot(self.table.cache_key)
        if version != self._read[0]:
            self._read = (version, {})
        details = self._read[1]
        wanted = dict.fromkeys(conids)
        missing = wanted.keys() - details.keys()
        if missing:
            details |= self._details(one_of("conid", missing))
        return {conid: details[conid] for conid in wanted if conid in details}

    def rows(self, only: pl.Expr = EVERY) -> pl.DataFrame:
        """Return rows with details: an older release kept contracts that no gateway knew, too."""
        return self.table.rows(only).filter(col.symbol.is_not_null())

    def _details(self, only: pl.Expr) -> dict[int, ContractDetails]:
        return {details.conid: details for details in records_of(ContractDetails, self.rows(only))}
