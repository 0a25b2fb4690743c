"""The queue worker: claim a batch, value it, write its rows in one commit, mark it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.request import QueuedPosition
from position_sync_dagster.domain.update import PositionUpdate, Source
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    LakeError,
    LeaseLostError,
    PositionSyncError,
    SettingsError,
)
from position_sync_dagster.lake.queue.table import PositionQueue
from position_sync_dagster.lake.storage.ids import content_id, new_ids
from position_sync_dagster.lake.updates.table import PositionUpdatesTable
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.drain.broker_view import BrokerView, ValueSource, Verdict, answer
from position_sync_dagster.sync.run_reports import BatchReport

logger = logging.getLogger(__name__)

NOT_HELD = "No account of the login holds this conid."
NOT_COVERED = "the broker's answer did not cover every account"


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

    The update_id of a row is derived from its request and holding, so that a batch that is
    written again after a crash is known; it sorts by the request's time, as the table likes it.
    """
    rows: list[PositionUpdate] = []
    marks: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for request in batch:
        found = answer(request, view)
        marks[found.verdict].append(request.request_id)
        for holding in found.holdings:
            row = from_portfolio(holding, source=Source.QUEUE, now=now, by=by)
            rows.append(
                replace(
                    row,
                    request_id=request.request_id,
                    batch_id=batch_id,
                    update_id=content_id(request.created_at, request.request_id, *holding.key),
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
        self._deferred: list[Sequence[QueuedPosition]] | None = None
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

    @asynccontextmanager
    async def deferring(self) -> AsyncIterator[None]:
        """Keep what cannot be answered now until the end, and give it back then.

        Given back at once, it would be the oldest again, and the next batch the same one: the
        requests behind it would never be claimed. Held no longer than its lease.

        Example:
            async with worker.deferring():
                while (await worker.process_batch()).claimed:
                    pass
        """
        deferred = self._deferred = []
        try:
            yield
        finally:
            self._deferred = None
            for requests in deferred:
                await self._release(requests, NOT_COVERED)

    async def process_batch(self) -> BatchReport:
        """Claim one batch, write its rows in one commit and mark it.

        Raises:
            BrokerUnavailableError: Nothing current is known of the broker; nothing was claimed.
            LeaseLostError: The batch took longer than its lease; nothing was written.
            LakeError: A table could not be used; the requests are rescued later.
        """
        started = self._clock()
        view = await self._values.view()
        batch = await self._queue.claim_batch(
            self._batch_size, owner=self._owner, lease_s=self._settings.lease_s
        )
        (batch_id,) = new_ids(started, 1)
        if not batch:
            return self._report(batch_id, batch, started)
        lease = batch[0].lease_token
        plan = plan_batch(batch, view, batch_id=batch_id, now=self._clock(), by=self._by)
        try:
            version, rows = await self._write(batch, plan, batch_id)
            await self._queue.mark_success(plan.valued, lease_token=lease)
            await self._queue.mark_failed_many(
                dict.fromkeys(plan.not_held, NOT_HELD), retryable=False, lease_token=lease
            )
        except LeaseLostError:
            raise
        except (LakeError, asyncio.CancelledError) as error:
            ended = isinstance(error, asyncio.CancelledError)
            why = "the worker was ended" if ended else "the lake could not be used"
            await self._release(batch, why)
            raise
        unknown = [request for request in batch if request.request_id in plan.unknown]
        if unknown and self._deferred is not None:
            self._deferred.append(unknown)
        elif unknown:
            await self._release(unknown, NOT_COVERED)
        return self._report(
            batch_id,
            batch,
            started,
            plan=plan,
            version=version,
            rows=rows,
            reason=NOT_COVERED if unknown else None,
        )

    async def _release(self, requests: Sequence[QueuedPosition], why: str) -> None:
        """Release requests of one claim; where that fails, their lease ends by itself."""
        with suppress(LakeError):
            await self._queue.release(_ids(requests), why, lease_token=requests[0].lease_token)

    async def _write(
        self, batch: Sequence[QueuedPosition], plan: BatchPlan, batch_id: str
    ) -> tuple[int | None, int]:
        """Commit the rows under a lease that still holds; give Delta version and row count."""
        if not plan.rows:
            return None, 0

        def still_ours() -> None:
            if not self._queue.sync.holds(_ids(batch), lease_token=batch[0].lease_token):
                raise LeaseLostError(
                    f"The lease of batch {batch_id} ended before its rows were written.",
                    remedy="Raise POSITION_SYNC_LEASE_S; the requests are claimed again.",
                )

        written = await self._updates.append(plan.rows, batch_id=batch_id, guard=still_ours)
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
            more = False
            try:
                await self._queue.rescue()
                more, said = await self._drain(), ""
            except BrokerUnavailableError as error:
                if str(error) != said:
                    logger.warning("%s", error)
                    said = str(error)
            except PositionSyncError as error:
                logger.error("%s", error)
            if not more:
                try:
                    await asyncio.wait_for(self._stop.wait(), self._interval_s)
                except TimeoutError:
                    continue

    async def _drain(self) -> bool:
        """Process what waits, for half a lease at most; tell whether to go on at once."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.lease_s / 2
        answered = False
        async with self.deferring():
            while not self._stop.is_set() and loop.time() < until:
                report = await self.process_batch()
                answered = answered or report.released < report.claimed
                if report.claimed < self._batch_size:
                    return False
        return answered


def _ids(requests: Iterable[QueuedPosition]) -> list[str]:
    return [request.request_id for request in requests]


def _shared_connection(settings: Settings) -> ValueSource:
    """Give the default source; a drain in a process of its own never loads ib_async."""
    from position_sync_dagster.gateway.connection import IBConnectionManager
    from position_sync_dagster.sync.drain.shared_connection import ConnectionValues

    return ConnectionValues(IBConnectionManager(settings))
