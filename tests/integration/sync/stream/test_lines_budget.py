"""Lines as a budget: which leg gives up its line, and what follows from a refusal.

The manager is driven by hand over a simulator, with a clock that only the test moves.
"""

from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.line import LineState
from position_sync_dagster.gateway.connection import connect
from position_sync_dagster.lake.given_leg import make_leg
from position_sync_dagster.sync.stream.contracts import ContractCache
from position_sync_dagster.sync.stream.lines import StreamLines
from tests.support.booked_legs import CALL, CENTS, PUT, STOCK, WORTHLESS, book_of_chain, terms_of
from tests.support.streams import Service, eventually, requests, settings_for, simulate
from tests.support.unowned import unowned

FUTURE = 920000002
FUTURE_OPTION = 921000005
INDEX_OPTION = 921000006
INDEX = 920000004
BEGAN = datetime(2026, 3, 9, 15, 10, tzinfo=UTC)
ALL = (STOCK, FUTURE, CALL, PUT, WORTHLESS, CENTS, FUTURE_OPTION, INDEX_OPTION)


class ManagedLines:
    """A line manager on a connection; `tick` does what the streamer does each second."""

    def __init__(self, sim, connection, settings):
        self.sim = sim
        self.connection = connection
        self.now = 1000.0
        self.legs = []
        self.contracts = ContractCache(None)
        clock = lambda: BEGAN + timedelta(seconds=self.now - 1000.0)  # noqa: E731
        context = unowned(settings=settings, monotonic=lambda: self.now, clock=clock)
        self.manager = StreamLines(context, self.contracts)
        self.manager.attach(connection.lines)
        self.requests: Counter[Any] = Counter()
        self.request_ids = {}
        self._request = connection.ib.reqMktData
        connection.ib.reqMktData = self._request_and_count

    def _request_and_count(self, contract, *args):
        ticker = self._request(contract, *args)
        self.requests[contract.conId] += 1
        request_ids = self.connection.ib.wrapper.ticker2ReqId["mktData"]
        self.request_ids[contract.conId] = request_ids[ticker]
        return ticker

    def add(self, *conids, priority=1, strategy="s"):
        for conid in conids:
            leg = make_leg(
                conid=conid, strategy_id=strategy, added_at=utc_now(), priority=priority,
                **terms_of(conid),
            )  # fmt: skip
            self.legs.append(leg)

    def remove(self, conid):
        self.legs = [leg for leg in self.legs if leg.conid != conid]

    async def tick(self, *, after_s=0.0):
        """Let time pass, and return the conids that hold a line then."""
        self.now += after_s
        self.contracts.set_legs(self.legs)
        self.manager.update(self.connection)
        if self.manager.are_due(self.connection):
            return set(await self.manager.allocate(self.connection))
        return set(self.manager.held)

    @property
    def streams(self):
        """The conids that have a line on the connection."""
        return {conid for conid in ALL if self.connection.lines.quote(conid) is not None}


@pytest.fixture
def manage_lines():
    @asynccontextmanager
    async def run(*, lines=100, **more):
        async with simulate(max_lines=lines) as sim:
            settings = settings_for(sim, **({"min_hold_s": 5.0, "reserved_lines": 0} | more))
            connection = await connect(settings)
            await connection.feed.snapshot()
            yield ManagedLines(sim, connection, settings)
            await connection.close()

    return run


async def test_granted_lines_are_held_for_their_minimum_time_even_above_a_limit_that_fell(
    manage_lines,
):
    async with manage_lines(lines=4, max_lines=10, reserved_lines=2) as managed:
        managed.add(*ALL)
        await managed.tick()
        await eventually(lambda: managed.manager.login.limit.lines == 4)
        assert len(await managed.tick(after_s=2)) == 4
        assert len(managed.streams) == 4
        assert "cancelMktData" not in managed.sim.stats()["requests"]["17"]
        assert len(await managed.tick(after_s=3)) == 2
        await eventually(lambda: managed.sim.stats()["lines_in_use"] == 2)


async def test_a_refused_leg_is_the_one_that_comes_last(manage_lines):
    async with manage_lines(lines=2, max_lines=10) as managed:
        managed.add(CALL, priority=2)
        managed.add(PUT, INDEX_OPTION)
        await managed.tick()
        await eventually(lambda: managed.manager.login.limit.lines == 2)
        assert managed.streams == {PUT, INDEX_OPTION}


@pytest.mark.parametrize(("code", "first_s", "second_s"), [(354, 1800, 3600), (10197, 60, 120)])
async def test_the_line_of_a_leg_without_permission_is_requested_again_after_growing_waits(
    manage_lines, code, first_s, second_s
):
    async with manage_lines() as managed:
        managed.sim.set_permission(PUT, code)
        managed.add(PUT, CALL)
        for times, wait_s in ((1, first_s), (2, second_s)):
            await managed.tick()
            await eventually(lambda: managed.streams == {CALL})

            text, which = managed.manager.problems()
            assert f": 1 leg now by the queue, since 15:10 UTC (IB {code}" in text
            assert which.startswith(f"{managed.contracts.name(PUT)}, requested again at ")
            assert which.endswith(" UTC")
            assert await managed.tick() == {CALL}
            assert await managed.tick(after_s=wait_s - 1) == {CALL}
            assert managed.requests[PUT] == times
            managed.now += 1

        managed.sim.set_permission(PUT, None)
        assert await managed.tick() == {CALL, PUT}
        assert managed.manager.problems() == []
        await eventually(lambda: managed.sim.stats()["lines_in_use"] == 2)


