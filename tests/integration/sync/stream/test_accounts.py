"""Logins with several accounts: one feed at a time, after the feed of another client ended."""

from contextlib import asynccontextmanager

import pytest

from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.gateway.connection import connect
from position_sync_dagster.sync.drain import QueueWorker, drain
from tests.support.booked_legs import book_of_chain
from tests.support.short_owner import refresh
from tests.support.streams import eventually, settings_for, simulate

LEGS = 6
# Smaller than the holdings of one account: requests without a value fill more than a batch.
BATCH = 4


@pytest.fixture(params=[2, 5], ids=["two accounts", "an advisor login with 5"])
def accounts(request):
    return [f"DUSIM000{number}" for number in range(1, request.param + 1)]


@pytest.fixture
def book(accounts, tmp_path):
    return book_of_chain(tmp_path, 3, accounts=accounts, expiries=1)


@asynccontextmanager
async def other_client(sim, account):
    """Subscribe another client to an account; until it ends the gateway serves no other account."""
    other = await connect(settings_for(sim, gateway_client_id=50))
    other.ib.client.reqAccountUpdates(True, account)
    await other.ib.reqCurrentTimeAsync()
    yield
    await other.close()


async def valued(lake):
    rows = await lake.updates.latest_updates()
    return {(row.account, row.conid) for row in rows if row.market_value is not None}


async def test_accounts_refused_because_of_another_client_are_valued_later_and_the_others_at_once(
    lake, accounts, book
):
    *refused, served = accounts
    async with simulate(book) as sim:
        settings = settings_for(sim, batch_size=BATCH)
        async with other_client(sim, served):
            assert (await refresh(lake, settings)).incomplete_accounts == tuple(refused)
            done = await drain(lake, settings)
            assert done.succeeded == LEGS
            assert done.released == LEGS * len(refused)
            assert {account for account, _ in await valued(lake)} == {served}

            again = await drain(lake, settings)
            assert (again.claimed, again.released) == (LEGS * len(refused),) * 2
            assert again.rows == 0
            waiting = await lake.queue.overview()
            # As many as the sensor hears of: it backs off until there are others.
            assert waiting.claimable == again.released
        assert (await refresh(lake, settings)).incomplete_accounts == ()

        done = await drain(lake, settings)
        assert done.released == 0
        assert {batch.claimed for batch in done.batches[:-1]} == {BATCH}
        assert len(await valued(lake)) == LEGS * len(accounts)
        counts = await lake.queue.counts()
        assert counts[QueueStatus.FAILED] == 0


async def test_a_worker_continues_after_requests_without_a_value_and_then_waits(
    lake, accounts, book
):
    async with simulate(book) as sim:
        settings = settings_for(sim, batch_size=BATCH)
        async with other_client(sim, accounts[-1]):
            await refresh(lake, settings)
            worker = QueueWorker(
                lake.queue, interval=60, batch_size=BATCH, updates=lake.updates,
                settings=settings,
            )  # fmt: skip
            await worker.start()
            await eventually(lambda: worker.get_stats().total_success == LEGS)
            pending = LEGS * (len(accounts) - 1)
            await eventually(lambda: _claimable(lake, pending))
            assert worker.get_stats().total_processed == LEGS * len(accounts)
            await worker.stop()


async def _claimable(lake, number):
    return (await lake.queue.overview()).claimable == number
