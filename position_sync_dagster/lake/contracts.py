"""The newest details of each contract that was seen."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.lake.schema.codec import contract_rows, contracts_of, frame_of
from position_sync_dagster.lake.schema.lifecycle_partitions import MOST_TERMS
from position_sync_dagster.lake.schema.tables import CONTRACTS
from position_sync_dagster.lake.storage.frames import append, overwrite
from position_sync_dagster.lake.storage.maintenance import compact_if_needed
from position_sync_dagster.lake.storage.table import Table

WRITER = "contracts"
"""The application id in the Delta transaction of every commit. Concurrent commits with equal ids
conflict, so that each one sees what the other stored."""


class ContractsTable:
    """The table `contracts`: one row per conid."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def put(self, details: Iterable[ContractDetails]) -> None:
        """Store the details of these contracts in one commit; older ones are replaced."""
        rows = contract_rows(details).unique("conid", keep="last", maintain_order=True)
        if rows.is_empty():
            return
        among = _among(rows.get_column("conid").sort().to_list())

        def step(handle: DeltaTable) -> None:
            marks = [Transaction(WRITER, handle.version() + 1)]
            stored = self.table.scan(handle, among, ["conid"])
            if stored.join(rows, on="conid", how="semi").is_empty():
                append(handle, rows, {}, marks)
                return
            kept = self.table.scan(handle).join(rows.select("conid"), on="conid", how="anti")
            overwrite(handle, pl.concat([kept, rows]), "true", {}, marks)

        self.table.transact(step)
        compact_if_needed(self.table)

    def put_not_given(self, asked: Mapping[int, tuple[int, datetime]]) -> None:
        """Store in one commit how often, and when last, the gateway gave no details of contracts.

        What is known of them stays.
        """
        names = ("not_given", "not_given_at")
        news = frame_of(
            CONTRACTS,
            (
                {"conid": conid, "not_given": times, "not_given_at": at}
                for conid, (times, at) in asked.items()
            ),
        ).select("conid", *names)

        def step(handle: DeltaTable) -> None:
            stored = self.table.scan(handle)
            among = stored.join(news, on="conid", how="semi").drop(*names)
            rows = news.join(among, on="conid", how="left").select(stored.columns)
            kept = stored.join(news, on="conid", how="anti")
            marks = [Transaction(WRITER, handle.version() + 1)]
            overwrite(handle, pl.concat([kept, rows]), "true", {}, marks)

        if asked:
            self.table.transact(step)

    def not_given(self) -> dict[int, tuple[int, datetime]]:
        """Return how often, and when last, the gateway gave no details, by conid."""
        rows = self._rows("not_given IS NOT NULL", ["conid", "not_given", "not_given_at"])
        return {conid: (times, at) for conid, times, at in rows.iter_rows()}

    def complete(self) -> set[int]:
        """Return the conids whose details are complete: an older release stored fewer of them."""
        return set(self._rows("valid_exchanges IS NOT NULL", ["conid"]).get_column("conid"))

    def quoted_in_cents(self) -> dict[int, ContractDetails]:
        """Return the details of the contracts with another price magnifier than 1, by conid."""
        return {one.conid: one for one in contracts_of(self._rows("price_magnifier <> 1"))}

    def get(self, conids: Iterable[int] | None = None) -> dict[int, ContractDetails]:
        """Return the details of these contracts, or of all, by conid; unknown ones are absent."""
        if conids is None:
            return {one.conid: one for one in contracts_of(self.table.rows())}
        wanted = sorted(set(conids))
        if not wanted:
            return {}
        found = self._rows(_among(wanted)).filter(pl.col("conid").is_in(wanted))
        return {one.conid: one for one in contracts_of(found)}

    def _rows(self, predicate: str, columns: list[str] | None = None) -> pl.DataFrame:
        return self.table.snapshot(lambda handle: self._scan(handle, predicate, columns))

    def _scan(
        self, handle: DeltaTable, predicate: str, columns: list[str] | None = None
    ) -> pl.DataFrame:
        """Read rows; in an object store all of the table's few files, a request for each."""
        if not self.table.is_remote:
            return self.table.scan(handle, predicate, columns)
        found = self.table.scan(handle).filter(pl.sql_expr(predicate))
        return found.select(columns or found.columns)


def _among(conids: Sequence[int]) -> str:
    """Return a predicate: a list of few conids, or the range from the first of many to the last.

    The statistics in the log limit the files that are read.

    Args:
        conids: In ascending order.
    """
    if len(conids) <= MOST_TERMS:
        return f"conid IN ({', '.join(str(int(conid)) for conid in conids)})"
    return f"conid >= {int(conids[0])} AND conid <= {int(conids[-1])}"
