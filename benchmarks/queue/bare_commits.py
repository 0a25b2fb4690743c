"""The bytes of the queue's own commits, written with plain `write_deltalake` on a fresh table."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
from deltalake import write_deltalake

from benchmarks.queue.contestant import BATCH, REFRESH
from benchmarks.queue.lake_queue import LakeQueue

PARTITIONS = ["bucket", "part"]


class BareCommits:
    """Plays back the frames that the queue wrote in one drain; it decides and checks nothing.

    Args:
        folder: Holds one table a drain, each of them new.
        frames: What each step of a drain wrote, in order.
    """

    def __init__(self, folder: Path, frames: list[pl.DataFrame]) -> None:
        self._folder = folder
        self._frames = frames
        self._next: Iterator[pl.DataFrame] = iter(())
        self._tables = 0

    def renew(self) -> None:
        """Begin a fresh table; not part of what is timed."""
        self._tables += 1
        self._next = iter(self._frames)
        write_deltalake(self._table, self._frames[0].clear(), partition_by=PARTITIONS)

    def enqueue(self, count: int) -> None:
        """Write what an insert wrote."""
        self._write()

    def claim(self, limit: int) -> range:
        """Write what a claim wrote."""
        self._write()
        return range(limit)

    def mark(self, batch: range) -> None:
        """Write what a mark wrote."""
        self._write()

    def counts(self) -> None:
        """Count nothing."""

    @property
    def _table(self) -> str:
        return str(self._folder / f"{self._tables}")

    def _write(self) -> None:
        write_deltalake(self._table, next(self._next), mode="append")


def written_frames(path: Path, batches: int) -> list[pl.DataFrame]:
    """Drain a real queue once and give the frame that each of its commits wrote."""
    contestant = LakeQueue(path)
    table = contestant.queue.table
    contestant.enqueue(REFRESH)
    is_live = pl.col("bucket") == "live"
    frames = [table.rows(is_live)]
    for _ in range(batches):
        ended = table.rows(~is_live).get_column("part").unique()
        batch = contestant.claim(BATCH)
        frames.append(table.rows(is_live))
        contestant.mark(batch)
        frames.append(table.rows().filter(~pl.col("part").is_in(ended.implode())))
    return frames
