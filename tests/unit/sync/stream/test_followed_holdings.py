"""Legs without a line: when their values are published, and when they are queued."""

import pytest

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.followed_holdings import NEW_AT_ONCE, OverflowLegs, Routes

KEY = ("DU1", 7)


class Gateway:
    """Sends a new value of each subscribed holding between any two steps."""

    def __init__(self):
        self.pnl = self
        self.keys = frozenset()
        self.kept = 0

    def keep(self, _owner, keys):
        self.kept += 1
        if keys != self.keys:
            self.keys = frozenset(keys)

    def take_fresh(self):
        return bool(self.keys)


class Day:
    """Steps once a second, and keeps in which second what was done.

    Requests wait from when the legs are queued until they are `drained` so many seconds later.
    """

    def __init__(self, *, drained=6, **settings):
        self.second, self.done = 0, []
        self.wait_until, self._drained = 0, drained
        self.legs = OverflowLegs(
            self, settings=Settings(**settings), monotonic=lambda: float(self.second)
        )

    async def publish(self):
        self.done.append(("published", self.second))

    async def enqueue(self, _routes, keys):
        self.done.append(("queued", self.second))
        self.wait_until = self.second + self._drained
        assert KEY in keys

    async def requests_wait(self):
        self.done.append(("looked", self.second))
        return self.second < self.wait_until

    async def pass_(self, seconds, routes, *, may_queue=True, gateway=None):
        gateway = gateway or Gateway()
        for _ in range(seconds):
            await self.legs.step(gateway, routes, self.publish, may_queue=may_queue)
            self.second += 1

    def at(self, what):
        return [second for done, second in self.done if done == what]


@pytest.fixture
def routes():
    found = Routes()
    found.update({KEY: LegState.OVERFLOW})
    return found


@pytest.mark.parametrize(
    ("drained", "published"),
    [(4, [0, 30]), (6, [0, 5, 30, 35]), (16, [0, 5, 10, 15, 30, 35, 40, 45])],
)
async def test_values_are_published_while_a_drain_is_awaited_however_long(
    drained, published, routes
):
    day = Day(overflow_interval_s=30.0, drained=drained)
    await day.pass_(60, routes)
    assert day.at("queued") == [0, 30]
    assert day.at("published") == published
    assert day.at("looked")[:5] == [5, 10, 15, 20, 25]


async def test_values_are_published_for_a_request_that_somebody_else_made(routes):
    day = Day(overflow_interval_s=30.0, drained=3)
    await day.pass_(17, routes)
    day.wait_until = 22
    await day.pass_(8, routes)
    assert day.at("published") == [0, 20]


async def test_the_newest_values_are_published_before_the_legs_are_queued(routes):
    day = Day(overflow_interval_s=25.0)
    await day.pass_(26, routes)
    assert day.done[-2:] == [("published", 25), ("queued", 25)]


async def test_legs_that_are_queued_often_are_published_often(routes):
    day = Day(overflow_interval_s=3.0)
    await day.pass_(10, routes)
    assert day.at("published") == [0, 3, 6, 9]


async def test_nothing_is_queued_while_a_download_will_queue_it(routes):
    day = Day(overflow_interval_s=5.0)
    day.wait_until = 6
    await day.pass_(14, routes, may_queue=False)
    assert day.at("queued") == []
    assert day.at("published") == [0, 5]


async def test_a_slow_commit_is_followed_by_a_long_rest(routes):
    day = Day(overflow_interval_s=30.0, drained=29)
    publish = day.publish

    async def slowly():
        await publish()
        day.second += 1

    day.publish = slowly
    await day.pass_(26, routes)
    assert day.at("published") == [0, 10, 20]


async def test_what_has_no_new_value_is_not_published(routes):
    day, gateway = Day(overflow_interval_s=30.0), Gateway()
    gateway.take_fresh = lambda: False
    await day.pass_(35, routes, gateway=gateway)
    assert (day.at("queued"), day.at("published")) == ([0, 30], [])


async def test_without_such_legs_nothing_is_published_or_queued():
    day = Day()
    await day.pass_(40, Routes())
    assert day.done == []


async def test_subscriptions_are_looked_at_when_routes_or_they_themselves_change():
    legs = [("DU1", conid) for conid in range(1, 2 * NEW_AT_ONCE + 2)]
    routes, gateway, day = Routes(), Gateway(), Day()
    routes.update(dict.fromkeys(legs, LegState.OVERFLOW))
    steps = []
    for _step in range(6):
        await day.pass_(1, routes, gateway=gateway)
        steps.append((len(gateway.keys), gateway.kept))
    most = len(legs)
    assert steps == [(20, 1), (40, 2), (most, 3), (most, 4), (most, 4), (most, 4)]
    gateway.keys = frozenset()  # the gateway dropped them
    await day.pass_(1, routes, gateway=gateway)
    assert (len(gateway.keys), gateway.kept) == (20, 5)
    await day.pass_(4, routes, gateway=gateway)
    routes.update({legs[0]: LegState.MONITORED})
    await day.pass_(1, routes, gateway=gateway)
    assert gateway.keys == set(legs[1:])
