"""The table of values, for asyncio."""

from pathlib import Path
from typing import Unpack

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.lake.schema.tables import POSITION_UPDATES
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded
from position_sync_dagster.lake.updates.append import AppendResult
from position_sync_dagster.lake.updates.ledger import NewestRows, SyncUpdates

__all__ = ["AppendResult", "NewestRows", "PositionUpdatesTable"]


class PositionUpdatesTable:
    """The table `position_updates`: every value of every holding, kept for good.

    An `update_id` or a `batch_id` that is in the table is never written again, whatever the
    clocks say. Each append looks for its ids in the files whose smallest and greatest id have one
    of them between them. For ids that sort by time there are hardly any such files, and all ids
    that this package makes sort by time. Make your own ids in the order of time too (UUIDs of
    version 7). Random ids, such as `uuid4`, are as safe, but slow: with them, each append of any
    ids reads the ids of most files, which takes a second or more at ten million rows.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.
        clock: Returns the current time, which each commit records.
        known: A table with the newest rows of an earlier version, such as `latest_positions`:
            with it, `latest` takes as long however long the history is.

    Attributes:
        sync: The same table as plain, blocking calls.

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
    fence = offloaded(SyncUpdates.fence)
    existing = offloaded(SyncUpdates.existing)
    latest = offloaded(SyncUpdates.latest)
    latest_updates = offloaded(SyncUpdates.latest_updates)
    newest_of = offloaded(SyncUpdates.newest_of)
    asof = offloaded(SyncUpdates.asof)
    latest_since = offloaded(SyncUpdates.latest_since)
    added_after = offloaded(SyncUpdates.added_after)
    between = offloaded(SyncUpdates.between)
    count = offloaded(SyncUpdates.count)
    version = offloaded(SyncUpdates.version)
