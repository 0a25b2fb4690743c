"""The queue of positions to be valued, for asyncio: in a Delta table, or in memory for tests."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from threading import RLock
from typing import TypeVar, Unpack

import polars as pl

from position_sync_dagster.domain.clock import Clock, RetryPolicy, utc_now
from position_sync_dagster.lake.queue.operations import PROMOTE_AFTER_S, SyncQueue
from position_sync_dagster.lake.schema.ids import NewIds, new_ids
from position_sync_dagster.lake.schema.tables import POSITION_QUEUE
from position_sync_dagster.lake.storage import lifecycle_table
from position_sync_dagster.lake.storage.table import Table, TableOptions
from position_sync_dagster.lake.storage.threads import offloaded

T = TypeVar("T")


class AsyncQueue:
    """The queue for asyncio; its blocking work runs in the threads of the lake.

    Attributes:
        sync: The same queue with blocking calls.
    """

    def __init__(self, sync: SyncQueue) -> None:
        self.sync = sync

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


class PositionQueue(AsyncQueue):
    """The queue in a Delta table, shared by any number of processes.

    Args:
        delta_lake_path: Folder or `s3://` URI of the table.
        retry: Attempts and back-off of requests that fail.
        random: Draws the jitter of the back-off.
        promote_after_s: Age from which a pending request counts as priority 1, in seconds.
        contention_s: How long a change is retried while other writers commit first, in seconds.
        fsync: Whether a change is synced to the disk before the call returns.

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
        super().__init__(
            SyncQueue(
                lifecycle_table.LifecycleTable(self.table, clock, in_parts=True),
                retry=retry,
                clock=clock,
                random=random,
                new_ids=new_ids,
                promote_after_s=promote_after_s,
            )
        )


class _MemoryStore:
    """A `QueueStore` of two frames: the live rows and the finished ones."""

    def __init__(self) -> None:
        self._live = self._finished = POSITION_QUEUE.empty
        self._parts = 0
        self._mutex = RLock()

    def initialize(self) -> None:
        """Do nothing: there is no table to create."""

    def change(
        self,
        step: Callable[[lifecycle_table.Snapshot], lifecycle_table.Change[T]],
        commit_info: Mapping[str, str],
    ) -> T:
        with self._mutex:
            change = step(self.snapshot())
            if change.live is not None:
                self._parts += 1
                remaining = self._finished
                if change.reopened is not None:
                    remaining = remaining.filter(~pl.sql_expr(change.reopened))
                if change.finished is not None:
                    part = pl.lit(str(self._parts))
                    remaining = pl.concat([remaining, change.finished.with_columns(part=part)])
                self._live = pl.concat([change.kept(self._live), change.live])
                self._finished = remaining
            return change.result

    def snapshot(self) -> lifecycle_table.Snapshot:
        with self._mutex:
            return lifecycle_table.Snapshot(0, self._live, self.finished)

    def finished(self, predicate: str, columns: list[str] | None = None) -> pl.DataFrame:
        rows = self._finished.filter(pl.sql_expr(predicate))
        return rows.select(columns) if columns else rows

    def newest_finished(self, bucket: str, only: pl.Expr, limit: int) -> pl.DataFrame:
        rows = self._finished.filter(pl.col("bucket") == bucket, only)
        return rows.top_k(limit, by="updated_at")

    def counted_snapshot(self) -> tuple[lifecycle_table.Snapshot, pl.DataFrame]:
        with self._mutex:
            by_bucket = self._finished.group_by("bucket")
            return self.snapshot(), by_bucket.agg(pl.len(), pl.col("updated_at").max())


class InMemoryPositionQueue(AsyncQueue):
    """A `PositionQueue` without a table, for tests; its rows last as long as the object.

    The arguments are those of `PositionQueue`.

    >>> import asyncio
    >>> asyncio.run(InMemoryPositionQueue().insert(265598, "AAPL"))  # doctest: +ELLIPSIS
    '...'
    """

    def __init__(
        self,
        *,
        retry: RetryPolicy | None = None,
        clock: Clock = utc_now,
        random: Random | None = None,
        new_ids: NewIds = new_ids,
        promote_after_s: float = PROMOTE_AFTER_S,
    ) -> None:
        super().__init__(
            SyncQueue(
                _MemoryStore(),
                retry=retry,
                clock=clock,
                random=random,
                new_ids=new_ids,
                promote_after_s=promote_after_s,
            )
        )
