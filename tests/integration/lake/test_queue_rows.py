"""Rows of the queue: those of older releases, finished ones, and very many."""

import random
from pathlib import Path

import pytest

from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.opening import Upkeep
from tests.support.lake_worker import Worker, together
from tests.support.queues import requests_of


def ended(lake, limit):
    batch = lake.queue.sync.get_batch(None, limit, QueueStatus.SUCCESS)
    return [row.conid for row in batch]


def test_the_rows_shown_are_those_that_changed_last_however_their_files_were_merged(lake, clock):
    chance = random.Random(3)
    queue = lake.queue.sync
    merging = Lake(lake.path, upkeep=Upkeep(compact_from=8)).queue.table
    order = list[int]()
    ids = queue.insert_many(requests_of(range(1, 25)))
    waiting = list(enumerate(ids, 1))
    chance.shuffle(waiting)
    while waiting:
        clock.advance(chance.choice([0.0001, 1]))
        conid, request_id = waiting.pop()
        queue.mark_success([request_id])
        order.append(conid)
        if len(order) == 16:
            assert maintain(merging, clean_now=True).compacted == 16
    for limit in (1, 2, 5, 12, 24, 100):
        assert ended(Lake(lake.path, clock=clock), limit) == order[::-1][:limit]


@pytest.mark.on_disk  # it deletes files
def test_files_of_older_ones_are_not_read(lake, clock):
    queue = lake.queue.sync
    ids = queue.insert_many(requests_of(range(1, 7)))
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
