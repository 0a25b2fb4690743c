"""Routes and their changes, followed holdings, and when the accounts are downloaded."""

import asyncio
import logging

import pytest

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.queue_request import Reason
from position_sync_dagster.errors import LakeError
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream import broker_values
from position_sync_dagster.sync.stream.broker_values import (
    CHOOSE_S,
    MANY,
    AccountRefresh,
    FollowedHoldings,
)
from position_sync_dagster.sync.stream.parts import PublishedGreeks
from position_sync_dagster.sync.stream.routes import MAX_LINES_LOGGED, Routes
from tests.support.settings import make_settings
from tests.support.unowned import unowned

KEY = ("DU1", 7)
MAX_STREAMED = broker_values.STREAMED_PNL_SUBSCRIPTIONS
MOVED_S = int(broker_values.MOVED_INTERVAL_S)


class Gateway:
    """Sends a new value of each subscribed holding between any two steps."""

    def __init__(self, values=None):
        self.pnl = self.feed = self.book = self
        self.sends = True
        self.keys = []
        self.kept = 0
        self.known = values or {}

    def keep(self, keys):
        self.kept += 1
        self.keys = list(keys)

    def step(self):
        self.has_news = self.sends and bool(self.keys)

    def read(self):
        pass

    def last_values(self, keys):
        return {key: self.known.get(key) for key in keys}


class Day:
    """Steps once a second, and keeps in which second what was done."""

    def __init__(self, routes=None, *, values=None, pnl_subscriptions=0, **settings):
        self.second = 0
        self.done = []
        self.greeks = PublishedGreeks()
        self.routes = routes or Routes()
        self.gateway = Gateway(values)
        settings = make_settings(pnl_subscriptions=pnl_subscriptions, **settings)
        context = unowned(settings=settings, monotonic=lambda: float(self.second))
        self.legs = FollowedHoldings(context, self)

    async def enqueue_moved(self, _routes):
        self.done.append(("moved", self.second))

    async def enqueue_changed(self, _routes, _keys):
        self.done.append(("became known", self.second))

    async def publish(self, _feed):
        self.done.append(("published", self.second))

    async def enqueue(self, _routes, keys):
        self.done.append(("queued", self.second))
        assert KEY in keys

    async def pass_(self, seconds, *, may_queue=True):
        for _ in range(seconds):
            await self.legs.step(self.gateway, self.routes, may_queue=may_queue)
            self.second += 1

    def at(self, what):
        return [second for done, second in self.done if done == what]


@pytest.fixture
def routes():
    found = Routes()
    found.update({KEY: LegState.OVERFLOW})
    return found


@pytest.mark.parametrize(
    ("every_s", "flush_s", "seconds", "may_queue", "published", "queued"),
    [
        (30.0, 0.5, 40, True, [0, 4, 8, 12, 16, 20, 24, 28, 30, 34, 38], [0, 30]),
        (3.0, 0.5, 10, True, [0, 3, 6, 9], [0, 3, 6, 9]),
        (60.0, 15.0, 40, True, [0, 15, 30], [0]),  # no more often than rows are flushed
        (5.0, 0.5, 14, False, [0, 4, 8, 12], []),  # a download will queue them
    ],
)
async def test_values_are_published_steadily_and_when_the_legs_are_queued(
    routes, every_s, flush_s, seconds, may_queue, published, queued
):
    day = Day(routes, overflow_interval_s=every_s, flush_interval_s=flush_s)
    await day.pass_(seconds, may_queue=may_queue)
    assert day.at("published") == published
    assert day.at("queued") == queued


async def test_the_newest_values_are_published_before_the_legs_are_queued(routes):
    day = Day(routes, overflow_interval_s=25.0)
    await day.pass_(26)
    assert day.done[-3:] == [("published", 25), ("became known", 25), ("queued", 25)]


async def test_a_slow_commit_is_followed_by_a_rest_of_three_times_its_time(routes):
    day = Day(routes, overflow_interval_s=30.0)
    publish = day.publish

    async def slowly(feed):
        await publish(feed)
        day.second += 2

    day.publish = slowly  # type: ignore[method-assign]
    await day.pass_(14)
    assert day.at("published") == [0, 8, 16]


async def test_what_has_no_new_value_is_not_published(routes):
    day = Day(routes, overflow_interval_s=30.0)
    day.gateway.sends = False
    await day.pass_(35)
    assert day.at("queued") == [0, 30]
    assert day.at("published") == []


async def test_without_such_legs_nothing_is_published_or_queued():
    day = Day()
    await day.pass_(40)
    assert day.at("published") == []
    assert day.at("queued") == []


