"""The queue of this package, as a contestant."""

from pathlib import Path

from benchmarks.queue.contestant import BATCH, REFRESH
from position_sync_dagster.domain.queue_request import (
    QueuedPosition,
    QueueRequest,
    QueueStatus,
    Reason,
)
from position_sync_dagster.lake.position_queue import PositionQueue

ACCOUNT = "DUSIM0001"
FIRST_CONID = 700_000_000


def refresh(count: int) -> list[QueueRequest]:
    """Give the requests of a refresh, the same positions each time."""
    return [
        QueueRequest(FIRST_CONID + n, f"SYM{n % 40}", 2, ACCOUNT, Reason.REFRESH)
        for n in range(count)
    ]


class LakeQueue:
    """`PositionQueue` by its plain calls, with its defaults.

    Args:
        fsync: As `POSITION_SYNC_FSYNC` sets it.
    """

    def __init__(self, path: Path | str, *, fsync: bool = True) -> None:
        self.queue = PositionQueue(path, fsync=fsync)
        self.queue.sync.initialize()

    def enqueue(self, count: int) -> None:
        """Insert a refresh in one commit."""
        self.queue.sync.insert_many(refresh(count))

    def claim(self, limit: int) -> list[QueuedPosition]:
        """Take requests under a lease."""
        return self.queue.sync.claim_batch(limit)

    def mark(self, batch: list[QueuedPosition]) -> None:
        """End requests in one commit."""
        self.queue.sync.mark_success([request.request_id for request in batch])

    def counts(self) -> dict[QueueStatus, int]:
        """Count by status."""
        return self.queue.sync.counts()

    def run(self, refreshes: int) -> None:
        """Enqueue and drain whole refreshes."""
        for _ in range(refreshes):
            self.enqueue(REFRESH)
            while batch := self.claim(BATCH):
                self.mark(batch)
