"""A `PositionQueue` without a table, which the contract of the queue holds too."""

from collections.abc import Callable, Mapping
from random import Random
from threading import RLock
from typing import TypeVar, cast

import polars as pl

from position_sync_dagster.domain.clock import Clock, RetryPolicy, utc_now
from position_sync_dagster.lake.position_queue import PROMOTE_AFTER_S, PositionQueue, SyncQueue
from position_sync_dagster.lake.schema import POSITION_QUEUE, NewIds, new_ids
from position_sync_dagster.lake.storage import lifecycle_table

T = TypeVar("T")


class _MemoryStore:
    """The calls of a `LifecycleTable` over two frames: the live rows and the finished ones."""

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

    def finished(self, _chosen: pl.Expr, columns: list[str] | None = None) -> pl.DataFrame:
        return self._finished.select(columns) if columns else self._finished

    def newest_finished(self, bucket: str, only: pl.Expr, limit: int) -> pl.DataFrame:
        rows = self._finished.filter(pl.col("bucket") == bucket, only)
        return rows.top_k(limit, by="updated_at")

    def counted_snapshot(self) -> tuple[lifecycle_table.Snapshot, pl.DataFrame]:
        with self._mutex:
            by_bucket = self._finished.group_by("bucket")
            return self.snapshot(), by_bucket.agg(pl.len(), pl.col("updated_at").max())


class InMemoryPositionQueue(PositionQueue):
    """A `PositionQueue` without a table, for tests; its rows last as long as the object.

    The arguments are those of `PositionQueue`.
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
        store = cast(lifecycle_table.LifecycleTable, _MemoryStore())
        policy, jitter = retry or RetryPolicy(), random or Random()
        self.sync = SyncQueue(store, clock, policy, jitter, new_ids, promote_after_s)
