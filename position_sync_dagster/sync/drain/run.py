"""The drain of a run: value the queue's requests from the tables, within a time limit."""

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.object_store import is_remote
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain.batch import LARGEST
from position_sync_dagster.sync.drain.broker_view import LakeValues
from position_sync_dagster.sync.drain.worker import QueueWorker
from position_sync_dagster.sync.run_reports import DrainReport


async def drain(
    lake: Lake, settings: Settings, *, run_id: str | None = None, clock: Clock = utc_now
) -> DrainReport:
    """Value every pending request from `broker_positions`; it connects to nothing.

    It ends when nothing more can be claimed or after `drain_time_limit_s`. Requests that the
    broker's current data does not cover are released at its end. While the owner of the login is
    not connected to the broker, it claims nothing and reports the reason. In an object store it
    claims all that waits at once, up to `LARGEST`.

    Args:
        lake: The tables, initialized.

    Raises:
        LakeError: A table could not be used; claimed requests are rescued by a later drain.
    """
    started = clock()
    batch_size = settings.batch_size
    if is_remote(lake.path):  # where a batch takes seconds, however many requests it has
        batch_size = max(batch_size, LARGEST)
    worker = QueueWorker(
        lake.queue,
        batch_size=batch_size,
        values=LakeValues(lake.broker_positions, lake.sessions, settings, clock=clock),
        updates=lake.updates,
        settings=settings,
        by=Provenance(run_id=run_id),
        clock=clock,
    )
    result = await worker.drain(settings.drain_time_limit_s)
    backlog = await lake.queue.overview()
    return DrainReport(
        batches=result.batches,
        rescued=result.rescued,
        queue_version=backlog.version,
        pending_after=backlog.counts.get(QueueStatus.PENDING, 0),
        duration_s=(clock() - started).total_seconds(),
        unavailable=result.unavailable,
    )
