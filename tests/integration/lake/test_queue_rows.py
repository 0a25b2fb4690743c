"""Rows of the queue: foreign ones, those of older releases, finished ones, and very many."""

import random
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.table import maintain
from tests.support.lake_worker import Worker, together
from tests.support.queues import filled_queue

NULLS = (
    "request_id", "conid", "symbol", "priority", "status", "created_at", "updated_at", "reason",
)  # fmt: skip
ODD = [{name: None} for name in NULLS]
ODD += [dict.fromkeys(NULLS), {"status": "ODD"}, {"reason": "ODD"}]
ODD += [{"status": "PROCESSING", "reason": None}, {"status": "PROCESSING", "request_id": None}]


@pytest.mark.parametrize("change", ODD, ids=str)
def test_a_row_that_is_no_request_stops_nothing_and_is_failed(tmp_path, change):
    before = filled_queue(tmp_path / "q", 4).table
    kinds = before.spec.polars
    odd = before.rows().head(1).with_columns(conid=pl.lit(99, pl.Int64), account=pl.lit("odd"))
    odd = odd.with_columns(request_id=pl.col("request_id").str.replace("0", "f", literal=True))
    odd = odd.with_columns(pl.lit(value, kinds[name]).alias(name) for name, value in change.items())
    write_deltalake(before.path, odd.to_arrow(), mode="append")

    queue = PositionQueue(tmp_path / "q").sync
    assert queue.counts()[QueueStatus.PENDING] == 4
    assert queue.overview().claimable == 4
    assert {one.conid for one in queue.get_batch(None)} == {1, 2, 3, 4}
    claimed = {one.conid: one.request_id for one in queue.claim_batch(50)}
    assert claimed.keys() == {1, 2, 3, 4}
    queue.mark_success(claimed[1])
    queue.release([claimed[2]])
    queue.mark_failed(claimed[3], "for a test")
    queue.insert(5, "SPY")
    queue.rescue()
    left = PositionQueue(tmp_path / "q").table.rows().filter(pl.col("account") == "odd")
    assert left["status"].to_list() == ["FAILED"]
    odd_columns = [name for name, value in change.items() if value != "PROCESSING"]
    assert left["error_message"].str.contains(f"{odd_columns[0]} is").all()


def ended(lake, limit):
    found = lake.queue.sync.get_batch(None, limit, QueueStatus.SUCCESS)
    return [one.conid for one in found]


def test_the_rows_shown_are_those_that_changed_last_however_their_files_were_merged(lake, clock):
    chance, queue, order = random.Random(3), lake.queue.sync, list[int]()
    ids = queue.insert_many([QueueRequest(conid, "SPY") for conid in range(1, 61)])
    waiting = list(enumerate(ids, 1))
    chance.shuffle(waiting)
    while waiting:
        clock.advance(chance.choice([0.0001, 1]))
        conid, request_id = waiting.pop()
        queue.mark_success([request_id])
        order.append(conid)
        if len(order) == 40:
            maintain(lake.queue.table, clean_now=True)
    for limit in (1, 2, 5, 30, 60, 100):
        assert ended(Lake(lake.path, clock=clock), limit) == order[::-1][:limit]


@pytest.mark.on_disk  # it deletes files
def test_files_of_older_ones_are_not_read(lake, clock):
    queue = lake.queue.sync
    ids = queue.insert_many([QueueRequest(conid, "SPY") for conid in range(1, 7)])
    queue.mark_success(ids[:1])
    finished = Path(lake.path, "position_queue", "bucket=SUCCESS")
    old_files = list(finished.rglob("*.parquet"))
    for request_id in ids[1:]:
        clock.advance(1)
        queue.mark_success([request_id])
    lake.queue.table.version()
    for path in old_files:
        path.unlink()
    assert ended(lake, 2) == [6, 5]


# Requests; a predicate that named each of them ended the process at 20,000 to 30,000.
COUNT = 40_000


def test_forty_thousand_requests_are_read_retried_and_marked(tmp_path):
    assert together(Worker("use_many", tmp_path, count=COUNT)) == [None]
