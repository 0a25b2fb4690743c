"""The queue of positions to be valued, for asyncio."""

from pathlib import Path
from random import Random
from typing import Unpack

from position_sync_dagster.domain.clock import Clock, RetryPolicy, utc_now
from position_sync_dagster.lake.queue.operations import PROMOTE_AFTER_S, SyncQueue
from position_sync_dagster.lake.schema.ids import NewIds, new_ids
from position_sync_dagster.lake.schema.tables import POSITION_QUEUE
from position_sync_dagster.lake.storage.lifecycle_table import LifecycleTable
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded


class PositionQueue:
    """The queue in a Delta table, shared by any number of processes.

    The blocking work of each call runs in the threads of the lake.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.
        retry: Attempts and back-off of requests that fail.
        random: Draws the jitter of the back-off.
        promote_after_s: Age from which a pending request counts as priority 1, in seconds.
        contention_s: How long a change is retried while other writers commit first, in seconds.
        fsync: Whether a change is synced to the disk before the call returns.

    Attributes:
        sync: The same queue with blocking calls.

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
        self.table = Table(delta_lake_path, POSITION_QUEUE, **options)
        self.sync = SyncQueue(
            LifecycleTable(self.table, clock, in_parts=True),
            retry=retry,
            clock=clock,
            random=random,
            new_ids=new_ids,
            promote_after_s=promote_after_s,
        )

    @property
    def delta_lake_path(self) -> str:
        """Return the folder or URI of the table."""
        return self.table.path

    initialize = offloaded(SyncQueue.initialize)
    insert = offloaded(SyncQueue.insert)
    insert_many = offloaded(SyncQueue.insert_many)
    get_batch = offloaded(SyncQueue.get_batch)
    claim_batch = offloaded(SyncQueue.claim_batch)
    mark_success = offloaded(SyncQueue.mark_success)
    mark_processed = offloaded(SyncQueue.mark_processed)
    mark_failed = offloaded(SyncQueue.mark_failed)
    mark_failed_many = offloaded(SyncQueue.mark_failed_many)
    release = offloaded(SyncQueue.release)
    renew = offloaded(SyncQueue.renew)
    rescue = offloaded(SyncQueue.rescue)
    retry = offloaded(SyncQueue.retry)
    holds = offloaded(SyncQueue.holds)
    confirmations = offloaded(SyncQueue.confirmations)
    counts = offloaded(SyncQueue.counts)
    overview = offloaded(SyncQueue.overview)
