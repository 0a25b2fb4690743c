"""Maintenance: fewer files, the same rows, and no effect on others."""

from pathlib import Path

import pytest
from deltalake import DeltaTable

from position_sync_dagster.domain.request import QueueRequest, QueueStatus
from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.queue.table import PositionQueue
from position_sync_dagster.lake.storage.maintenance import maintain


def finish_some(queue: PositionQueue, count: int, first: int = 1) -> list[str]:
    ids = []
    for conid in range(first, first + count):
        [request_id] = queue.sync.insert_many([QueueRequest(conid, "SPY")])
        queue.sync.mark_success([request_id])
        ids.append(request_id)
    return ids


@pytest.fixture
def queue(tmp_path: Path) -> PositionQueue:
    made = PositionQueue(tmp_path / "q")
    made.sync.initialize()
    return made


def test_finished_requests_are_merged_and_live_ones_left_alone(queue):
    ids = finish_some(queue, 40)
    queue.sync.insert_many([QueueRequest(1000, "SPY")])
    [live] = queue.table.snapshot(lambda h: [u for u in h.file_uris() if "bucket=live" in u])
    result = maintain(queue.table)
    assert (result.compacted, result.files, result.skipped) == (40, 2, None)
    assert live in queue.table.snapshot(lambda handle: handle.file_uris())
    done = queue.sync.get_batch(priority=None, status=QueueStatus.SUCCESS, limit=100)
    assert {r.request_id for r in done} == set(ids)
    assert queue.sync.counts()[QueueStatus.SUCCESS] == 40


def test_few_files_are_left_as_they_are(queue):
    finish_some(queue, 5)
    version = queue.table.version()
    assert maintain(queue.table).compacted == 0
    assert queue.table.version() == version


def test_a_claim_made_before_a_compaction_is_marked_after_it(queue):
    finish_some(queue, 40)
    queue.sync.insert_many([QueueRequest(1000, "SPY")])
    claimed = queue.sync.claim_batch()
    maintain(PositionQueue(queue.table.path).table, clean_now=True)
    queue.sync.mark_success([r.request_id for r in claimed])
    assert queue.sync.counts()[QueueStatus.SUCCESS] == 41


def test_a_failed_request_is_put_back_out_of_a_merged_file(queue):
    ids = queue.sync.insert_many(QueueRequest(c, "SPY") for c in range(1, 41))
    for request_id in ids:
        queue.sync.mark_failed(request_id, "x", retryable=False)
    assert maintain(queue.table).compacted == 40
    assert queue.sync.retry(ids[7]) == [ids[7]]
    counts = queue.sync.counts()
    assert (counts[QueueStatus.PENDING], counts[QueueStatus.FAILED]) == (1, 39)


def test_the_counts_of_a_queue_need_no_read_of_finished_requests(queue):
    [failed, *done] = queue.sync.insert_many(QueueRequest(c, "SPY") for c in range(1, 41))
    queue.sync.mark_success(done)
    queue.sync.mark_failed(failed, "no such contract", retryable=False)
    queue.sync.insert_many(QueueRequest(c, "SPY", 1) for c in (1000, 1001))
    expected = queue.sync.overview()
    maintain(queue.table)  # a checkpoint: opening the table does not check older files
    for bucket in (QueueStatus.SUCCESS, QueueStatus.FAILED):
        [file] = Path(queue.table.path, f"bucket={bucket}").rglob("*.parquet")
        file.unlink()
    for again in (queue, PositionQueue(queue.table.path)):
        assert again.sync.overview() == expected
        assert again.sync.counts() == {
            QueueStatus.PENDING: 2,
            QueueStatus.PROCESSING: 0,
            QueueStatus.SUCCESS: 39,
            QueueStatus.FAILED: 1,
        }
    queue.sync.release(r.request_id for r in queue.sync.claim_batch())
    assert queue.sync.overview().by_priority == {1: 2}
    with pytest.raises(BrokenTableError, match="cannot be read whole"):
        queue.sync.get_batch(None, status=QueueStatus.SUCCESS)


def test_files_that_no_version_needs_are_deleted_only_after_the_retention(queue):
    finish_some(queue, 40)
    assert maintain(queue.table).deleted == 0
    assert maintain(queue.table, clean_now=True).deleted > 40
    files = [p for p in Path(queue.table.path).rglob("*.parquet") if "_delta_log" not in p.parts]
    assert len(files) == maintain(queue.table).files == 1


def test_the_log_is_cut_to_its_retention(queue, tmp_path):
    DeltaTable(tmp_path / "q").alter.set_table_properties(
        {"delta.logRetentionDuration": "interval 0 seconds"}
    )
    finish_some(queue, 60)
    maintain(queue.table)
    assert len(list((tmp_path / "q" / "_delta_log").glob("*.json"))) <= 20
    assert PositionQueue(tmp_path / "q").sync.counts()[QueueStatus.SUCCESS] == 60


def test_a_whole_lake_is_maintained_in_one_call(tmp_path):
    lake = Lake(tmp_path)
    lake.initialize_sync()
    assert [r.table for r in lake.maintain()] == [t.spec.name for t in lake.tables]
