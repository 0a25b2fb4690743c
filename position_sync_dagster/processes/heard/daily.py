"""What the gateway of a stream says, counted by the day in `heard_messages`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.records import RecordsTable
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.processes.heard.heard_lake import HeardCount, HeardLake
from position_sync_dagster.processes.heard.wire import Heard, vocabulary
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.router import StreamTables
from position_sync_dagster.sync.waits import end_tasks

logger = logging.getLogger(__name__)

# How often the counts are written, in seconds. A kill loses those since the last time.
NOTE_S = 1800.0


class DailyCounts:
    """Counts what is heard, and writes it while the stream owns its login.

    Attributes:
        heard: The listener of the connection.
    """

    def __init__(
        self, table: RecordsTable[HeardCount], own: Ownership, clock: Clock = utc_now
    ) -> None:
        self.heard = Heard()
        self._table = table
        self._own = own
        self._clock = clock
        self._outage = OutageLog(logger)

    @asynccontextmanager
    async def written(self) -> AsyncIterator[None]:
        """Write the counts again and again inside, and at its end."""
        writing = asyncio.create_task(self._write_again_and_again())
        try:
            yield
        finally:
            await end_tasks(writing)
            await self._write()

    async def _write_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(NOTE_S)
            await self._write()

    async def _write(self) -> None:
        """Write what was heard since the last time.

        If the table cannot be used, that is logged, and these counts are lost.
        """
        now = self._clock()
        rows = [
            HeardCount(
                day=now.date(),
                gateway_id=self._own.session.gateway_id,
                server_version=self.heard.server_version,
                kind=said.kind,
                name=said.name,
                count=count,
                is_new=not vocabulary().knows(said),
                heard_at=now,
            )
            for said, count in sorted(self.heard.take().items())
        ]
        try:
            await offload(self._table.add, rows, guard=self._own.check)
            self._outage.fault = None
        except PositionSyncError as error:  # a lost lease too
            self._outage.report(str(error))


def with_counts(
    tables: StreamTables, lake: HeardLake, _settings: Settings, own: Ownership
) -> StreamTables:
    """Return the parts of a stream, with one that counts by the day what its gateway says.

    Example:
        await stream(lake, settings, stop=stop, complete=with_counts)
    """
    counts = DailyCounts(lake.heard_messages, own)
    return replace(
        tables,
        listeners=(*tables.listeners, counts.heard),
        beside=(*tables.beside, counts.written()),
    )
