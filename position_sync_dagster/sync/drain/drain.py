"""One drain of the lake: value the waiting requests from the tables, within a time limit."""

from dataclasses import replace

import polars as pl

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.update import QueueRequest, QueueStatus, Reason
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.lake import Lake, all_broker_rows
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.counts import DrainReport
from position_sync_dagster.sync.drain.batch import LakeValues
from position_sync_dagster.sync.drain.worker import QueueWorker

NOTHING = DrainReport(batches=(), rescued=0, duration_s=0.0, exhausted=True)
"""The report where nothing waits."""


async def drain(
    lake: Lake,
    settings: Settings,
    *,
    run_id: str | None = None,
    clock: Clock = utc_now,
) -> DrainReport:
    """Value every pending request from `broker_positions`; it connects to nothing.

    It ends when nothing more can be claimed or after `drain_time_limit_s`. Requests that the
    broker's current data does not cover are released at its end. While the owner of the login is
    not connected to the broker, it claims nothing and reports the reason.

    Args:
        lake: The tables, initialized.

    Raises:
        LakeError: A table could not be used; claimed requests are rescued by a later drain. After
            the first batch, the report has the error.
    """
    worker = QueueWorker(
        lake.queue,
        batch_size=settings.batch_size,
        values=LakeValues(lake, settings, clock=clock),
        updates=lake.updates,
        settings=settings,
        by=Provenance(run_id=run_id),
        clock=clock,
    )
    report = await worker.try_drain(settings.drain_time_limit_s)
    try:
        backlog = await lake.queue.overview()
    except LakeError as error:
        if not report.batches:
            raise
        return replace(report, error=report.error or error)
    return replace(
        report,
        pending_after=backlog.counts.get(QueueStatus.PENDING, 0),
    )


async def enqueue_monitored(lake: Lake, settings: Settings) -> list[str]:
    """Queue every holding of `broker_positions` that belongs to no strategy, in one commit.

    Returns:
        The ids of the requests; a holding with a live request has the id of that one.
    """
    await lake.registry.refresh()
    held = all_broker_rows(lake, settings).filter(
        (pl.col("position") != 0) & pl.col("sec_type").is_in(list(settings.sec_types))
    )
    return await lake.queue.insert_many(
        QueueRequest(conid=conid, symbol=symbol, account=account, reason=Reason.REFRESH)
        for account, conid, symbol in held.select("account", "conid", "symbol").iter_rows()
        if not lake.registry.is_active(conid, account)
    )
