"""The queue worker: claim a batch, value it, write its rows in one commit, mark it."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import NAMESPACE_URL, uuid4, uuid5

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.request import QueuedPosition
from position_sync_dagster.domain.update import PositionUpdate, Source
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from position_sync_dagster.errors import LakeError, LeaseLostError, PositionSyncError, SettingsError
from position_sync_dagster.lake.queue import PositionQueue
from position_sync_dagster.lake.updates import PositionUpdatesTable
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.reports import BatchReport
from position_sync_dagster.sync.values import (
    BrokerView,
    SourceBlindError,
    ValueSource,
    Verdict,
    answer,
)

logger = logging.getLogger(__name__)

NOT_HELD = "No account of the login holds this conid."


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What a worker did since it was made."""

    total_processed: int = 0
    total_success: int = 0
    total_failed: int = 0
    last_batch_time: datetime | None = None
    last_batch_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """What a view makes of a claimed batch: rows to write, and the mark of each request."""

    rows: tuple[PositionUpdate, ...]
    valued: tuple[str, ...]
    not_held: tuple[str, ...]
    unknown: tuple[str, ...]


def plan_batch(
    batch: Sequence[QueuedPosition],
    view: BrokerView,
    *,
    batch_id: str,
    now: datetime,
    by: Provenance,
) -> BatchPlan:
    """Decide each request of a batch; pure.

    The update_id of a row is derived from its request and account, so that a batch that is
    written again after a crash is known.
    """
    rows: list[PositionUpdate] = []
    marks: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for request in batch:
        found = answer(request, view)
        marks[found.verdict].append(request.request_id)
        for holding in found.holdings:
            row = from_portfolio(holding, source=Source.QUEUE, now=now, by=by)
            name = f"{request.request_id}/{holding.account}/{holding.instrument.conid}"
            rows.append(
                replace(
                    row,
                    request_id=request.request_id,
                    batch_id=batch_id,
                    update_id=str(uuid5(NAMESPACE_URL, name)),
                )
            )
    return BatchPlan(
        rows=tuple(rows),
        valued=tuple(marks[Verdict.VALUED]),
        not_held=tuple(marks[Verdict.NOT_HELD]),
        unknown=tuple(marks[Verdict.UNKNOWN]),
    )


