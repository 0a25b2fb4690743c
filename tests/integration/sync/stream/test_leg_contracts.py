"""Each leg is compared with the contract of its conid, and streamed only as what it is."""

import time
from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.clock import Backoff
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.gateway.connection import connect
from position_sync_dagster.sync.stream import contracts
from tests.support.booked_legs import CALL, PUT, STOCK, A, leg
from tests.support.streams import eventually, settings_for, simulate


async def test_a_leg_with_another_strike_than_its_contract_is_not_streamed(streaming, lake):
    async with simulate() as sim:
        await lake.registry.add_active(**leg(PUT, strike=230))
        await lake.registry.add_active(**leg(CALL))
        async with streaming(sim) as (streamer, received):
            await eventually(lambda: received.newest(A, CALL))
            await eventually(lambda: streamer.detail)
            assert f"{PUT} of strategy s is not streamed" in streamer.detail
            assert "its strike is 220, not 230" in streamer.detail
            assert streamer.routes[(A, PUT)] is LegState.MONITORED
            assert sim.stats()["peak_lines"] == 1
            await lake.registry.add_active(**leg(PUT))
            await eventually(lambda: streamer.routes[(A, PUT)] is LegState.STREAMED)
            await eventually(lambda: streamer.detail is None)


async def test_a_stock_is_streamed_as_a_leg(stream_legs):
    async with stream_legs(STOCK) as (_sim, streamer, received):
        row = received.newest(A, STOCK)
        assert (row.sec_type, row.right, row.position) == ("STK", None, 200.0)
        assert streamer.routes[(A, STOCK)] is LegState.STREAMED
        assert streamer.detail is None


async def test_a_leg_that_only_old_details_contradict_is_streamed_and_the_details_renewed(
    streaming, lake
):
    async with simulate() as sim:
        connection = await connect(settings_for(sim))
        [details] = (await connection.details([PUT])).values()
        await connection.close()
        old = replace(details, symbol="OLD", trading_class="OLD")
        lake.contracts.put([replace(old, seen_at=details.seen_at - timedelta(days=9))])
        await lake.registry.add_active(**leg(PUT))
        async with streaming(sim) as (streamer, received):
            await eventually(lambda: received.newest(A, PUT))
            assert streamer.routes[(A, PUT)] is LegState.STREAMED
            assert streamer.detail is None
            await eventually(lambda: lake.contracts.get([PUT])[PUT].symbol == details.symbol)


@pytest.mark.parametrize("farm_is_away", [True, False])
async def test_a_leg_streams_as_soon_as_its_refused_details_come(
    farm_is_away, streaming, lake, monkeypatch
):
    if not farm_is_away:
        monkeypatch.setattr(contracts, "REFETCH", Backoff(first_s=1.0, longest_s=1.0))
    await lake.registry.add_active(**leg(PUT))
    async with simulate() as sim:
        sim.refuse_details(200 if farm_is_away else 100)
        if farm_is_away:
            sim.farm("secdefnj", 2157)
        async with streaming(sim) as (streamer, received):
            refused = "the gateway gave no contract details"
            await eventually(lambda: refused in (streamer.detail or ""))
            began = time.monotonic()
            sim.refuse_details(None)
            if farm_is_away:
                sim.farm("secdefnj", 2158)
            await eventually(lambda: received.newest(A, PUT))
            await eventually(lambda: streamer.routes[(A, PUT)] is LegState.STREAMED)
            assert time.monotonic() - began < 30.0
            await eventually(lambda: streamer.detail is None)
        assert lake.contracts.not_given() == {}


async def test_a_line_that_a_broken_farm_cut_is_requested_when_the_farm_is_back(streaming, lake):
    await lake.registry.add_active(**leg(PUT))
    async with simulate() as sim:
        sim.answer_line(PUT, 10182)
        async with streaming(sim) as (streamer, _received):
            await eventually(lambda: "10182" in (streamer.detail or ""))
            began = time.monotonic()
            sim.answer_line(PUT, None)
            sim.farm("usfarm", 2104)
            await eventually(lambda: streamer.routes[(A, PUT)] is LegState.STREAMED)
            assert time.monotonic() - began < 25.0


async def test_texts_of_a_gateway_in_chinese_are_readable_and_have_their_code(streaming, lake):
    async with simulate() as sim, streaming(sim) as (streamer, _received):
        await eventually(lambda: streamer.state == "LIVE")
        sim.send_error(1100, r"\u4e0eIBKR\u7684\u8fde\u63a5\u65ad\u5f00")
        await eventually(lambda: streamer.state == "BLIND")
        assert "与IBKR的连接断开 (code 1100)" in streamer.detail
