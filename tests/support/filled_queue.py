"""A queue with requests, in a folder of the test's own."""

from pathlib import Path

from position_sync_dagster.domain.holding import QueueRequest
from position_sync_dagster.lake.position_queue import PositionQueue


def filled_queue(path: Path, count: int = 1) -> PositionQueue:
    """Return a queue with one pending request for each conid from 1 to `count`."""
    queue = PositionQueue(path)
    queue.sync.initialize()
    queue.sync.insert_many(QueueRequest(conid, "SPY") for conid in range(1, count + 1))
    return queue
