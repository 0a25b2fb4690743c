"""The end of a download counts for its account; one that never comes delays nobody for long."""

import asyncio
from datetime import timedelta

import pytest

from ib_gateway_simulator.protocol import account_messages, wire
from position_sync_dagster.domain.clock import Backoff
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.gateway import account_feed
from position_sync_dagster.gateway.connection import connect

FIRST, SECOND = "DUSIM0001", "DUSIM0002"
LONG = timedelta(hours=1)
COMPLETE, PARTIAL = Completeness.COMPLETE, Completeness.PARTIAL
# A test that waits for a time limit instead of a quiet period does not end.
HANGS_S = 600.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(account_feed, "AGAIN", Backoff(first_s=0.05, longest_s=0.05))


@pytest.fixture
async def connected(request, simulate, settings_for):
    async with simulate() as sim:
        quiet_s = getattr(request, "param", 0.3)
        settings = settings_for(sim, gateway_timeout_s=HANGS_S, account_quiet_s=quiet_s)
        connection = await connect(settings)
        yield sim, connection.feed
        await connection.close()


async def test_an_account_whose_end_never_comes_is_partial_and_the_others_complete(
    connected, eventually
):
    sim, feed = connected
    sim.download_end(FIRST, delay_s=None)
    await feed.ensure(LONG)
    assert feed.completeness == {FIRST: PARTIAL, SECOND: COMPLETE}
    assert feed.problems == [f"account {FIRST}: its download did not end"]
    assert all(h.market_value is not None for h in feed.holdings)
    sim.download_end(FIRST)
    await eventually(lambda: feed.overdue == [FIRST])
    await feed.ensure(LONG)
    assert feed.completeness == {FIRST: COMPLETE, SECOND: COMPLETE}
    assert feed.problems == []


async def test_the_late_end_of_one_account_does_not_end_the_download_of_another(connected):
    sim, feed = connected
    sim.download_end(FIRST, delay_s=0.5)
    sim.download_end(SECOND, delay_s=None)
    await feed.ensure(LONG)
    assert feed.completeness == {FIRST: PARTIAL, SECOND: PARTIAL}


@pytest.mark.parametrize("lost", [False, True])
async def test_a_late_end_of_an_open_subscription_counts_unless_ib_was_lost(
    simulate, settings_for, one_account, lost
):
    async with simulate(one_account) as sim:
        settings = settings_for(sim, gateway_timeout_s=HANGS_S, account_quiet_s=0.3)
        connection = await connect(settings)
        feed = connection.feed
        sim.download_end(FIRST, delay_s=None)
        await feed.snapshot()
        await feed.download()
        assert feed.completeness == {FIRST: PARTIAL}
        if lost:
            sim.connectivity("reported_lost")
            sim.connectivity("restored_data_kept")
        sim.send_raw(wire.frame(account_messages.account_download_end(FIRST)))
        await connection.ib.reqCurrentTimeAsync()
        assert feed.completeness == {FIRST: PARTIAL if lost else COMPLETE}
        assert (feed.book.confirmed.accounts.get(FIRST) is None) == lost
        await connection.close()


@pytest.mark.parametrize("connected", [HANGS_S], indirect=True)
async def test_an_account_whose_download_was_cancelled_is_downloaded_again(connected, eventually):
    sim, feed = connected
    await feed.ensure(LONG)
    sim.download_end(FIRST, delay_s=None)
    sent = sim.stats()["requests"]["17"]["reqAccountUpdates"]
    download = asyncio.create_task(feed.download([FIRST]))
    await eventually(lambda: sim.stats()["requests"]["17"]["reqAccountUpdates"] > sent)
    download.cancel()
    await asyncio.gather(download, return_exceptions=True)
    assert feed.completeness[FIRST] is PARTIAL
    sim.download_end(FIRST)
    await feed.ensure(LONG)
    assert feed.is_complete


async def test_an_end_without_a_name_that_may_be_of_another_account_ends_nothing(connected):
    sim, feed = connected
    sim.download_end(FIRST, delay_s=None)
    sim.download_end(SECOND, blank=True)
    await feed.ensure(LONG)
    assert feed.completeness == {FIRST: PARTIAL, SECOND: PARTIAL}
