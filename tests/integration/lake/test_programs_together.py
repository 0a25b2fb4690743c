"""Whole programs at work on one lake: two drains, a stream after another, a reader and upkeep."""

import os
import signal

import polars as pl

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.lake.followed_rows import START
from position_sync_dagster.lake.lake import Lake
from tests.support.drains import assert_each_ended_once
from tests.support.empty_lakes import put_tables
from tests.support.lake_worker import Worker, workers

REQUESTS = 200
COMMITS = 100


def opened(place) -> Lake:
    put_tables(place)
    return Lake(place, fsync=False)


async def test_two_drains_end_each_request_once_with_one_row(place, eventually):
    lake = opened(place)
    requests = [QueueRequest(number, "SPY", account="A") for number in range(1, REQUESTS + 1)]
    lake.queue.sync.insert_many(requests)
    drains = [Worker("drain", place, lease_s=600, limit=7) for _ in range(2)]
    with workers(*drains):
        await eventually(lambda: lake.queue.sync.store.snapshot().live.is_empty())
    assert assert_each_ended_once(lake) == REQUESTS


async def test_an_owner_that_was_stopped_until_another_followed_writes_nothing_more(
    place, eventually
):
    """The first is stopped inside its work; its lease ends, and the login moves to the second."""
    lake = opened(place)

    def rows_of(token: int) -> pl.DataFrame:
        return lake.updates.table.rows(pl.col("fencing_token") == token)

    first, second = (Worker("write_as_owner", place) for _ in range(2))
    with workers(first):
        await eventually(lambda: rows_of(1).height > 3)
        os.kill(first.pid, signal.SIGSTOP)
        session = lake.sessions.current("g")
        await eventually(lambda: utc_now() > session.expires_at)
        with workers(second):
            await eventually(lambda: rows_of(2).height > 3)
            os.kill(first.pid, signal.SIGCONT)
            assert first.result() == "LeaseLostError"
            await eventually(lambda: rows_of(2).height > 10)
    assert rows_of(1)["ledger_version"].max() < rows_of(2)["ledger_version"].min()


def test_a_reader_beside_maintenance_gets_each_row_once_in_order(place, make_update):
    lake = opened(place)
    reader = Lake(place).updates.sync.follow(START)
    read: list[int] = []
    with workers(Worker("maintain", place), Worker("maintain", place)):
        for number in range(1, COMMITS + 1):
            lake.updates.sync.append([make_update(number)])
            while (added := reader.read()) is not None:
                read += added.rows["conid"].to_list()
    assert read == list(range(1, COMMITS + 1))
