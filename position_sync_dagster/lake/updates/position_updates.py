"""The ledger for asyncio, and the handler that writes streamed updates to it."""

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Unpack

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.schema.tables import POSITION_UPDATES
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded
from position_sync_dagster.lake.updates.append import AppendResult
from position_sync_dagster.lake.updates.follow import POLL_S, Added
from position_sync_dagster.lake.updates.ledger import NewestRows, SyncUpdates

__all__ = ["AppendResult", "NewestRows", "PositionUpdatesTable"]


class PositionUpdatesTable:
    """The table `position_updates`: every value of every holding, kept for good.

    An `update_id` or a `batch_id` that is in the table is never written again, whatever the
    clocks say. Each append searches for its ids in the files whose range of ids includes one of
    them. For ids that sort by time these are few, and all ids that this package makes sort by time.
    Use ids that sort by time too (UUIDs of version 7). Random ids, such as `uuid4`, are safe but
    slow: with them, each append reads the ids of most files, which takes a second or more at ten
    million rows.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.
        clock: Returns the current time, which each commit records.
        known: A table with the newest rows of an earlier version, such as `latest_positions`:
            with it, the cost of `latest` does not grow with the history.

    Attributes:
        sync: The same table with blocking calls.

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
    as_of = offloaded(SyncUpdates.as_of)
    last_before = offloaded(SyncUpdates.last_before)
    latest_since = offloaded(SyncUpdates.latest_since)
    added_after = offloaded(SyncUpdates.added_after)
    between = offloaded(SyncUpdates.between)
    count = offloaded(SyncUpdates.count)
    version = offloaded(SyncUpdates.version)

    def follow(self, since: str | None = None, poll_s: float = POLL_S) -> AsyncIterator[Added]:
        """Yield what is committed, in order, nothing twice and nothing left out, for ever.

        Without a token it begins with the newest row of each holding, then follows. Many readers
        of one object share the work. `sync.follow` returns a reader with blocking calls.

        Args:
            since: The token of the rows that were read last; "now" for what is committed from now
                on.
            poll_s: How often to look for a new commit while there is none, in seconds.

        Raises:
            TokenError: The text is no token, or the ledger cannot go on at its place.

        >>> async for rows, token in updates.follow(stored):        # doctest: +SKIP
        ...     print(rows.select("symbol", "market_value"), token)
        """
        return self.sync.follow(since).rows_async(poll_s)


class DeltaLakePositionWriter:
    """Writes streamed updates to `position_updates`; a repeated update writes nothing.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.
        table: The table to write to, instead of the one at `delta_lake_path`.

    Attributes:
        last_version: The table's version after the last commit; None before the first.
        rows_written, commits: Totals since the writer was created.

    >>> streamer.register_handler(DeltaLakePositionWriter())  # doctest: +SKIP
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/position_updates",
        *,
        table: PositionUpdatesTable | None = None,
        storage_options: Mapping[str, str] | None = None,
        fsync: bool = True,
    ) -> None:
        self.table = table or PositionUpdatesTable(
            delta_lake_path, storage_options=storage_options, fsync=fsync
        )
        self.last_version: int | None = None
        self.rows_written = 0
        self.commits = 0

    async def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there."""
        await self.table.initialize()

    async def on_position_update(self, update: PositionUpdate) -> None:
        """Write one update."""
        await self.on_position_updates([update])

    async def on_position_updates(self, updates: Iterable[PositionUpdate]) -> None:
        """Write updates in one commit."""
        listed = list(updates)
        if not listed:
            return
        done = await self.table.append(listed)
        if done.rows:
            self.last_version = done.version
            self.rows_written += done.rows
            self.commits += 1
