"""Lines as a budget: who gives way, what refusals teach, and when what was refused is tried again.

The manager is driven by hand over a simulator, with a clock that only the test moves.
"""

from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.leg import LegState, make_leg
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.gateway import login
from position_sync_dagster.gateway.connection import connect
from position_sync_dagster.simulator import Simulator, load_book
from position_sync_dagster.sync.stream.contract_cache import ContractCache
from position_sync_dagster.sync.stream.line_manager import LineManager
from position_sync_dagster.sync.stream.streamer import IBPositionStreamer

A = "DUSIM0001"
CALL, PUT, WORTHLESS, CENTS, STOCK = 921000001, 921000002, 921000003, 921000004, 920000001
FUTURE, FUTURE_OPTION, INDEX_OPTION = 920000002, 921000005, 921000006
ALL = (STOCK, FUTURE, CALL, PUT, WORTHLESS, CENTS, FUTURE_OPTION, INDEX_OPTION)


class Desk:
    """A manager on a connection; `tick` is what the streamer does each second."""

    def __init__(self, sim, connection, settings):
        self.sim, self.connection = sim, connection
        self.now, self.legs = 1000.0, []
        self.manager = LineManager(
            ContractCache(None), settings=settings, clock=utc_now, monotonic=lambda: self.now
        )
        connection.lines.on_refusal.append(
            lambda refusal: self.manager.refused(refusal, connection.lines)
        )
        self.asked = Counter()
        ask = connection.lines._request
        connection.lines._request = lambda line: (
            self.asked.update([line.contract.conId]),
            ask(line),
        )

    def add(self, *conids, priority=1, strategy="s"):
        for conid in conids:
            leg = make_leg(
                conid=conid, symbol="X", right="C", strike=1, expiry="20281215",
                strategy_id=strategy, added_at=utc_now(), priority=priority,
            )  # fmt: skip
            self.legs.append(leg)

    def remove(self, conid):
        self.legs = [leg for leg in self.legs if leg.conid != conid]

    async def tick(self, *, after_s=0.0):
        """Let time pass; give the conids that stream now."""
        self.now += after_s
        lines, holdings = self.connection.lines, self.connection.feed.holdings
        if self.manager.needs_allocation(lines, holdings, self.legs):
            return set(await self.manager.allocate(self.connection, holdings, self.legs))
        return set(self.manager._held)

    @property
    def streams(self):
        return set(self.connection.lines._lines)


@pytest.fixture
def at_desk(simulate, settings_for):
    @asynccontextmanager
    async def run(*, lines=100, **more):
        async with simulate(max_lines=lines) as sim:
            settings = settings_for(sim, **({"min_hold_s": 5.0, "reserved_lines": 0} | more))
            connection = await connect(settings)
            await connection.feed.snapshot()
            yield Desk(sim, connection, settings)
            await connection.close()

    return run


async def test_a_line_is_taken_over_by_a_better_priority_as_soon_as_its_hold_is_over(at_desk):
    async with at_desk(max_lines=1) as desk:
        desk.add(PUT, priority=2, strategy="slow")
        assert await desk.tick() == {PUT}
        desk.add(CALL, priority=1, strategy="condor")
        assert await desk.tick(after_s=1) == {PUT}
        assert await desk.tick(after_s=3.9) == {PUT}
        assert await desk.tick(after_s=0.1) == {CALL}
        assert desk.manager.reason_for(PUT) == " (strategy condor of priority 1 comes first)"
        assert desk.manager.reason_for(CALL, LegState.STREAMED) == " (a line is free)"
        assert desk.sim.stats()["peak_lines"] == 1