@pytest.mark.parametrize(("code", "wait_s"), [(354, 1800), (10197, 60)])
async def test_a_leg_with_delayed_data_is_reported_and_live_data_are_requested_again(
    manage_lines, code, wait_s
):
    async with manage_lines(delayed_fallback=True) as managed:
        managed.sim.set_permission(PUT, code)
        managed.add(PUT)
        await managed.tick()
        await eventually(lambda: not managed.streams)
        assert managed.manager.login.line(PUT).refused
        assert await managed.tick() == {PUT}

        line = managed.manager.login.line(PUT)
        assert line.state == LineState.WAITING  # in the same step
        assert line.is_awaited is True
        await eventually(lambda: managed.connection.lines.quote(PUT).market_data_type == 3)
        text, _which = managed.manager.problems()
        assert ": 1 leg with delayed data, since " in text
        assert await managed.tick(after_s=wait_s - 1) == {PUT}
        assert managed.requests[PUT] == 2

        await managed.tick(after_s=1)
        await eventually(lambda: not managed.streams)
        assert await managed.tick() == {PUT}
        assert managed.requests[PUT] == 4
        await eventually(lambda: managed.connection.lines.quote(PUT).market_data_type == 3)
        managed.sim.set_permission(PUT, None)
        await managed.tick(after_s=2 * wait_s)
        await eventually(lambda: managed.connection.lines.quote(PUT).mark is not None)
        assert managed.connection.lines.quote(PUT).market_data_type == 1
        assert managed.manager.problems() == []
        assert managed.sim.stats()["lines_in_use"] == 1
        assert len(managed.manager.held) == 1
        assert managed.sim.stats()["peak_lines"] == 1


async def test_that_another_session_took_all_lines_is_said_once_by_symbols_and_with_its_beginning(
    manage_lines,
):
    async with manage_lines() as managed:
        managed.sim.set_permission(code=10197)
        managed.add(*ALL)
        managed.manager.underlyings = {INDEX: 3}
        await managed.tick()
        await eventually(lambda: not managed.manager.held)
        text, which = managed.manager.problems()
        assert text == (
            "Another session took your lines: 8 legs now by the queue, 1 underlying without a "
            "price, since 15:10 UTC (IB 10197)"
        )
        assert which.split(", requested again")[0].endswith(" and 6 more")
        assert not any(str(conid) in which for conid in (*ALL, INDEX))


async def test_on_a_new_connection_every_line_is_requested_again(manage_lines):
    async with manage_lines(delayed_fallback=True) as managed:
        managed.sim.set_permission(PUT, 354)
        managed.add(PUT)
        await managed.tick()
        await eventually(lambda: not managed.streams)
        managed.manager.attach(managed.connection.lines)
        assert managed.manager.problems() == []
        managed.sim.set_permission(PUT, None)
        await managed.tick()
        await eventually(lambda: managed.connection.lines.quote(PUT).mark is not None)
        assert managed.connection.lines.quote(PUT).market_data_type == 1


@pytest.mark.parametrize("code", [300, 322], ids=["lost by the gateway", "request failed"])
async def test_a_line_that_the_gateway_lost_or_failed_is_soon_requested_with_another_id(
    manage_lines, code
):
    async with manage_lines() as managed:
        managed.add(PUT, CALL)
        await managed.tick()
        await eventually(lambda: managed.sim.stats()["lines_in_use"] == 2)
        refused_id = managed.request_ids[PUT]
        managed.sim.send_error(code, "Can't find EId with tickerId", req_id=refused_id)
        await eventually(lambda: managed.streams == {CALL})
        assert len(managed.manager.held) == 1
        assert managed.connection.lines.in_use == 1
        assert await managed.tick(after_s=5) == {PUT, CALL}
        assert managed.streams == {PUT, CALL}
        assert managed.request_ids[PUT] > refused_id


async def test_a_refusal_while_contract_details_are_fetched_counts(manage_lines, monkeypatch):
    async with manage_lines() as managed:
        managed.add(PUT)
        assert await managed.tick() == {PUT}
        details = managed.contracts.details

        async def refused_meanwhile(connection, conids):
            connection.ib.errorEvent.emit(managed.request_ids[PUT], 354, "not subscribed", None)
            return await details(connection, conids)

        monkeypatch.setattr(managed.contracts, "details", refused_meanwhile)
        managed.add(CALL)
        assert await managed.tick() == {CALL}
        assert managed.streams == {CALL}
        assert managed.requests[PUT] == 1


async def test_the_values_of_an_account_are_requested_before_its_lines(lake, tmp_path):
    book = book_of_chain(tmp_path, 8)
    async with simulate(book) as sim:
        for row in sim.positions()[:30]:
            terms = terms_of(row["conid"], book)
            await lake.registry.add_active(conid=row["conid"], strategy_id="s", **terms)
        service = Service(lake, settings_for(sim))
        await eventually(lambda: requests(sim, "reqMktData"))
        # Lines are paced: with them first, 20 of them would be requested before the account.
        assert requests(sim, "reqAccountUpdates")
        await service.end()
