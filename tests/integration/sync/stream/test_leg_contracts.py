"""Each leg is compared with the contract of its conid, and streamed only as what it is."""

from dataclasses import replace
from datetime import timedelta

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.gateway.connection import connect
from tests.integration.sync.conftest import CALL, PUT, STOCK, UNHELD, A
from tests.support.booked_legs import holding_only


async def test_a_leg_with_another_strike_than_its_contract_is_not_streamed(
    simulate, streaming, lake, leg, eventually
):
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


async def test_a_leg_that_nobody_holds_is_compared_too(stream_legs, lake, leg, eventually):
    async with stream_legs(CALL) as (_sim, streamer, _received):
        await lake.registry.add_active(**leg(UNHELD, right="P"))
        await eventually(lambda: streamer.detail)
        assert "its right is CALL, not PUT" in streamer.detail
        await eventually(lambda: UNHELD in lake.contracts.get([UNHELD]))


async def test_the_details_of_a_leg_that_is_added_are_read_from_the_table(
    simulate, settings_for, streaming, lake, leg, eventually
):
    # The details of other holdings would be requested meanwhile.
    async with simulate(holding_only(CALL)) as sim:
        connection = await connect(settings_for(sim))
        lake.contracts.put((await connection.details([UNHELD])).values())
        await connection.close()
        await lake.registry.add_active(**leg(CALL))
        async with streaming(sim) as (streamer, received):
            await eventually(lambda: received.newest(A, CALL))
            before = sim.stats()["requests"]["17"]["reqContractDetails"]
            await lake.registry.add_active(**leg(UNHELD, right="P"))
            await eventually(lambda: streamer.detail)
            assert "its right is CALL, not PUT" in streamer.detail
            assert sim.stats()["requests"]["17"]["reqContractDetails"] == before


async def test_a_stock_is_streamed_as_a_leg(stream_legs, eventually):
    async with stream_legs(STOCK) as (_sim, streamer, received):
        row = await eventually(lambda: received.newest(A, STOCK))
        assert (row.sec_type, row.right, row.position) == ("STK", None, 200.0)
        assert streamer.routes[(A, STOCK)] is LegState.STREAMED
        assert streamer.detail is None


async def test_a_leg_that_only_old_details_contradict_is_streamed_and_the_details_renewed(
    simulate, settings_for, streaming, lake, leg, eventually, caplog
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
        assert lake.contracts.get([PUT])[PUT].symbol == details.symbol
    assert f"the details of contract {PUT} are fetched again: strategy s differs" in caplog.text


async def test_details_that_the_brokers_row_contradicts_are_fetched_again(
    simulate, settings_for, streaming, lake, leg, eventually, caplog
):
    async with simulate() as sim:
        connection = await connect(settings_for(sim))
        [details] = (await connection.details([PUT])).values()
        await connection.close()
        old = replace(details, local_symbol="OLD", seen_at=details.seen_at - timedelta(days=9))
        lake.contracts.put([old])
        await lake.registry.add_active(**leg(PUT))
        async with streaming(sim) as (_streamer, received):
            await eventually(lambda: received.newest(A, PUT))

            async def are_renewed():
                return lake.contracts.get([PUT])[PUT].local_symbol == details.local_symbol

            await eventually(are_renewed)
    assert "the broker's row says that its local symbol is" in caplog.text