async def test_a_removed_leg_frees_its_line_and_the_waiting_one_has_it_though_the_clock_jumps(
    simulate, lake, leg, settings_for, eventually
):
    ahead = [timedelta(0)]
    async with simulate() as sim:
        settings = settings_for(sim, max_lines=1, reserved_lines=0, min_hold_s=0.5)
        streamer = IBPositionStreamer(
            lake.registry, settings=settings, clock=lambda: utc_now() + ahead[0]
        )
        await lake.registry.add_active(**leg(PUT, priority=1))
        await lake.registry.add_active(**leg(CALL, priority=2))
        await streamer.start()
        try:
            await eventually(lambda: streamer.routes.get((A, PUT)) is LegState.STREAMED)
            ahead[0] = -timedelta(hours=1)
            await lake.registry.remove_active(PUT)
            await eventually(lambda: streamer.routes[(A, CALL)] is LegState.STREAMED)
            await eventually(lambda: sim.stats()["lines_by_conid"] == {str(CALL): 1})
        finally:
            await streamer.stop()


async def test_lines_that_the_gateway_granted_are_held_for_their_time_above_a_limit_that_fell(
    at_desk, eventually, caplog
):
    async with at_desk(lines=4, max_lines=10, reserved_lines=2) as desk:
        desk.add(*ALL)
        await desk.tick()
        await eventually(lambda: desk.manager.limit == 4)
        assert len(await desk.tick(after_s=2)) == len(desk.streams) == 4
        assert "cancelMktData" not in desk.sim.stats()["requests"]["17"]
        assert len(await desk.tick(after_s=3)) == 2
        assert desk.manager.reason_for(ALL[-1]) == " (the gateway gave only 4 lines)"
        await eventually(lambda: desk.sim.stats()["lines_in_use"] == 2)
        told = [r.message for r in caplog.records if "the gateway gives" in r.message]
        assert told == ["the gateway gives 4 lines: Max number of tickers has been reached."]


async def test_a_refused_leg_is_the_one_that_comes_last(at_desk, eventually):
    async with at_desk(lines=2, max_lines=10) as desk:
        desk.add(CALL, priority=2)
        desk.add(PUT, INDEX_OPTION)
        await desk.tick()
        await eventually(lambda: desk.manager.limit == 2)
        assert desk.streams == {PUT, INDEX_OPTION}


async def test_the_learned_limit_is_probed_ever_more_rarely_and_climbs_back(at_desk, eventually):
    async with at_desk(lines=3, max_lines=10, reserved_lines=1) as desk:
        desk.add(*ALL)
        await desk.tick()
        await eventually(lambda: desk.manager.limit == 3)
        assert len(await desk.tick(after_s=59)) == 2
        refused = desk.asked.total()
        await desk.tick(after_s=1)
        await eventually(lambda: desk.manager.limit == 3)
        assert desk.asked.total() == refused + len(ALL) - 2
        await desk.tick(after_s=5)
        desk.sim.set_line_limit(10)
        assert len(await desk.tick(after_s=110)) == 2
        assert len(await desk.tick(after_s=5)) == len(ALL)
        await eventually(lambda: desk.sim.stats()["lines_in_use"] == len(ALL))
        await desk.tick(after_s=60)
        await desk.tick(after_s=60)
        assert desk.manager.limit == 10
        assert desk.sim.stats()["peak_lines"] == len(ALL)


@pytest.mark.parametrize(
    ("code", "first_s", "second_s"),
    [(354, 1800, 3600), (10089, 1800, 3600), (10168, 1800, 3600), (10197, 60, 60)],
)
async def test_a_leg_without_permission_is_asked_for_again_at_a_sensible_pace(
    at_desk, eventually, code, first_s, second_s
):
    async with at_desk() as desk:
        desk.sim.set_permission(PUT, code)
        desk.add(PUT, CALL)
        for times, wait_s in ((1, first_s), (2, second_s)):
            await desk.tick()
            await eventually(lambda: desk.streams == {CALL})
            assert desk.manager.reason_for(PUT).startswith(f" (no market data: {code} ")
            (told,) = desk.manager.problems()
            assert told.startswith(f"{PUT} has no market data: {code} ")
            assert told.endswith("UTC)")
            assert await desk.tick() == await desk.tick(after_s=wait_s - 1) == {CALL}
            assert desk.asked[PUT] == times
            desk.now += 1
        desk.sim.set_permission(PUT, None)
        assert await desk.tick() == {CALL, PUT}
        assert desk.manager.problems() == []
        await eventually(lambda: desk.sim.stats()["lines_in_use"] == 2)


