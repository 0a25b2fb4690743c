"""Data farms: known from the log-in on, and by their whole names."""

from tests.integration.sync.conftest import PUT, A


async def test_a_farm_that_is_broken_at_the_log_in_is_known(
    simulate, streaming, lake, leg, eventually
):
    async with simulate() as sim:
        sim.farm("usfarm", 2103)
        await lake.registry.add_active(**leg(PUT))
        async with streaming(sim) as (streamer, _received):
            await eventually(lambda: streamer.detail)
            assert streamer.detail == "data farm usfarm is broken"
            sim.farm("usfarm", 2104)
            await eventually(lambda: streamer.detail is None)


async def test_farms_whose_names_end_alike_are_two_farms(stream_legs, eventually):
    async with stream_legs(PUT) as (sim, streamer, received):
        await eventually(lambda: received.newest(A, PUT))
        sim.farm("usfarm.nj", 2103)
        await eventually(lambda: streamer.detail)
        sim.farm("hfarm.nj", 2104)
        sim.farm("eufarm.nj", 2108)
        sim.farm("ushmds.nj", 2105)
        await eventually(lambda: "ushmds" in streamer.detail)
        assert streamer.detail == ("data farm usfarm.nj is broken; data farm ushmds.nj is broken")
        sim.farm("usfarm.nj", 2108)
        sim.farm("ushmds.nj", 2106)
        await eventually(lambda: streamer.detail is None)