async def test_holdings_are_chosen_when_routes_change_and_when_values_may_have(routes):
    values = {("DU1", conid): float(conid) for conid in range(10, 15)}
    routes.update(dict.fromkeys(values, LegState.MONITORED) | {("DU1", 8): LegState.STREAMED})
    day = Day(routes, values=values, pnl_subscriptions=3)
    gateway = day.gateway
    await day.pass_(10)
    largest = [("DU1", conid) for conid in (14, 13, 12)]
    assert gateway.keys == [KEY, ("DU1", 8), *largest]
    assert gateway.kept == 1

    values["DU1", 10] = 14.9  # not a quarter more than the smallest of them
    values["DU1", 11] = -15.1
    await day.pass_(int(CHOOSE_S))
    assert set(gateway.keys[2:]) == {*largest[:2], ("DU1", 11)}
    assert gateway.kept == 2
    routes.update({("DU1", 14): LegState.CLOSED})
    await day.pass_(1)
    assert ("DU1", 14) not in gateway.keys


async def test_no_monitored_holding_is_followed_before_the_values_are_known(routes):
    routes.update({("DU1", 9): LegState.MONITORED})
    day = Day(routes, pnl_subscriptions=3)
    gateway = day.gateway
    await day.pass_(3, may_queue=False)
    assert gateway.keys == [KEY]
    await day.pass_(1)
    assert gateway.keys == [KEY, ("DU1", 9)]
    await day.pass_(3, may_queue=False)
    assert gateway.keys == [KEY, ("DU1", 9)]


async def test_a_holding_that_came_while_a_download_ran_is_followed_when_that_has_ended(routes):
    day = Day(routes, pnl_subscriptions=3)
    await day.pass_(3)
    routes.update({("DU1", 9): LegState.MONITORED})
    await day.pass_(3, may_queue=False)
    assert day.gateway.keys == [KEY]
    await day.pass_(1)
    assert day.gateway.keys == [KEY, ("DU1", 9)]


async def test_streamed_holdings_are_followed_up_to_a_bound_also_where_no_other_is():
    streamed = [("DU1", conid) for conid in range(1, MAX_STREAMED + 9)]
    routes = Routes()
    routes.update(dict.fromkeys(streamed, LegState.STREAMED))
    day = Day(routes)
    await day.pass_(1)
    assert day.gateway.keys == streamed[:MAX_STREAMED]


async def test_values_that_moved_are_published_steadily_and_queued_together(routes):
    routes.update({KEY: LegState.MONITORED})
    day = Day(routes, pnl_subscriptions=9)
    await day.pass_(2 * MOVED_S + 1)
    assert day.at("published")[:3] == [0, 4, 8]
    assert day.at("moved") == [0, MOVED_S, 2 * MOVED_S]


async def test_a_value_that_becomes_known_is_queued_when_it_is_published_and_not_a_minute_later(
    routes,
):
    routes.update({KEY: LegState.MONITORED})
    day = Day(routes, pnl_subscriptions=9)
    await day.pass_(9)
    assert day.at("became known") == [0, 4, 8]
    await day.pass_(9, may_queue=False)  # a download will queue it
    assert day.at("became known") == [0, 4, 8]


@pytest.mark.parametrize(
    ("state", "method", "what"),
    [(LegState.OVERFLOW, "enqueue", "queued"), (LegState.MONITORED, "enqueue_moved", "moved")],
)
async def test_holdings_that_could_not_be_queued_are_due_at_the_next_step(
    routes, state, method, what
):
    routes.update({KEY: state})
    day = Day(routes, pnl_subscriptions=9)
    queue = getattr(day, method)

    async def refused(*_):
        setattr(day, method, queue)
        raise LakeError("The table is busy.", remedy="Wait.")

    setattr(day, method, refused)
    with pytest.raises(LakeError):
        await day.pass_(1)
    day.second += 1
    await day.pass_(3)
    assert day.at(what) == [1]


async def test_the_values_of_many_holdings_are_published_less_often():
    routes = Routes()
    day = Day(routes, pnl_subscriptions=2 * MANY)
    routes.update(dict.fromkeys([("DU1", conid) for conid in range(MANY)], LegState.MONITORED))
    await day.pass_(10)
    assert day.at("published") == [0, 4, 8]
    routes.update({("DU1", MANY): LegState.MONITORED})
    await day.pass_(14)
    assert day.at("published") == [0, 4, 8, 12, 18]


STREAMED = LegState.STREAMED
OVERFLOW = LegState.OVERFLOW
MONITORED = LegState.MONITORED
CLOSED = LegState.CLOSED


