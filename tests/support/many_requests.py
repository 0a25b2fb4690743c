"""A program that uses very many ids at once; a predicate with as many terms ends its process."""

import sys
from pathlib import Path

from position_sync_dagster.cli.queue import retry_all
from position_sync_dagster.domain.holding import QueueRequest, QueueStatus
from position_sync_dagster.lake.position_queue import PositionQueue

# Requests of which each is finished by a commit of its own part.
SOME = 1_000


def main(path: str, count: int) -> None:
    """Fail, read, retry and mark `count` requests."""
    queue = PositionQueue(Path(path), fsync=False).sync
    queue.initialize()
    ids = queue.insert_many(QueueRequest(conid, "SPY") for conid in range(1, count + 1))
    queue.claim_batch(count, lease_s=3600.0)
    for start in range(0, 60 * SOME // 10, SOME // 10):  # more parts than a predicate may name
        queue.mark_failed_many(dict.fromkeys(ids[start : start + SOME // 10], "x"), retryable=False)
    rest = ids[60 * SOME // 10 :]
    queue.mark_failed_many(dict.fromkeys(rest, "x"), retryable=False)
    failed = queue.get_batch(None, count, QueueStatus.FAILED)
    assert {request.request_id for request in failed} == set(ids)

    assert set(retry_all(queue)) == set(ids)
    assert queue.counts()[QueueStatus.PENDING] == count
    assert queue.counts()[QueueStatus.FAILED] == 0

    claimed = queue.claim_batch(count, lease_s=3600.0)
    assert len(claimed) == count
    assert queue.holds(ids)
    queue.mark_success(ids)
    assert queue.counts()[QueueStatus.SUCCESS] == count
    print("whole")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
