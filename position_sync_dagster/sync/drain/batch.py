"""One batch of the queue: claim, value, write the rows in one commit, mark the requests."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import uuid4

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.request import QueuedPosition
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    LakeError,
    LeaseLostError,
    NewerRowError,
)
from position_sync_dagster.lake.queue.table import PositionQueue
from position_sync_dagster.lake.schema.ids import new_ids
from position_sync_dagster.lake.updates.table import AppendResult, PositionUpdatesTable
from position_sync_dagster.sync.drain.batch_plan import (
    NOT_COVERED,
    NOT_HELD,
    BatchPlan,
    plan_batch,
)
from position_sync_dagster.sync.drain.broker_view import ValueSource
from position_sync_dagster.sync.run_reports import BatchReport

LARGEST = 5_000
"""Requests that one batch claims at most: their rows are about a second's work, far below a
lease."""

SHARE = 4
"""A drain takes what waits in about so many batches."""

MAX_PLANS = 10
"""How often a batch is decided anew because newer rows of its holdings came; then it is released.
"""


def batch_limit(waiting: int, batch_size: int) -> int:
    """Return how many requests to claim at once: a share of what waits, within bounds.

    Each batch costs three commits, however many rows it has.

    Args:
        waiting: Requests that may be claimed now.
        batch_size: The smallest limit, and the largest where it is greater than `LARGEST`.

    >>> [batch_limit(waiting, 50) for waiting in (20, 200, 1_000, 100_000)]
    [50, 50, 250, 5000]
    """
    return max(batch_size, min(-(-waiting // SHARE), LARGEST))


class BatchProcessor:
    """Processes one batch at a time: rows first, then the marks of their requests.

    Args:
        lease_s: How long a claim holds, in seconds.
        row_interval_s: A holding without any change has a row this often, in seconds.
        refresh_interval_s: When its next request may be expected, in seconds.
        provenance: Written into the rows.
    """

    def __init__(
        self,
        queue: PositionQueue,
        updates: PositionUpdatesTable,
        values: ValueSource,
        *,
        lease_s: float,
        row_interval_s: float,
        refresh_interval_s: float,
        provenance: Provenance,
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._updates = updates
        self._values = values
        self._lease_s = lease_s
        self._provenance = provenance
        self._row_interval = timedelta(seconds=row_interval_s)
        # A row that would be too old at the next request is written now.
        self._keep = timedelta(seconds=row_interval_s - refresh_interval_s)
        self._clock = clock
        self._owner = f"worker-{uuid4()}"

    async def process(self, limit: int) -> tuple[BatchReport, Sequence[QueuedPosition]]:
        """Process one batch; return its report, and the requests that are still to be released.

        The view that values the batch is read after the claim: what the owner of the login
        published before it inserted a request is in it. So no value is older than its request.

        Args:
            limit: How many requests to claim at most.

        Raises:
            BrokerUnavailableError: There is no current view of the broker; nothing is left claimed.
            LeaseLostError: The batch took longer than its lease; nothing was written.
            LakeError: A table could not be used; the requests are released, or rescued later.
        """
        started = self._clock()
        view = await self._values.view()  # without a view, nothing is claimed
        batch = await self._queue.claim_batch(
            limit,
            owner=self._owner,
            lease_s=self._lease_s,
            except_accounts=view.unavailable,
        )
        (batch_id,) = new_ids(started, 1)
        if not batch:
            return self._report(batch_id, batch, BatchPlan(), None, started), batch
        lease = batch[0].lease_token
        try:
            plan, appended = await self._plan_and_append(batch, batch_id)
            await self._queue.mark_success(plan.valued, answers=plan.answers, lease_token=lease)
            await self._queue.mark_failed_many(
                dict.fromkeys(plan.not_held, NOT_HELD), retryable=False, lease_token=lease
            )
        except LeaseLostError:
            raise
        except (LakeError, BrokerUnavailableError, asyncio.CancelledError) as error:
            await self.release(batch, _why_released(error))
            raise
        not_covered = [request for request in batch if request.request_id in plan.not_covered]
        return self._report(batch_id, batch, plan, appended, started), not_covered

    async def release(self, requests: Sequence[QueuedPosition], reason: str) -> None:
        """Release requests of one claim; where that fails, their lease expires by itself."""
        if requests:
            with suppress(LakeError):
                await self._queue.release(
                    _ids(requests), reason, lease_token=requests[0].lease_token
                )

    async def _plan_and_append(
        self, batch: Sequence[QueuedPosition], batch_id: str
    ) -> tuple[BatchPlan, AppendResult | None]:
        """Decide about the batch and commit its rows; decide anew if newer rows came between."""
        plans = 0
        while True:
            plans += 1
            now = self._clock()
            # The ledger is read before the view: a row that is added later may be newer than the
            # view, and makes the append fail.
            newest = await self._updates.newest_of(
                [request.conid for request in batch], now - self._row_interval
            )
            plan = plan_batch(
                batch,
                await self._values.view(),
                newest.rows,
                batch_id=batch_id,
                now=now,
                provenance=self._provenance,
                keep=self._keep,
            )
            try:
                return plan, await self._append(batch, plan, batch_id, newest.through)
            except NewerRowError:
                if plans == MAX_PLANS:
                    raise

    async def _append(
        self, batch: Sequence[QueuedPosition], plan: BatchPlan, batch_id: str, through: int
    ) -> AppendResult | None:
        """Commit the rows, if there are any and the batch's lease still holds."""
        if not plan.rows:
            return None

        def check_lease() -> None:
            if not self._queue.sync.holds(_ids(batch), lease_token=batch[0].lease_token):
                raise LeaseLostError(
                    f"The lease of batch {batch_id} ended before its rows were written.",
                    remedy="Raise POSITION_SYNC_LEASE_S; the requests are claimed again.",
                )

        return await self._updates.append(
            plan.rows, batch_id=batch_id, guard=check_lease, through=through
        )

    def _report(
        self,
        batch_id: str,
        batch: Sequence[QueuedPosition],
        plan: BatchPlan,
        appended: AppendResult | None,
        started: datetime,
    ) -> BatchReport:
        now = self._clock()
        waits_s = ((now - request.created_at).total_seconds() for request in batch)
        return BatchReport(
            batch_id=batch_id,
            claimed=len(batch),
            succeeded=len(plan.valued),
            unchanged=len(plan.valued) - len({row.request_id for row in plan.rows}),
            failed=len(plan.not_held),
            released=len(plan.not_covered),
            appended=appended,
            oldest_wait_s=max(waits_s, default=None),
            duration_s=(now - started).total_seconds(),
            reason=NOT_COVERED if plan.not_covered else None,
        )


def _why_released(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "the worker was ended"
    return "the lake could not be used" if isinstance(error, LakeError) else str(error)


def _ids(requests: Iterable[QueuedPosition]) -> list[str]:
    return [request.request_id for request in requests]
