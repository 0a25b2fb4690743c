"""A drain and its worker: what they claim and see of the broker; rows before marks, none twice."""

import asyncio
from datetime import timedelta
from unittest.mock import AsyncMock

import pytest

from position_sync_dagster.domain.account_state import ACCOUNT_INTERVAL_S
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    LakeError,
    LeaseLostError,
    SettingsError,
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.broker_view import DRAIN_TIME_LIMIT_S, LakeValues
from position_sync_dagster.sync.drain import QueueWorker, drain
from tests.support.booked_legs import CALL, PUT, A, B
from tests.support.clock import HandClock
from tests.support.drains import worker_of
from tests.support.holdings import make_holding
from tests.support.streams import eventually, settings_for, simulate


def held(settings, now, conid, *, confirmed_at=None, completeness=Completeness.COMPLETE):
    return make_holding(
        conid, now, gateway_id=settings.gateway_id, completeness=completeness,
        confirmed_at=confirmed_at or now,
    )  # fmt: skip


async def test_a_view_has_the_contracts_that_are_asked_for_and_covers_all(lake):
    settings = Settings()
    clock = HandClock()
    values = LakeValues(lake, settings, clock=clock)
    first = [held(settings, clock.now, conid) for conid in (1, 2)]
    lake.broker_positions.replace(settings.gateway_id, first)
    view = await values.view()
    assert set(view.holdings.values()) == set(first)
    assert view.complete
    assert set((await values.view([2, 9])).holdings.values()) == set(first[1:])
    second = [*first, held(settings, clock.now, 3, completeness=Completeness.PARTIAL)]
    lake.broker_positions.replace(settings.gateway_id, second)
    assert set((await values.view()).holdings.values()) == set(second)
    assert not (await values.view([1])).complete


async def test_ages_are_those_of_the_moment_and_not_of_the_first_look(lake):
    settings = Settings()
    clock = HandClock()
    values = LakeValues(lake, settings, clock=clock)
    span = timedelta(
        seconds=2 * max(settings.refresh_interval_s, ACCOUNT_INTERVAL_S) + DRAIN_TIME_LIMIT_S
    )
    old = held(settings, clock.now, 1, confirmed_at=clock.now - span + timedelta(seconds=10))
    new = held(settings, clock.now, 2)
    lake.broker_positions.replace(settings.gateway_id, [old, new])
    assert (await values.view()).unconfirmed == frozenset()

    clock.now += timedelta(seconds=20)
    assert (await values.view()).unconfirmed == {old.key}
    clock.now += timedelta(hours=1)
    with pytest.raises(BrokerUnavailableError, match="were last confirmed"):
        await values.view()
    clock.now -= timedelta(hours=3)
    with pytest.raises(BrokerUnavailableError):
        await values.view()


async def test_a_close_that_arrives_while_a_drain_is_stopped_gets_its_zero_row(
    lake, streaming, monkeypatch
):
    async def waiting(number):
        return (await lake.queue.counts())[QueueStatus.PENDING] == number

    async with simulate() as sim, streaming(sim, updates=lake.updates, pnl_subscriptions=0):
        settings = settings_for(sim)
        await eventually(lambda: waiting(9))
        assert (await drain(lake, settings)).succeeded == 9

        look = LakeValues.view
        looks = []

        async def stopped_after_the_first_look(self, conids=None):
            view = await look(self, conids)
            looks.append(view)
            if len(looks) == 1:
                sim.close_position(A, PUT)
                await eventually(lambda: waiting(1))
            return view

        monkeypatch.setattr(LakeValues, "view", stopped_after_the_first_look)
        assert (await drain(lake, settings)).succeeded == 1
        rows = {(u.account, u.conid): u for u in await lake.updates.latest_updates()}
        assert rows[A, PUT].position == 0.0
        assert rows[A, PUT].market_value == 0.0


@pytest.fixture
def worker_for(lake):
    def make(sim, **more):
        settings = settings_for(sim, **more)
        return QueueWorker(
            lake.queue, interval=0.05, updates=lake.updates, settings=settings,
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
        assert stats.total_processed == 3
        assert stats.total_failed == 0
        assert stats.last_batch_time is not None


async def test_without_a_gateway_nothing_is_claimed_and_nothing_fails(lake, worker_for):
    async with simulate() as sim:
        worker = worker_for(sim)
    await lake.queue.insert(CALL, "AAPL")
    with pytest.raises(BrokerUnavailableError):
        await worker.process_batch()
    (request,) = await lake.queue.get_batch(priority=None)
    assert request.status == QueueStatus.PENDING
    assert request.updated_at == request.created_at


@pytest.mark.parametrize("taken", [False, True])
async def test_a_batch_whose_lease_ends_is_not_written_also_if_another_worker_took_it_over(
    lake, monkeypatch, taken
):
    """The other worker may use the same queue object."""
    await lake.queue.insert(CALL, "AAPL", account=A)
    append = lake.updates.append
    claimed = []

    async def slowly(*args, **more):
        await eventually(lake.queue.rescue)
        if taken:
            claimed.extend(await lake.queue.claim_batch(1, owner="another", lease_s=60))
        return await append(*args, **more)

    monkeypatch.setattr(lake.updates, "append", slowly)
    with pytest.raises(LeaseLostError):
        await worker_of(lake, 50, lease_s=0.2).process_batch()
    assert await lake.updates.count() == 0
    for request in claimed:
        await lake.queue.mark_success(request.request_id, lease_token=request.lease_token)


async def test_requests_that_nobody_holds_fail_for_good_in_one_commit(lake):
    ids = await lake.queue.insert_many([QueueRequest(900 + n, "NONE") for n in range(20)])
    before = (await lake.queue.overview()).version
    report = await worker_of(lake, 50).process_batch()
    assert report.failed == 20
    assert report.rows == 0
    claim_and_mark = 2
    assert (await lake.queue.overview()).version == before + claim_and_mark
    failed = await lake.queue.get_batch(status=QueueStatus.FAILED)
    assert {request.request_id for request in failed} == set(ids)
    assert all("holds this conid" in one.error_message for one in failed)


async def test_a_batch_that_could_not_be_written_is_released(lake, monkeypatch):
    worker = worker_of(lake, 50)
    await lake.queue.insert(CALL, "AAPL", account=A)
    full = AsyncMock(side_effect=LakeError("The disk is full.", remedy="Make room."))
    with monkeypatch.context() as broken:
        broken.setattr(lake.updates, "append", full)
        with pytest.raises(LakeError):
            await worker.process_batch()
    assert (await lake.queue.counts())[QueueStatus.PENDING] == 1
    assert (await worker.process_batch()).rows == 1


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


async def test_a_batch_whose_worker_is_ended_is_released_at_once(lake, monkeypatch):
    await lake.queue.insert(CALL, "AAPL", account=A)
    entered = asyncio.Event()

    async def never(*_args, **_more):
        entered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(lake.updates, "append", never)
    batch = asyncio.create_task(worker_of(lake, 50).process_batch())
    await entered.wait()
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    (request,) = await lake.queue.get_batch(priority=None)
    assert request.status == QueueStatus.PENDING
    assert request.attempts == 0
