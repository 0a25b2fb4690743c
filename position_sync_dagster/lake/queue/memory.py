"""The queue in memory, for users' own tests: the same behaviour, and nothing on disk."""

from collections.abc import Callable, Mapping
from random import Random
from threading import RLock
from typing import TypeVar

import polars as pl

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.retry import RetryPolicy
from position_sync_dagster.lake.queue.operations import PROMOTE_AFTER_S, SyncQueue
from position_sync_dagster.lake.queue.position_queue import AsyncQueue
from position_sync_dagster.lake.schema.ids import NewIds, new_ids
from position_sync_dagster.lake.schema.tables import POSITION_QUEUE
from position_sync_dagster.lake.storage.lifecycle_table import Change, CountedSnapshot, Snapshot

T = TypeVar("T")


class _MemoryStore:
    """A `QueueStore` of two frames: the live rows and the finished ones."""

    def __init__(self) -> None:
        self._live = pl.DataFrame(schema=POSITION_QUEUE.polars)
        self._finished = pl.DataFrame(schema=POSITION_QUEUE.polars)
        self._parts = 0
        self._mutex = RLock()

    def initialize(self) -> None:
        """Do nothing: there is no table to create."""

    def change(self, step: Callable[[Snapshot], Change[T]], commit_info: Mapping[str, str]) -> T:
        with self._mutex:
            change = step(self.snapshot())
            if change.live is not None:
                self._parts += 1
                remaining = self._finished
                for parts in change.reopened:
                    remaining = remaining.filter(~pl.sql_expr(parts.predicate))
                if change.finished is not None:
                    part = pl.lit(str(self._parts))
                    remaining = pl.concat([remaining, change.finished.with_columns(part=part)])
                self._live = pl.concat([change.kept(self._live), change.live])
                self._finished = remaining
            return change.result

    def snapshot(self) -> Snapshot:
        with self._mutex:
            return Snapshot(0, self._live, self.finished)

    def finished(self, predicate: str, columns: list[str] | None = None) -> pl.DataFrame:
        rows = self._finished.filter(pl.sql_expr(predicate))
        return rows.select(columns) if columns else rows

    def counted_snapshot(self) -> CountedSnapshot:
        with self._mutex:
            by_bucket = self._finished.group_by("bucket")
            return CountedSnapshot(
                self.snapshot(),
                dict(by_bucket.len().iter_rows()),
                dict(by_bucket.agg(pl.col("updated_at").max()).iter_rows()),
            )


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
                retry=retry or RetryPolicy(),
                clock=clock,
                random=random or Random(),  # noqa: S311 - jitter, not a secret
                new_ids=new_ids,
                promote_after_s=promote_after_s,
            )
        )
