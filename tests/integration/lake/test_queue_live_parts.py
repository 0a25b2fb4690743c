"""How many rows a change reads and writes, counted at the table: not more in a larger queue."""

import pytest

from position_sync_dagster.domain.clock import RetryPolicy
from position_sync_dagster.domain.update import QueueRequest, QueueStatus
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage import lifecycle_table
from position_sync_dagster.lake.storage.lifecycle_table import PART_ROWS
from tests.support.torn_queues import written

SMALL, LARGE = 2 * PART_ROWS, 10 * PART_ROWS


@pytest.mark.parametrize("waiting", [SMALL, LARGE])
def test_a_claim_a_mark_a_release_and_an_insert_rewrite_few_rows_and_read_none(
    tmp_path, files_read, waiting
):
    path = tmp_path / "queue"
    queue = PositionQueue(path, fsync=False).sync
    queue.initialize()
    queue.insert_many(QueueRequest(conid, "SPY", account="A") for conid in range(1, waiting + 1))
    queue.claim_batch(1)  # the live rows are in memory from here on
    files_read.clear()
    rows = []

    def count():
        rows.append(written(queue.store.table))

    batch = queue.claim_batch(50)
    count()
    queue.mark_success([request.request_id for request in batch[:40]])
    count()
    queue.mark_failed_many({batch[40].request_id: "x"})
    count()
    queue.release([request.request_id for request in batch[41:]])
    count()
    queue.insert(waiting + 1, "SPY")
    count()
    assert files_read == []
    assert max(rows) <= 2 * PART_ROWS + 50
    fresh = PositionQueue(path, fsync=False).sync
    assert fresh.counts() == {
        QueueStatus.PENDING: waiting - 40,
        QueueStatus.PROCESSING: 1,
        QueueStatus.SUCCESS: 40,
        QueueStatus.FAILED: 0,
    }


def test_a_step_that_ends_one_request_and_changes_one_of_another_part_rewrites_both_parts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(lifecycle_table, "PART_ROWS", 2)
    path = tmp_path / "queue"
    once_more = RetryPolicy(max_attempts=2, base_delay_s=0.0)
    queue = PositionQueue(path, fsync=False, retry=once_more).sync
    queue.initialize()
    queue.insert_many(QueueRequest(conid, "SPY") for conid in range(1, 7))
    first, *_, last = [request.request_id for request in queue.claim_batch(6)]
    queue.mark_failed(first, "no answer")
    assert [request.request_id for request in queue.claim_batch(6)] == [first]
    queue.mark_failed_many({first: "no answer", last: "no answer"})
    stored = PositionQueue(path, fsync=False).sync
    assert stored.store.snapshot().live["part"].n_unique() == 3
    for one in (queue, stored):
        assert one.counts() == {
            QueueStatus.PENDING: 1,
            QueueStatus.PROCESSING: 4,
            QueueStatus.SUCCESS: 0,
            QueueStatus.FAILED: 1,
        }
