"""The place where a queue keeps its rows: a Delta table, or memory."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import polars as pl

from position_sync_dagster.lake.storage.lifecycle_table import Change, CountedSnapshot, Snapshot

T = TypeVar("T")


class QueueStore(Protocol):
    """The rows of a queue; a `LifecycleTable` is one."""

    def initialize(self) -> None:
        """Create the store, or check the one that is there."""

    def change(self, step: Callable[[Snapshot], Change[T]], commit_info: Mapping[str, str]) -> T:
        """Run a step on the live rows and commit its decision, all or nothing."""

    def snapshot(self) -> Snapshot:
        """Read the live rows."""

    def finished(self, predicate: str, columns: list[str] | None = None) -> pl.DataFrame:
        """Read finished rows."""

    def counted_snapshot(self) -> CountedSnapshot:
        """Read the live rows and count the finished ones by bucket."""
