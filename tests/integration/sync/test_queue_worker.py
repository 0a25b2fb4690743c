"""The queue worker: rows before marks, each request once, nothing failed without a gateway."""

import asyncio

import pytest

from position_sync_dagster.domain.holding import QueueRequest, QueueStatus
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    LakeError,
    LeaseLostError,
    SettingsError,
)
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.sync.drain import ConnectionValues, QueueWorker
from tests.support.booked_legs import CALL, PUT, A, B
from tests.support.streams import eventually, settings_for, simulate


@pytest.fixture
def worker_for(lake):
    def make(sim, **more):
        settings = settings_for(sim, **more)
        return QueueWorker(
            lake.queue, interval=0.05, updates=lake.updates, settings=settings,
            values=ConnectionValues(IBConnectionManager(settings)),
        )  # fmt: skip

    return make


async def test_a_worker_values_over_the_shared_connection_without_a_line(lake, worker_for):
    async with simulate() as sim:
        worker = worker_for(sim)
        await lake.queue.insert_many(
            [QueueRequest(CALL, "AAPL", account=A), QueueRequest(CALL, "AAPL", account=B)]
        )
        await lake.queue.insert(PUT, "AAPL")
        await worker.start()
        await eventually(lambda: worker.get_stats().total_success == 3)
        await worker.stop()
        rows = {(u.account, u.conid): u for u in await lake.updates.latest_updates()}
        assert set(rows) == {(A, CALL), (B, CALL), (A, PUT)}
        assert rows[(A, PUT)].position == -3.0
        assert all(u.market_value and u.value_time and u.request_id for u in rows.values())
        assert sim.stats()["peak_lines"] == 0
        stats = worker.stats
        assert stats == worker.get_stats()
        assert (stats.total_processed, stats.total_failed, stats.waiting) == (3, 0, 0)
        assert stats.last_batch_time is not None
        assert stats.last_batch_s is not None


async def test_a_worker_counts_the_requests_that_wait_behind_its_batch(lake, worker_for):
    async with simulate() as sim:
        worker = worker_for(sim)
        assert worker.stats.waiting is None
        await lake.queue.insert_many(
            [QueueRequest(c, "AAPL", account=A) for c in (CALL, PUT, *range(1, 70))]
        )
        await worker.process_batch()
        assert (worker.stats.last_batch_size, worker.stats.waiting) == (50, 21)


async def test_without_a_gateway_nothing_is_claimed_and_nothing_fails(lake, worker_for):
    async with simulate() as sim:
        worker = worker_for(sim)
    await lake.queue.insert(CALL, "AAPL")
    with pytest.raises(BrokerUnavailableError):
        await worker.process_batch()
    counts = await lake.queue.counts()
    assert counts[QueueStatus.PENDING] == 1


@pytest.mark.parametrize("taken", [False, True])
async def test_a_batch_whose_lease_ends_is_not_written_also_if_another_worker_took_it_over(
    lake, worker_for, monkeypatch, taken
):
    """The other worker may use the same queue object."""
    async with simulate() as sim:
        worker = worker_for(sim, lease_s=0.2)
        await lake.queue.insert(CALL, "AAPL")
        append, claimed = lake.updates.append, []

        async def slowly(*args, **more):
            await eventually(lake.queue.rescue)
            if taken:
                claimed.extend(await lake.queue.claim_batch(1, owner="another", lease_s=60))
            return await append(*args, **more)

        monkeypatch.setattr(lake.updates, "append", slowly)
        with pytest.raises(LeaseLostError):
            await worker.process_batch()
        assert await lake.updates.count() == 0
        for one in claimed:
            await lake.queue.mark_success(one.request_id, lease_token=one.lease_token)
        await worker.stop()


async def test_requests_that_nobody_holds_fail_for_good_in_one_commit(lake, worker_for):
    async with simulate() as sim:
        worker = worker_for(sim)
        ids = await lake.queue.insert_many([QueueRequest(900 + n, "NONE") for n in range(20)])
        before = (await lake.queue.overview()).version
        report = await worker.process_batch()
        assert (report.failed, report.rows) == (20, 0)
        claim_and_mark = 2
        assert (await lake.queue.overview()).version == before + claim_and_mark
        failed = await lake.queue.get_batch(status=QueueStatus.FAILED)
        assert {one.request_id for one in failed} == set(ids)
        assert all("holds this conid" in one.error_message for one in failed)
        await worker.stop()


async def test_a_batch_that_could_not_be_written_is_released(lake, worker_for, monkeypatch):
    async with simulate() as sim:
        worker = worker_for(sim)
        await lake.queue.insert(CALL, "AAPL", account=A)

        async def broken(*_args, **_more):
            raise LakeError("The disk is full.", remedy="Make room.")

        monkeypatch.setattr(lake.updates, "append", broken)
        with pytest.raises(LakeError):
            await worker.process_batch()
        counts = await lake.queue.counts()
        assert counts[QueueStatus.PENDING] == 1
        monkeypatch.undo()
        assert (await worker.process_batch()).rows == 1
        await worker.stop()


async def test_a_worker_survives_a_dropped_connection_and_leaves_none_open(lake, worker_for):
    async with simulate() as sim:
        worker = worker_for(sim)
        await lake.queue.insert(CALL, "AAPL", account=A)
        await worker.start()
        await eventually(lambda: worker.get_stats().total_success == 1)
        sim.disconnect()
        await lake.queue.insert(PUT, "AAPL", account=A)
        await eventually(lambda: worker.get_stats().total_success == 2)
        await worker.stop()
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)


@pytest.mark.parametrize("options", [{"interval": 0}, {"interval": -1}, {"batch_size": 0}])
def test_a_worker_that_cannot_work_is_refused(lake, options):
    with pytest.raises(SettingsError, match="is invalid"):
        QueueWorker(lake.queue, **options)


async def test_a_batch_whose_worker_is_ended_is_released_at_once(lake, worker_for, monkeypatch):
    async with simulate() as sim:
        worker = worker_for(sim)
        await lake.queue.insert(CALL, "AAPL")
        entered = asyncio.Event()

        async def never(*_args, **_more):
            entered.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(lake.updates, "append", never)
        batch = asyncio.create_task(worker.process_batch())
        await entered.wait()
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        (request,) = await lake.queue.get_batch(priority=None)
        assert (request.status, request.attempts) == (QueueStatus.PENDING, 0)
        await worker.stop()
