"""Each leg is compared with the contract of its conid, and streamed only as what it is."""

from position_sync_dagster.domain.leg import LegState
from tests.integration.sync.conftest import CALL, PUT, STOCK, UNHELD, A


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
        assert UNHELD in lake.contracts.get([UNHELD])


async def test_a_stock_is_streamed_as_a_leg(stream_legs, eventually):
    async with stream_legs(STOCK) as (_sim, streamer, received):
        row = await eventually(lambda: received.newest(A, STOCK))
        assert (row.sec_type, row.right, row.position) == ("STK", None, 200.0)
        assert streamer.routes[(A, STOCK)] is LegState.STREAMED
        assert streamer.detail is None
