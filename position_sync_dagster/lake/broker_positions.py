"""The newest positions and values that the broker reported, replaced by the login's owner."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Unpack

import polars as pl
from deltalake import DeltaTable, Transaction

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.update import trading_mode_of
from position_sync_dagster.lake.schema.codec import broker_positions_of, broker_rows, moment
from position_sync_dagster.lake.schema.ids import text_literal
from position_sync_dagster.lake.schema.tables import BROKER_POSITIONS
from position_sync_dagster.lake.storage.fencing import owner_transaction, refuse_stale_owner
from position_sync_dagster.lake.storage.frames import overwrite, scan
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded
from position_sync_dagster.lake.storage.trading_mode import check_mode


class Published(NamedTuple):
    """What the owner of a login published last.

    Attributes:
        session_id: The session that published it; None for an owner without a lease.
        captured_at: When that session took the rows from its account feed, by its clock.
    """

    rows: list[BrokerPosition]
    session_id: str | None = None
    captured_at: datetime | None = None


class SyncBrokerPositions:
    """The table as plain calls, for callers that may block; see `BrokerPositionsTable`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._cached: tuple[tuple[int, int], str, pl.DataFrame] | None = None
        self._published: tuple[pl.DataFrame, Published] | None = None

    def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there."""
        self.table.initialize()

    def replace(
        self,
        gateway_id: str,
        positions: Iterable[BrokerPosition],
        session: GatewaySession | None = None,
        *,
        captured_at: datetime | None = None,
    ) -> int:
        """Make the gateway's rows equal to these, in one commit, and return the table's version.

        Rows with position 0 are stored as they are: each records that a holding was closed.

        Args:
            gateway_id: The gateway.
            positions: Its rows.
            session: The lease of the writer.
            captured_at: When the rows were taken from the account feed.

        Raises:
            LeaseLostError: An owner with a newer session has written already.
            TradingModeError: The table holds accounts of another trading mode.
        """
        listed = list(positions)
        rows = broker_rows(listed, session).with_columns(
            gateway_id=pl.lit(gateway_id), captured_at=moment(captured_at)
        )
        rows = rows.unique(["account", "conid"], keep="last", maintain_order=True)
        owner = owner_transaction(gateway_id)

        def step(handle: DeltaTable) -> int:
            check_mode(handle, (trading_mode_of(p.account) for p in listed), self.table.path)
            before = scan(handle, BROKER_POSITIONS, _rows_of(gateway_id), ["fencing_token"])
            # The rows carry the token of their owner; without rows, only the transaction does.
            tokens = [handle.transaction_version(owner), before.get_column("fencing_token").max()]
            newest = max((int(str(t)) for t in tokens if t is not None), default=None)
            if session is not None:
                refuse_stale_owner(session.fencing_token, newest, gateway_id)
            transactions = (
                [Transaction(owner, session.fencing_token)]
                if session and session.fencing_token != handle.transaction_version(owner)
                else None
            )
            commit_info = {"session_id": session.session_id} if session else {}
            overwrite(handle, rows, _rows_of(gateway_id), commit_info, transactions)
            return handle.version()

        return self.table.transact(step)

    def read(self, gateway_id: str) -> list[BrokerPosition]:
        """Return the gateway's rows, in the order of account and conid."""
        return list(self.published(gateway_id).rows)

    def published(self, gateway_id: str) -> Published:
        """Return the gateway's rows, in the order of account and conid, and who published them.

        The same object is returned until the table changes: do not change it.
        """
        rows, known = self.rows(gateway_id), self._published
        if known is None or known[0] is not rows:
            first = next(rows.select("session_id", "captured_at").iter_rows(), ())
            known = self._published = (rows, Published(broker_positions_of(rows), *first))
        return known[1]

    def rows(self, gateway_id: str) -> pl.DataFrame:
        """Return the gateway's rows as a frame, in the order of account and conid."""

        def step(handle: DeltaTable) -> pl.DataFrame:
            cached, key = self._cached, self.table.cache_key(handle)
            if cached is None or cached[:2] != (key, gateway_id):
                found = scan(handle, BROKER_POSITIONS, _rows_of(gateway_id))
                cached = self._cached = (key, gateway_id, found.sort("account", "conid"))
            return cached[2]

        return self.table.snapshot(step)

    def version(self) -> int:
        """Return the table's newest version."""
        return self.table.version()


class BrokerPositionsTable:
    """The table `broker_positions`: one row per (gateway_id, account, conid).

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.

    Attributes:
        sync: The same table as plain, blocking calls.
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/broker_positions",
        **options: Unpack[TableOptions],
    ) -> None:
        self.table = Table(delta_lake_path, BROKER_POSITIONS, **options)
        self.sync = SyncBrokerPositions(self.table)

    initialize = offloaded(SyncBrokerPositions.initialize)
    replace = offloaded(SyncBrokerPositions.replace)
    read = offloaded(SyncBrokerPositions.read)
    published = offloaded(SyncBrokerPositions.published)
    version = offloaded(SyncBrokerPositions.version)


def _rows_of(gateway_id: str) -> str:
    return f"gateway_id = {text_literal(gateway_id)}"
