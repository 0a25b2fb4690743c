"""When the accounts are downloaded, by a clock that only the test moves."""

import asyncio

import pytest

from position_sync_dagster.domain.holding import Reason
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.ownership import OwnerContext
from position_sync_dagster.sync.stream.router import AccountRefresh

INTERVAL_S = 180.0


class Feed:
    """An account feed whose downloads end when the test says so."""

    def __init__(self):
        self.downloads = []
        self.ended = asyncio.Event()
        self.positions_due = self.lapsed = False
        self.overdue = []

    def lapse(self):
        lapsed, self.lapsed = self.lapsed, False
        return lapsed

    async def snapshot(self):
        self.downloads.append("positions")
        self.positions_due = False
        await self.ended.wait()

    async def ensure(self, _max_age):
        self.downloads.append("all")
        await self.ended.wait()

    async def download(self, accounts):
        self.downloads.append(sorted(accounts))
        await self.ended.wait()


class Publisher:
    def __init__(self):
        self.enqueued, self.published = [], 0

    async def publish(self, _feed):
        self.published += 1

    async def enqueue_all(self, _routes, reason):
        self.enqueued.append(reason)


class Refreshing:
    """An account refresh, and all that it works with."""

    def __init__(self):
        self.now = 1000.0
        self.feed, self.publisher = Feed(), Publisher()
        settings = Settings(refresh_interval_s=INTERVAL_S)
        context = OwnerContext(settings=settings, monotonic=lambda: self.now)
        self.refresh = AccountRefresh(context, self.publisher)

    async def step(self, *, after_s=0.0):
        self.now += after_s
        await asyncio.sleep(0)
        await self.refresh.step(self.feed, {})
        await asyncio.sleep(0)

    @property
    def published(self):
        return self.publisher.published

    async def finish_download(self):
        self.feed.ended.set()
        await asyncio.sleep(0)
        await self.step()
        self.feed.ended.clear()


@pytest.fixture
async def refreshing():
    refreshing = Refreshing()
    refreshing.refresh.start(refreshing.feed)
    yield refreshing
    await refreshing.refresh.end()


async def test_the_first_download_is_published_and_queues_every_holding(refreshing):
    await refreshing.step()
    assert (refreshing.refresh.opening, refreshing.published) == (True, 0)
    await refreshing.finish_download()
    assert (refreshing.refresh.opening, refreshing.refresh.idle) == (False, True)
    assert (refreshing.published, refreshing.publisher.enqueued) == (1, [Reason.SNAPSHOT])


async def test_a_refresh_starts_when_its_interval_is_over(refreshing):
    await refreshing.finish_download()
    await refreshing.step(after_s=INTERVAL_S - 1)
    assert refreshing.feed.downloads == ["all"]
    await refreshing.step(after_s=1)
    assert refreshing.feed.downloads == ["all", "all"]
    assert (refreshing.refresh.opening, refreshing.refresh.idle) == (False, False)
    await refreshing.finish_download()
    assert refreshing.publisher.enqueued == [Reason.SNAPSHOT, Reason.REFRESH]


async def test_an_interrupted_download_does_not_count_as_whole(refreshing):
    await refreshing.step()
    refreshing.refresh.interrupt()
    refreshing.feed.ended.set()
    await refreshing.step()
    assert (refreshing.published, refreshing.publisher.enqueued) == (0, [])
    assert refreshing.refresh.idle


async def test_positions_and_accounts_that_are_due_are_requested_one_after_the_other(refreshing):
    refreshing.feed.positions_due, refreshing.feed.overdue = True, ["A"]
    await refreshing.finish_download()
    await refreshing.step()
    assert refreshing.feed.downloads == ["all", "positions"]
    await refreshing.finish_download()
    await refreshing.step()
    assert refreshing.feed.downloads == ["all", "positions", ["A"]]
    refreshing.feed.overdue = []
    await refreshing.finish_download()
    assert refreshing.publisher.enqueued == [Reason.SNAPSHOT]


async def test_an_account_that_fell_silent_is_published_at_once(refreshing):
    refreshing.feed.lapsed = True
    await refreshing.step()
    assert refreshing.published == 1
    await refreshing.step()
    assert refreshing.published == 1
