"""The handler that persists streamed updates."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.updates.table import PositionUpdatesTable


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
