"""The queue of positions to be valued, for asyncio and in a Delta table."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Unpack

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.request import (
    MONITORING_PRIORITY,
    QueuedPosition,
    QueueRequest,
    QueueStatus,
    Reason,
    RetryPolicy,
)
from position_sync_dagster.lake.ids import NewIds, new_ids
from position_sync_dagster.lake.offload import offload
from position_sync_dagster.lake.schemas import POSITION_QUEUE
from position_sync_dagster.lake.stays import StayTable
from position_sync_dagster.lake.sync_queue import (
    LEASE_S,
    PROMOTE_AFTER_S,
    QueueOverview,
    SyncQueue,
)
from position_sync_dagster.lake.table import Table, TableOptions

__all__ = ["PROMOTE_AFTER_S", "AsyncQueue", "PositionQueue", "QueueOverview", "SyncQueue"]


class AsyncQueue:
    """The queue for asyncio; its blocking work runs in the lake's threads.

    Attributes:
        sync: The same queue as plain calls.
    """

    def __init__(self, sync: SyncQueue) -> None:
        self.sync = sync

    async def initialize(self) -> None:
        """Create the queue's table, or check and migrate the one that is there."""
        await offload(self.sync.initialize)

    async def insert(
        self,
        conid: int,
        symbol: str,
        priority: int = MONITORING_PRIORITY,
        account: str | None = None,
        *,
        reason: Reason = Reason.MANUAL,
    ) -> str:
        """Ask for one position to be valued; give the request's id.

        At most one request per (account, conid) is live: a second insert gives the first one's id
        and raises its priority if it is higher (1 is higher than 2).

        Raises:
            InvalidRequestError: The conid is no whole number above zero, the symbol is empty, or
                the priority is neither 1 nor 2.
        """
        request = QueueRequest(conid, symbol, priority, account, reason)
        return (await self.insert_many([request]))[0]

    async def insert_many(self, requests: Iterable[QueueRequest]) -> list[str]:
        """Ask for many positions in one commit; give the id that stands for each, in order."""
        return await offload(self.sync.insert_many, requests)

    async def get_batch(
        self,
        priority: int | None = MONITORING_PRIORITY,
        limit: int = 50,
        status: QueueStatus = QueueStatus.PENDING,
    ) -> list[QueuedPosition]:
        """Read requests without taking them.

        Args:
            priority: Only of this priority; None for all.
            status: Live ones come in the order of claims, finished ones newest first.
        """
        return await offload(self.sync.get_batch, priority, limit, status)

    async def claim_batch(
        self, limit: int = 50, owner: str | None = None, lease_s: float = LEASE_S
    ) -> list[QueuedPosition]:
        """Take up to `limit` requests under a lease of `lease_s` seconds.

        No request is granted to two callers while its lease lives, in whatever processes they
        are. Priority 1 comes before 2, then the oldest; a request that has waited for more than a
        minute (`promote_after_s`) counts as priority 1, so that priority 2 is never starved.
        The queue object remembers its newest lease of each request: marking needs the ids alone.
        Workers that share one queue object give their `lease_token` with each step.
        """
        return await offload(self.sync.claim_batch, limit, owner, lease_s)

    async def mark_success(
        self, request_ids: str | Iterable[str], *, lease_token: str | None = None
    ) -> None:
        """End requests as SUCCESS, in one commit, all or none.

        Requests that were only read may be marked too, while nobody else holds their lease.

        Raises:
            LeaseLostError: A lease is over or is another's.
            UnknownRequestError, RequestStateError: A request is not there, or has ended.
        """
        await offload(self.sync.mark_success, request_ids, lease_token=lease_token)

    async def mark_failed(
        self,
        request_id: str,
        error_message: str,
        *,
        retryable: bool = True,
        lease_token: str | None = None,
    ) -> None:
        """Note that a request failed.

        It is PENDING again after a back-off that doubles with each failure, or FAILED when it is
        not `retryable` or its attempts are used up (`RetryPolicy`). Errors as `mark_success`.
        """
        errors = {request_id: error_message}
        await self.mark_failed_many(errors, retryable=retryable, lease_token=lease_token)

    async def mark_failed_many(
        self,
        errors: Mapping[str, str],
        *,
        retryable: bool = True,
        lease_token: str | None = None,
    ) -> None:
        """Note that many requests failed, in one commit: error message by request id."""
        await offload(
            self.sync.mark_failed_many, errors, retryable=retryable, lease_token=lease_token
        )

    async def release(
        self,
        request_ids: str | Iterable[str],
        reason: str = "",
        *,
        lease_token: str | None = None,
    ) -> None:
        """Give claimed requests back at once, without using up an attempt.

        For when the gateway, and not the request, was at fault. Errors as `mark_success`.
        """
        await offload(self.sync.release, request_ids, reason, lease_token=lease_token)

    async def renew(
        self,
        request_ids: str | Iterable[str],
        lease_s: float = LEASE_S,
        *,
        lease_token: str | None = None,
    ) -> None:
        """Let the leases of claimed requests end `lease_s` seconds from now.

        Raises:
            LeaseLostError: A lease is over or is another's.
        """
        await offload(self.sync.renew, request_ids, lease_s, lease_token=lease_token)

    async def rescue(self) -> list[str]:
        """Send requests whose lease is over back to PENDING; give their ids.

        No attempt is used up: the worker died, the request is not at fault.
        """
        return await offload(self.sync.rescue)

    async def retry(self, request_ids: str | Iterable[str]) -> list[str]:
        """Put FAILED requests back to PENDING with fresh attempts, by a person's wish.

        Gives the id that stands for each: another one when its position is asked for already.
        """
        return await offload(self.sync.retry, request_ids)

    async def holds(
        self, request_ids: str | Iterable[str], *, lease_token: str | None = None
    ) -> bool:
        """Tell whether the leases of all these requests are ours and not over.

        A worker asks before it writes: one that lost its lease must not.
        """
        return await offload(self.sync.holds, request_ids, lease_token=lease_token)

    async def counts(self) -> dict[QueueStatus, int]:
        """Count requests by status; costs the same at any history."""
        return await offload(self.sync.counts)

    async def overview(self) -> QueueOverview:
        """Read counts, ages and what may be claimed now; costs the same at any history."""
        return await offload(self.sync.overview)


