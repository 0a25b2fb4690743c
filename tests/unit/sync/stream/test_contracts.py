"""Contract details in the background, few at once, and when a described leg is looked up again."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.errors import CommitContentionError
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.contracts import (
    CHUNK,
    ContractCache,
    LegResolver,
)
from tests.support.clock import HandClock
from tests.support.contracts import contract_details
from tests.support.legs import leg
from tests.support.unowned import unowned


class Gateway:
    """Knows every conid, or none; says so, or is silent."""

    def __init__(self, clock, *, knows=True, silent=False, **terms):
        self.asked = []
        self.unknown = set()
        self._silent = silent
        self._clock = clock
        self._knows = knows
        self._terms = terms

    async def details(self, conids):
        self.asked.append(list(conids))
        self.unknown = set()
        if not (self._knows or self._silent):
            self.unknown = set(conids)

        terms = {"seen_at": self._clock.now} | self._terms
        return {conid: contract_details(conid, **terms) for conid in conids if self._knows}


class Table:
    """Counts its commits; the first `fails` calls fail."""

    def __init__(self, *details, fails=0):
        self.commits = []
        self.stored = {detail.conid: detail for detail in details}
        self.fails = fails

    def put(self, details):
        if self.fails:
            self.fails -= 1
            raise CommitContentionError("busy", remedy="wait")
        self.commits.append([detail.conid for detail in details])
        self.stored |= {detail.conid: detail for detail in details}

    def unexpired(self, _since, _besides):
        return dict(self.stored)


@pytest.fixture
def clock():
    return HandClock()


async def steps(cache, gateway, number):
    for _step in range(number):
        await cache.fetch_due(gateway, ())


async def test_details_of_many_contracts_are_stored_in_few_commits(clock):
    gateway = Gateway(clock)
    table = Table()
    cache = ContractCache(table, clock=clock)
    cache.want(range(1, 1051))
    await steps(cache, gateway, 1050 // CHUNK + 10)
    assert max(map(len, gateway.asked)) == CHUNK
    assert [len(commit) for commit in table.commits] == [500, 500, 50]
    assert sorted(conid for commit in table.commits for conid in commit) == list(range(1, 1051))


async def test_details_of_legs_are_known_before_they_are_stored(clock):
    table = Table()
    cache = ContractCache(table, clock=clock)
    cache.set_legs([leg(1, "a")])
    cache.want(range(1, 101))
    await steps(cache, Gateway(clock), 2)
    assert cache.known(1) is not None
    assert not table.commits
    await cache.store()
    await cache.store()
    assert [len(commit) for commit in table.commits] == [2 * CHUNK]


async def test_details_in_the_table_are_not_requested_again(clock):
    gateway = Gateway(clock)
    table = Table(*(contract_details(conid, seen_at=clock.now) for conid in (1, 2)))
    cache = ContractCache(table, clock=clock)
    await cache.load(())
    cache.want([1, 2])
    await steps(cache, gateway, 3)
    assert (await cache.details(gateway, [2])).keys() == {2}
    assert gateway.asked == []
    assert table.commits == []


async def test_new_legs_are_compared_before_they_are_routed(clock):
    cache = ContractCache(None, clock=clock)
    cache.take({1: contract_details(1, symbol="OTHER", seen_at=clock.now)})
    cache.set_legs((leg(1, "a"),))
    assert cache.matching == ()


async def test_details_that_could_not_be_stored_are_stored_later(clock):
    gateway = Gateway(clock)
    table = Table(fails=1)
    cache = ContractCache(table, clock=clock)
    cache.want(range(1, 11))
    with pytest.raises(CommitContentionError):
        await steps(cache, gateway, 5)
    assert not table.commits
    await steps(cache, gateway, 5)
    assert table.commits == [list(range(1, 11))]
    assert len(gateway.asked) == 1


async def test_the_legs_are_other_ones_only_when_a_contract_turns_out_to_be_another(clock):
    first = leg(1, "a")
    second = leg(2, "b")
    terms: dict[str, Any] = {
        "symbol": second.symbol, "right": second.right, "strike": second.strike,
    }  # fmt: skip
    terms |= {"last_trade_date": second.expiry, "expires_on": second.expiry}
    fitting = {"sec_type": second.sec_type} | terms
    cache = ContractCache(None, clock=clock)
    legs = (first, second)
    cache.set_legs(legs)
    version = cache.version
    assert cache.matching == legs

    cache.take({2: contract_details(2, **fitting), 3: contract_details(3)})
    assert cache.version == version
    cache.take({1: contract_details(1, symbol="OTHER", seen_at=clock.now)})
    assert cache.matching == (second,)
    assert cache.version > version
    cache.take({2: contract_details(2, **fitting)})
    assert cache.matching == (second,)
    assert len(cache.mismatches) == 1
    cache.set_legs((second,))
    assert cache.matching == (second,)
    assert cache.mismatches == {}


TERMS = {"right": Right.CALL, "strike": 5000.0, "expiry": date(2026, 2, 19)}
RENAMED = {"symbol": "NEW", "trading_class": "NEW"}


async def test_stored_details_that_contradict_a_leg_are_fetched_before_that_counts(clock):
    old = clock.now - timedelta(days=3)
    gateway = Gateway(clock, **RENAMED)
    table = Table(contract_details(1, seen_at=old))
    cache = ContractCache(table, clock=clock)
    renamed = leg(1, "a", symbol="NEW", **TERMS)
    await cache.load([renamed])
    assert cache.matching == (renamed,)
    assert cache.available([1]) == set()
    cache.want([1])
    await steps(cache, gateway, 3)
    assert gateway.asked == [[1]]
    assert cache.matching == (renamed,)
    assert cache.mismatches == {}
    assert cache.available([1]) == {1}
    assert table.stored[1].symbol == "NEW"


async def test_details_that_contradict_a_leg_still_are_fetched_once(clock):
    old = clock.now - timedelta(days=3)
    gateway = Gateway(clock)
    table = Table(contract_details(1, seen_at=old))
    cache = ContractCache(table, clock=clock)
    await cache.load([leg(1, "a", symbol="NEW")])
    await steps(cache, gateway, 3)
    assert len(cache.mismatches) == 1
    clock.advance(86_400.0)
    await steps(cache, gateway, 3)
    assert len(gateway.asked) == 1
    assert len(cache.mismatches) == 1


async def test_a_gateway_that_does_not_answer_leaves_the_contradiction(clock):
    old = clock.now - timedelta(days=3)
    gateway = Gateway(clock, knows=False)
    cache = ContractCache(Table(contract_details(1, seen_at=old)), clock=clock)
    await cache.load([leg(1, "a", symbol="NEW")])
    await steps(cache, gateway, 3)
    assert gateway.asked == [[1]]
    assert len(cache.mismatches) == 1
    assert cache.matching == ()


async def test_details_that_were_not_given_before_the_clock_was_set_back_are_requested_again(clock):
    cache = ContractCache(Table(), clock=clock)
    cache.want([1])
    await steps(cache, Gateway(clock, knows=False), 2)
    clock.advance(-86_400)
    gateway = Gateway(clock)
    cache.want([1])
    await steps(cache, gateway, 2)
    assert gateway.asked == [[1]]


async def test_a_contract_that_the_gateway_does_not_know_is_asked_for_ever_more_rarely(clock):
    gateway = Gateway(clock, knows=False)
    mistyped = leg(1, "a", added_at=clock.now)
    cache = ContractCache(Table(), clock=clock)
    await cache.load([mistyped])
    for _minute in range(24 * 60):
        cache.want([1])
        await steps(cache, gateway, 2)
        clock.advance(60)
    asked = len(gateway.asked)
    assert 8 < asked < 16
    cache.set_legs([leg(1, "a", added_at=clock.now)])
    cache.want([1])
    await steps(cache, gateway, 2)
    assert len(gateway.asked) == asked + 1


async def test_silence_is_no_refusal_however_long_it_lasts(clock):
    gateway = Gateway(clock, knows=False, silent=True)
    cache = ContractCache(Table(), clock=clock)
    for _minute in range(30):
        cache.want([1])
        await steps(cache, gateway, 2)
        clock.advance(61)
    assert len(gateway.asked) == 30


async def test_details_that_were_not_given_once_are_fetched_in_the_background_alone(clock):
    gateway = Gateway(clock, knows=False, silent=True)
    cache = ContractCache(Table(), clock=clock)
    for _minute in range(3):
        assert await cache.details(gateway, [1]) == {}
        clock.advance(61)
    assert gateway.asked == [[1]]
    cache.want([1])
    await steps(cache, Gateway(clock), 2)
    assert (await cache.details(gateway, [1])).keys() == {1}
    assert gateway.asked == [[1]]


@pytest.mark.parametrize(("days", "asked"), [(3, 2), (-3, 0)])
async def test_trading_hours_of_an_expired_contract_are_not_asked_for(clock, days, asked):
    over = "20260101:0930-20260101:1600"
    terms = {"trading_hours": over, "time_zone": "US/Eastern", "seen_at": clock.now}
    terms["expires_on"] = terms["last_trade_date"] = (clock.now + timedelta(days=days)).date()
    gateway = Gateway(clock, **terms)
    cache = ContractCache(Table(contract_details(1, **terms)), clock=clock)
    await cache.load([])
    for _hour in range(2):
        clock.advance(3601)
        await cache.fetch_due(gateway, [1])
    assert len(gateway.asked) == asked


NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
LEG = make_leg(
    symbol="SPY", right="CALL", strike=575, expiry="20281215", strategy_id="s", added_at=NOW
)


class Searched:
    """A connection that answers what a test has set, and counts the requests."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = 0

    async def candidates(self, _leg):
        self.requests += 1
        return self.answer


async def requests_of_an_hour(answer):
    gateway = Searched(answer)
    now_s = 0.0
    context = unowned(settings=Settings(), monotonic=lambda: now_s)
    registry = SimpleNamespace(unresolved=(LEG,), sync=SimpleNamespace(settle=Mock()))
    resolver = LegResolver(context, registry, ContractCache(None))
    for minute in range(60):
        now_s = 60.0 * minute
        await resolver.resolve_due(gateway)
    return gateway.requests


async def test_a_leg_that_the_gateway_does_not_know_is_looked_up_less_and_less_often():
    assert await requests_of_an_hour([]) == 6


async def test_without_an_answer_a_leg_waits_no_longer_than_some_minutes():
    assert await requests_of_an_hour(None) == 17


def test_where_nothing_is_to_be_fetched_first_the_thousands_that_wait_are_left_as_they_are(clock):
    """Each step of the stream asks, once a second."""
    cache = ContractCache(None, clock=clock)
    cache.want(range(1, 5))
    waiting = cache._wanted
    cache.want([], first=True)
    assert cache._wanted is waiting
    cache.want([9, 3], first=True)
    assert list(cache._wanted) == [9, 3, 1, 2, 4]
