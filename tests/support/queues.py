"""Queues for tests: filled ones, and those whose newest commit a test tears; files of their log."""

import json
from collections.abc import Iterable
from pathlib import Path

from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.durability import parse_entry
from position_sync_dagster.lake.storage.table import Table


def entry(table: Path, version: int) -> Path:
    return table / "_delta_log" / f"{version:020}.json"


def newest_entry(table: Path) -> Path:
    return max((table / "_delta_log").glob("0*.json"))


def written_by(table: Path, version: int) -> list[Path]:
    return [table / file for file in parse_entry(entry(table, version).read_bytes()).added]


def written(table: Table) -> int:
    """Return the rows of the files that the newest commit added, by the log."""
    actions = map(json.loads, newest_entry(Path(table.path)).read_text().splitlines())
    return sum(
        json.loads(action["add"]["stats"])["numRecords"] for action in actions if "add" in action
    )


def requests_of(conids: Iterable[int]) -> list[QueueRequest]:
    """Return a request for each contract."""
    return [QueueRequest(conid, "SPY") for conid in conids]


def insert(queue: PositionQueue) -> None:
    queue.sync.insert_many(requests_of(range(100, 105)))


def insert_many(queue: PositionQueue) -> None:
    """Insert more requests than the queue has, which is an append and not an overwrite."""
    queue.sync.insert_many(requests_of(range(100, 120)))


def claim(queue: PositionQueue) -> None:
    queue.sync.claim_batch(limit=2)


def mark(queue: PositionQueue) -> None:
    queue.sync.mark_success([r.request_id for r in queue.sync.get_batch(limit=2)])


def fail(queue: PositionQueue) -> None:
    for request in queue.sync.get_batch(limit=1):
        queue.sync.mark_failed(request.request_id, "x", retryable=False)


STEPS = [insert, insert_many, claim, mark, fail]


def queue_at(path: Path) -> PositionQueue:
    return PositionQueue(path, fsync=False)


def rows(queue: PositionQueue) -> list[dict]:
    return queue.table.rows().sort("request_id").to_dicts()


def filled_queue(path: Path, count: int = 1) -> PositionQueue:
    """Return a new queue with one pending request for each conid from 1 to `count`."""
    queue = PositionQueue(path)
    queue.sync.initialize()
    queue.sync.insert_many(requests_of(range(1, count + 1)))
    return queue


def finish_each(queue: PositionQueue, conids: Iterable[int]) -> list[str]:
    """Insert a request for each contract, and end it, by commits of its own; return their ids."""
    ids = []
    for conid in conids:
        ids += queue.sync.insert_many([QueueRequest(conid, "SPY")])
        queue.sync.mark_success(ids[-1])
    return ids


def small_queue(path: Path) -> PositionQueue:
    """Return a new queue of eight requests, one of them done; its newest version is 2."""
    queue = filled_queue(path, 8)
    queue.sync.mark_success([queue.sync.get_batch(limit=1)[0].request_id])
    return queue


def cuts(size: int, count: int) -> list[int]:
    """Return lengths spread over a file, its two ends included."""
    return sorted({0, 1, 3, size - 1, size - 4, *(size * k // count for k in range(count))})