class PositionQueue(AsyncQueue):
    """The queue in a Delta table, shared by any number of processes.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.
        retry: Attempts and back-off of requests that fail.
        random: Draws the jitter of the back-off.
        promote_after_s: Age from which a pending request counts as priority 1, in seconds.
        contention_s: How long a change is tried again while other writers win, in seconds.
        fsync: Whether what a call acknowledged is on the disk, not only in the system's memory.

    >>> queue = PositionQueue("data/lake/position_queue")  # doctest: +SKIP
    >>> await queue.initialize()                           # doctest: +SKIP
    >>> await queue.insert(265598, "AAPL")                 # doctest: +SKIP
    >>> batch = await queue.claim_batch(limit=50)          # doctest: +SKIP
    >>> await queue.mark_success([r.request_id for r in batch])  # doctest: +SKIP
    """

    def __init__(
        self,
        delta_lake_path: str | Path = "data/lake/position_queue",
        *,
        retry: RetryPolicy | None = None,
        clock: Clock = utc_now,
        random: Random | None = None,
        new_ids: NewIds = new_ids,
        promote_after_s: float = PROMOTE_AFTER_S,
        **options: Unpack[TableOptions],
    ) -> None:
        self.table = Table(
            delta_lake_path,
            POSITION_QUEUE,
            **options,
        )
        super().__init__(
            SyncQueue(
                StayTable(self.table, clock),
                retry=retry or RetryPolicy(),
                clock=clock,
                random=random or Random(),  # noqa: S311 - jitter, not a secret
                new_ids=new_ids,
                promote_after_s=promote_after_s,
            )
        )