@pytest.mark.parametrize(
    ("before", "after", "unqueued"),
    [
        (None, STREAMED, False),
        (OVERFLOW, STREAMED, False),
        (STREAMED, STREAMED, False),
        (STREAMED, CLOSED, False),
        (STREAMED, OVERFLOW, True),
        (STREAMED, MONITORED, True),
        (MONITORED, OVERFLOW, True),
        (OVERFLOW, MONITORED, False),
        (OVERFLOW, CLOSED, False),
        (None, OVERFLOW, False),
        (None, CLOSED, False),
    ],
)
def test_a_holding_that_lost_its_line_or_became_active_without_one_is_for_the_queue(
    before, after, unqueued
):
    routes = Routes()
    if before is not None:
        routes.update({KEY: before})
        routes.unqueued.clear()
    assert routes.update({KEY: after}) == ({} if before is after else {KEY: before})
    assert (KEY in routes.unqueued) == unqueued
    assert routes.states == {KEY: after}


def test_a_holding_that_was_not_queued_stays_due_until_it_is_streamed_again():
    routes = Routes()
    routes.update({KEY: STREAMED})
    routes.update({KEY: MONITORED})
    routes.update({KEY: MONITORED})
    assert routes.unqueued == {KEY}
    routes.update({KEY: STREAMED})
    assert routes.unqueued == set()


def test_changes_are_logged_up_to_a_number(caplog):
    caplog.set_level(logging.INFO)
    routes = Routes()
    keys = [("A", conid) for conid in range(MAX_LINES_LOGGED + 2)]
    for state in (MONITORED, STREAMED, STREAMED):
        routes.update(dict.fromkeys(keys, state))
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == MAX_LINES_LOGGED + 1
    assert lines[0] == "0 of A: MONITORED → STREAMED"
    assert lines[-1] == "and 2 more routes changed"


INTERVAL_S = 180.0


class Feed:
    """An account feed whose downloads end when the test says so."""

    def __init__(self):
        self.downloads = []
        self.overdue = []
        self.ended = asyncio.Event()
        self.positions_due = self.silent = self.demoted = False
        self.values = self

    def end_silent(self):
        self.demoted |= self.silent
        self.silent = False

    def take_demoted(self):
        demoted = self.demoted
        self.demoted = False
        return demoted

    async def _download(self, what):
        self.downloads.append(what)
        await self.ended.wait()

    async def snapshot(self):
        self.positions_due = False
        await self._download("positions")

    async def ensure(self, _max_age):
        await self._download("all")

    async def download(self, accounts):
        await self._download(sorted(accounts))


class Refreshing:
    """An account refresh, and all that it works with: the publisher too."""

    def __init__(self):
        self.now = 1000.0
        self.feed = Feed()
        self.enqueued = []
        self.published = 0
        settings = Settings(refresh_interval_s=INTERVAL_S)
        context = unowned(settings=settings, monotonic=lambda: self.now)
        self.refresh = AccountRefresh(context, self)

    async def publish(self, _feed):
        self.published += 1

    async def enqueue_all(self, _routes, reason):
        self.enqueued.append(reason)

    async def step(self, *, after_s=0.0):
        self.now += after_s
        await asyncio.sleep(0)
        await self.refresh.step(self.feed, {})
        await asyncio.sleep(0)

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
    assert refreshing.refresh.opening is True
    assert refreshing.published == 0
    await refreshing.finish_download()
    assert refreshing.refresh.opening is False
    assert refreshing.refresh.idle is True
    assert refreshing.published == 1
    assert refreshing.enqueued == [Reason.SNAPSHOT]


async def test_a_refresh_starts_when_its_interval_is_over(refreshing):
    await refreshing.finish_download()
    await refreshing.step(after_s=INTERVAL_S - 1)
    assert refreshing.feed.downloads == ["all"]
    await refreshing.step(after_s=1)
    assert refreshing.feed.downloads == ["all", "all"]
    assert refreshing.refresh.opening is False
    assert refreshing.refresh.idle is False
    await refreshing.finish_download()
    assert refreshing.enqueued == [Reason.SNAPSHOT, Reason.REFRESH]


async def test_an_interrupted_download_does_not_count_as_whole(refreshing):
    await refreshing.step()
    refreshing.refresh.interrupt()
    refreshing.feed.ended.set()
    await refreshing.step()
    assert refreshing.published == 0
    assert refreshing.enqueued == []
    assert refreshing.refresh.idle


async def test_positions_and_accounts_that_are_due_are_requested_one_after_the_other(refreshing):
    refreshing.feed.positions_due = True
    refreshing.feed.overdue = ["A"]
    await refreshing.finish_download()
    await refreshing.step()
    assert refreshing.feed.downloads == ["all", "positions"]
    await refreshing.finish_download()
    await refreshing.step()
    assert refreshing.feed.downloads == ["all", "positions", ["A"]]
    refreshing.feed.overdue = []
    await refreshing.finish_download()
    assert refreshing.enqueued == [Reason.SNAPSHOT]


async def test_an_account_that_fell_silent_is_published_at_once(refreshing):
    refreshing.feed.silent = True
    await refreshing.step()
    assert refreshing.published == 1
    await refreshing.step()
    assert refreshing.published == 1