@pytest.mark.parametrize(
    ("code", "wait_s"), [(354, 1800), (10089, 1800), (10168, 1800), (10197, 60)]
)
async def test_a_leg_with_delayed_data_says_so_and_is_tried_live_again(
    at_desk, eventually, code, wait_s
):
    async with at_desk(delayed_fallback=True) as desk:
        desk.sim.set_permission(PUT, code)
        desk.add(PUT)
        await desk.tick()
        await eventually(lambda: not desk.streams)
        assert await desk.tick() == {PUT}
        await eventually(lambda: desk.connection.lines.quote(PUT).market_data_type == 3)
        (told,) = desk.manager.problems()
        assert told.startswith(f"{PUT} streams delayed data: {code} ")
        assert desk.manager.reason_for(PUT, LegState.STREAMED).startswith(
            f" (delayed data: {code} "
        )
        assert await desk.tick(after_s=wait_s - 1) == {PUT}
        assert desk.asked[PUT] == 2
        await desk.tick(after_s=1)
        await eventually(lambda: not desk.streams)
        assert await desk.tick() == {PUT}
        assert desk.asked[PUT] == 4
        await eventually(lambda: desk.connection.lines.quote(PUT).market_data_type == 3)
        desk.sim.set_permission(PUT, None)
        await desk.tick(after_s=2 * wait_s)
        await eventually(lambda: desk.connection.lines.quote(PUT).mark is not None)
        assert desk.connection.lines.quote(PUT).market_data_type == 1
        assert desk.manager.problems() == []
        assert desk.sim.stats()["lines_in_use"] == desk.manager.in_use == 1
        assert desk.sim.stats()["peak_lines"] == 1


async def test_on_a_new_connection_everything_is_tried_again(at_desk, eventually):
    async with at_desk(delayed_fallback=True) as desk:
        desk.sim.set_permission(PUT, 354)
        desk.add(PUT)
        await desk.tick()
        await eventually(lambda: not desk.streams)
        desk.manager.reset()
        assert desk.manager.problems() == []
        desk.sim.set_permission(PUT, None)
        await desk.tick()
        await eventually(lambda: desk.connection.lines.quote(PUT).mark is not None)
        assert desk.connection.lines.quote(PUT).market_data_type == 1


async def test_a_leg_that_left_its_strategy_is_no_complaint_and_keeps_its_pace(at_desk, eventually):
    async with at_desk() as desk:
        desk.sim.set_permission(PUT, 354)
        desk.add(PUT)
        await desk.tick()
        await eventually(lambda: not desk.streams)
        desk.remove(PUT)
        await desk.tick()
        assert desk.manager.problems() == []
        assert (
            desk.manager.reason_for(PUT, LegState.MONITORED)
            == " (no active strategy holds it any more)"
        )
        desk.add(PUT)
        await desk.tick(after_s=60)
        assert desk.asked[PUT] == 1


async def test_a_line_that_the_gateway_lost_is_soon_asked_for_again(at_desk, eventually):
    async with at_desk() as desk:
        desk.add(PUT, CALL)
        await desk.tick()
        await eventually(lambda: desk.sim.stats()["lines_in_use"] == 2)
        request_id = desk.connection.lines._lines[PUT].request_id
        desk.sim.send_error(300, "Can't find EId with tickerId", req_id=request_id)
        await eventually(lambda: desk.streams == {CALL})
        assert desk.manager.in_use == desk.connection.lines.in_use == 1
        assert await desk.tick(after_s=5) == desk.streams == {PUT, CALL}


