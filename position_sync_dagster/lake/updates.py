"""The table of values, for asyncio."""

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Unpack

import polars as pl

from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.ledger import LOOK_BACK_DAYS, AppendResult, SyncUpdates
from position_sync_dagster.lake.offload import offload
from position_sync_dagster.lake.schemas import POSITION_UPDATES
from position_sync_dagster.lake.table import Table, TableOptions

__all__ = ["AppendResult", "PositionUpdatesTable", "SyncUpdates"]


class PositionUpdatesTable:
    """The table `position_updates`: every value of every holding, for good.

    An `update_id` or a `batch_id` that is in the table is never written again, whatever the
    clocks say. Each append looks its ids up in the files whose least and greatest id leave room
    for one of them: next to none for ids that sort by time, as all ids are that this package
    makes. Give your own ids in order of time too (UUIDs of version 7). Random ones, such as
    `uuid4`, are as safe, but slow: each append, of whatever ids, then reads the ids of most
    files, for a second or more at ten million rows.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.

    Attributes:
        sync: The same table as plain calls.

    >>> updates = PositionUpdatesTable("data/lake/position_updates")  # doctest: +SKIP
    >>> await updates.append([update], batch_id="drain-1")            # doctest: +SKIP
    >>> (await updates.latest()).select("account", "conid", "position")  # doctest: +SKIP
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/position_updates",
        **options: Unpack[TableOptions],
    ) -> None:
        self.table = Table(
            delta_lake_path,
            POSITION_UPDATES,
            **options,
        )
        self.sync = SyncUpdates(self.table)

    async def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there."""
        await offload(self.sync.initialize)

    async def append(
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
        return await offload(self.sync.append, updates, batch_id, run_id=run_id, guard=guard)

    async def fence(self, gateway_id: str, token: int) -> None:
        """Let no owner of the gateway with a smaller fencing token add a row from now on.

        Raises:
            LeaseLostError: An owner with a greater token was here already.
        """
        await offload(self.sync.fence, gateway_id, token)

    async def existing(self, update_ids: Iterable[str]) -> set[str]:
        """Give which of these ids are written already."""
        return await offload(self.sync.existing, update_ids)

    async def latest(self) -> pl.DataFrame:
        """Give the newest row per (account, conid).

        The newest by `timestamp`, then by `update_id`, however the rows came in. The first call
        reads the table, later ones what was added since.
        """
        return await offload(self.sync.latest)

    async def latest_updates(self) -> list[PositionUpdate]:
        """Give the newest update per (account, conid)."""
        return await offload(self.sync.latest_updates)

    async def asof(self, moment: datetime, look_back_days: int = LOOK_BACK_DAYS) -> pl.DataFrame:
        """Give the last row at or before a moment per (account, conid).

        Reads only files of the `look_back_days` before the moment.
        """
        return await offload(self.sync.asof, moment, look_back_days)

    async def latest_since(self, since: datetime) -> pl.DataFrame:
        """Give the newest row per (account, conid) among those not older than `since`."""
        return await offload(self.sync.latest_since, since)

    async def between(self, first: datetime, last: datetime) -> pl.DataFrame:
        """Give all rows with `first` <= timestamp <= `last`, in order of time."""
        return await offload(self.sync.between, first, last)

    async def count(self) -> int:
        """Count the rows, without reading them."""
        return await offload(self.sync.count)

    async def version(self) -> int:
        """Give the table's newest version."""
        return await offload(self.sync.version)
