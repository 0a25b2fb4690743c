"""Drain the queue within a time bound, from the tables alone: what a drain run does."""

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain.broker_view import LakeValues
from position_sync_dagster.sync.drain.worker import QueueWorker
from position_sync_dagster.sync.run_reports import BatchReport, DrainReport


async def drain(
    lake: Lake,
    settings: Settings,
    *,
    run_id: str | None = None,
    time_limit_s: float | None = None,
    clock: Clock = utc_now,
) -> DrainReport:
    """Value every pending request from `broker_positions`; it connects to nothing.

    It ends when nothing more can be claimed or after `time_limit_s` (default: the setting).
    Requests that the broker's current word does not answer are given back at its end: until then
    they are held, so that it goes through all the others. While the owner of the login is blind
    it claims nothing and says so in `reason`.

    Raises:
        LakeError: A table could not be used; claimed requests are rescued by a later drain.
    """
    started = clock()
    limit_s = settings.drain_time_limit_s if time_limit_s is None else time_limit_s
    await lake.initialize()
    rescued = len(await lake.queue.rescue())
    worker = QueueWorker(
        lake.queue,
        batch_size=settings.batch_size,
        values=LakeValues(lake.broker_positions, lake.sessions, settings, clock=clock),
        updates=lake.updates,
        settings=settings,
        by=Provenance(run_id=run_id),
        clock=clock,
    )
    batches: list[BatchReport] = []
    reason = None
    async with worker.deferring():
        while (clock() - started).total_seconds() < limit_s:
            try:
                report = await worker.process_batch()
            except BrokerUnavailableError as error:
                reason = str(error)
                break
            if report.claimed:
                batches.append(report)
            reason = report.reason or reason
            if report.claimed < settings.batch_size:
                break
    versions = [b.version for b in batches if b.version is not None]
    left = await lake.queue.overview()
    return DrainReport(
        batches=tuple(batches),
        rescued=rescued,
        version_from=min(versions) - 1 if versions else None,
        version_to=max(versions) if versions else None,
        queue_version=left.version,
        pending_after=left.counts.get(QueueStatus.PENDING, 0),
        duration_s=(clock() - started).total_seconds(),
        reason=reason,
    )