async def test_a_refusal_while_details_are_asked_for_is_not_overlooked(at_desk, monkeypatch):
    async with at_desk() as desk:
        desk.add(PUT)
        assert await desk.tick() == {PUT}
        details = desk.manager._contracts.details
        request_id = desk.connection.lines._lines[PUT].request_id

        async def refused_meanwhile(connection, conids):
            connection.lines._on_error(request_id, 354, "not subscribed", None)
            return await details(connection, conids)

        monkeypatch.setattr(desk.manager._contracts, "details", refused_meanwhile)
        desk.add(CALL)
        assert await desk.tick() == desk.streams == {CALL}
        assert desk.asked[PUT] == 1


ACTIVE, OTHERS, STREAMED = 250, 30, 95

MANY = """
name: many
as_of: 2028-06-01
accounts: [{name: DUSIM0001, cash: 500000}]
underlyings: [{symbol: SPY, conid: 910000001, price: 620, volatility: 0.17, exchange: ARCA}]
chains:
  - {name: spy, underlying: SPY, first_conid: 911000000, expiries: [20281215, 20290119],
     strikes: {start: 450, stop: 795, step: 5}}
positions: [{account: DUSIM0001, chain: spy, quantities: [1]}]
"""


@pytest.fixture
async def crowd(tmp_path, lake, settings_for, monkeypatch, eventually):
    """A streamer of 250 active legs, and 30 more holdings, on a login with 100 lines.

    Messages are paced ten times as fast as a gateway allows, since pace is not what is tested.
    """
    monkeypatch.setattr(login, "MAX_REQUESTS", 100)
    (tmp_path / "many.yaml").write_text(MANY)
    async with Simulator(
        load_book(tmp_path / "many.yaml"), seed=7, control_port=0, max_messages_per_s=500
    ) as sim:
        conids = sorted(row["conid"] for row in sim.positions())
        await lake.registry.add_many(
            make_leg(
                conid=conid, symbol="SPY", right="C", strike=1, expiry="20281215",
                strategy_id="s", added_at=utc_now(),
            )
            for conid in conids[:ACTIVE]
        )  # fmt: skip
        streamer = IBPositionStreamer(
            lake.registry, lake.queue, settings=settings_for(sim), contracts=lake.contracts
        )
        await streamer.start()
        yield sim, streamer, conids
        await streamer.stop()
        await eventually(lambda: sim.stats()["lines_in_use"] == 0)
        assert sim.orders_received == []


def _in_state(streamer, state):
    return {conid for (_account, conid), now in streamer.routes.items() if now is state}


async def _stats(sim):
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{sim.control_port}/stats")
        return answer.json()


async def test_250_active_legs_on_a_login_with_100_lines(crowd, lake, eventually):
    sim, streamer, conids = crowd

    async def agreed():
        stats = await _stats(sim)
        streamed = _in_state(streamer, LegState.STREAMED)
        assert stats["peak_lines"] <= STREAMED
        return (
            len(streamed) == streamer.lines_in_use == stats["lines_in_use"] == STREAMED
            and stats["lines_by_conid"] == {str(conid): 1 for conid in streamed}
            and streamed
        )

    streamed = await eventually(agreed)
    overflow = _in_state(streamer, LegState.OVERFLOW)
    assert streamed == set(conids[:STREAMED])
    assert overflow == set(conids[STREAMED:ACTIVE])
    await eventually(lambda: sim.stats()["pnl_subscriptions"] == len(overflow))

    async def queued():
        return await lake.queue.get_batch(priority=None, limit=1000, status=QueueStatus.PENDING)

    async def all_queued():
        return len(await queued()) == len(conids) - STREAMED

    await eventually(all_queued)
    first = await lake.queue.claim_batch(len(overflow))
    then = await lake.queue.claim_batch(len(conids))
    assert {request.conid for request in first} == overflow
    assert {request.conid for request in then} == set(conids[ACTIVE:])

    await lake.registry.remove_active(conids[0])
    await eventually(lambda: streamer.metrics.promotions == 1)
    streamed = await eventually(agreed)
    assert streamed == set(conids[1 : STREAMED + 1])
    assert streamer.routes[(A, conids[0])] is LegState.MONITORED
