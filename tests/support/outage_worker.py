"""Processes that stream and drain for as long as they live; see `forked_workers`."""

import asyncio
import logging
import time

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.broker_view import LakeValues
from position_sync_dagster.sync.drain import QueueWorker
from position_sync_dagster.sync.stream.streamer import stream
from tests.support.settings import make_settings

logger = logging.getLogger("tests.outage")


def main(work: str, path: str, port: int, lease_s: float, log: str) -> None:
    """Do a work until this process is killed.

    Args:
        work: "stream" or "drain".
        port: Of the gateway.
        log: The file of the log.
    """
    logging.basicConfig(filename=log, format="%(levelname)s %(message)s", level=logging.INFO)
    settings = make_settings(
        lake=path, gateway_port=port, gateway_timeout_s=10.0, flush_interval_s=0.2,
        heartbeat_s=lease_s / 5, session_lease_s=lease_s,
    )  # fmt: skip
    asyncio.run({"stream": streams, "drain": drains}[work](settings))


async def streams(settings: Settings) -> None:
    """Stream again whenever a stream has ended, as Dagster's supervisor does."""
    outage = OutageLog(logger)
    while True:
        began = time.monotonic()
        try:
            await stream(Lake.of(settings), settings, stop=asyncio.Event())
        except PositionSyncError as error:
            if time.monotonic() - began > 60:  # it worked meanwhile
                outage.fault = None
            outage.report(str(error))
        await asyncio.sleep(0.5)


async def drains(settings: Settings) -> None:
    """Drain the queue."""
    lake = Lake.of(settings)
    values = LakeValues(lake, settings)
    worker = QueueWorker(lake.queue, 0.5, 3, values=values, updates=lake.updates, settings=settings)
    await worker.start()
    while True:
        await asyncio.to_thread(time.sleep, 3600)