class QueueWorker:
    """Drain the queue in batches, without using a market data line.

    Rows are written before their requests are marked, with an `update_id` derived from the
    request: whatever is killed in between, each request ends with its row once. A batch whose
    lease is gone is not written. Without a current view of the broker nothing is claimed.

    Args:
        queue: Where the requests are.
        interval: Seconds between batches while the queue is empty.
        batch_size: Requests claimed at once.
        delta_lake_path: The table `position_updates`.
        values: Where the values come from; by default the process's shared connection.

    Example:
        worker = QueueWorker(queue, interval=5, batch_size=50)
        await worker.start()
        ...
        await worker.stop()
        print(worker.get_stats())
    """

    def __init__(
        self,
        queue: PositionQueue,
        interval: float = 5,
        batch_size: int = 50,
        delta_lake_path: str = "data/lake/position_updates",
        *,
        values: ValueSource | None = None,
        updates: PositionUpdatesTable | None = None,
        settings: Settings | None = None,
        by: Provenance | None = None,
        clock: Clock = utc_now,
    ) -> None:
        if interval <= 0 or batch_size < 1:
            raise SettingsError(
                f"A worker with interval={interval!r} and batch_size={batch_size!r} cannot work.",
                remedy="Give seconds above 0 and at least one request a batch.",
            )
        self._queue = queue
        self._interval_s = interval
        self._batch_size = batch_size
        self._settings = settings or load_settings()
        self._updates = updates or PositionUpdatesTable(delta_lake_path, fsync=self._settings.fsync)
        self._values = values or _shared_connection(self._settings)
        self._by = by or Provenance()
        self._clock = clock
        self._owner = f"worker-{uuid4()}"
        self._stats = WorkerStats()
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    def get_stats(self) -> WorkerStats:
        """Give what was done so far."""
        return self._stats

    async def start(self) -> None:
        """Start draining in the background."""
        if self._task is None:
            await self._queue.initialize()
            await self._updates.initialize()
            self._stop.clear()
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish the batch under way and end."""
        self._stop.set()
        task, self._task = self._task, None
        try:
            if task is not None:
                await task
        finally:
            await self._values.close()

    async def process_batch(self) -> BatchReport:
        """Claim one batch, write its rows in one commit and mark it.

        Raises:
            SourceBlindError: Nothing current is known of the broker; nothing was claimed.
            LeaseLostError: The batch took longer than its lease; nothing was written.
            LakeError: A table could not be used; the requests are rescued later.
        """
        started = self._clock()
        view = await self._values.view()
        batch = await self._queue.claim_batch(
            self._batch_size, owner=self._owner, lease_s=self._settings.lease_s
        )
        batch_id = str(uuid4())
        if not batch:
            return self._report(batch_id, batch, started)
        plan = plan_batch(batch, view, batch_id=batch_id, now=self._clock(), by=self._by)
        try:
            version, rows = await self._write(batch, plan, batch_id)
            await self._queue.mark_success(plan.valued)
            for request_id in plan.not_held:
                await self._queue.mark_failed(request_id, NOT_HELD, retryable=False)
        except LeaseLostError:
            raise
        except LakeError:
            with suppress(LakeError):  # else the lease ends, and they are rescued
                await self._queue.release([request.request_id for request in batch])
            raise
        reason = None
        if plan.unknown:
            reason = "the broker's answer did not cover every account"
            await self._queue.release(plan.unknown, reason)
        return self._report(
            batch_id, batch, started, plan=plan, version=version, rows=rows, reason=reason
        )

    async def _write(
        self, batch: Sequence[QueuedPosition], plan: BatchPlan, batch_id: str
    ) -> tuple[int | None, int]:
        """Commit the rows under a lease that still holds; give Delta version and row count."""
        if not plan.rows:
            return None, 0
        if not await self._queue.holds([request.request_id for request in batch]):
            raise LeaseLostError(
                f"The lease of batch {batch_id} ended before its rows were written.",
                remedy="Raise POSITION_SYNC_LEASE_S; the requests are claimed again.",
            )
        written = await self._updates.append(plan.rows, batch_id=batch_id)
        return written.version, written.rows

    def _report(
        self,
        batch_id: str,
        batch: Sequence[QueuedPosition],
        started: datetime,
        *,
        plan: BatchPlan | None = None,
        version: int | None = None,
        rows: int = 0,
        reason: str | None = None,
    ) -> BatchReport:
        now = self._clock()
        report = BatchReport(
            batch_id=batch_id,
            claimed=len(batch),
            succeeded=len(plan.valued) if plan else 0,
            failed=len(plan.not_held) if plan else 0,
            released=len(plan.unknown) if plan else 0,
            rows=rows,
            version=version,
            oldest_wait_s=(
                max((now - request.created_at).total_seconds() for request in batch)
                if batch
                else None
            ),
            duration_s=(now - started).total_seconds(),
            reason=reason,
        )
        if batch:
            stats = self._stats
            self._stats = WorkerStats(
                total_processed=stats.total_processed + report.claimed,
                total_success=stats.total_success + report.succeeded,
                total_failed=stats.total_failed + report.failed,
                last_batch_time=now,
                last_batch_size=report.claimed,
            )
        return report

    async def _run(self) -> None:
        """Drain until stopped; what goes wrong is said once and tried again."""
        said = ""
        while not self._stop.is_set():
            full = False
            try:
                await self._queue.rescue()
                report = await self.process_batch()
                full, said = report.claimed == self._batch_size, ""
            except SourceBlindError as error:
                if str(error) != said:
                    logger.warning("%s", error)
                    said = str(error)
            except PositionSyncError as error:
                logger.error("%s", error)
            if not full:
                try:
                    await asyncio.wait_for(self._stop.wait(), self._interval_s)
                except TimeoutError:
                    continue


def _shared_connection(settings: Settings) -> ValueSource:
    """Give the default source; a drain in a process of its own never loads ib_async."""
    from position_sync_dagster.gateway.connection import IBConnectionManager
    from position_sync_dagster.sync.connection_values import ConnectionValues

    return ConnectionValues(IBConnectionManager(settings))
