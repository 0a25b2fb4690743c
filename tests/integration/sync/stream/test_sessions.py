"""Silent lines are requested again while the session of their contract is open, and only then."""

import asyncio
from dataclasses import replace

from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.update import ValueOrigin
from tests.integration.sync.conftest import CALL, PUT, A
from tests.support.contracts import contract_details


async def test_outside_the_session_silent_lines_are_left_alone(stream_legs, eventually):
    closed = {"line_silence_s": 0.5, "pnl_subscriptions": 0, "row_interval_s": 0.3}
    async with stream_legs(CALL, **closed) as (sim, streamer, received):
        await eventually(lambda: received.newest(A, CALL))
        assert sim.stats()["requests"]["17"]["reqMktData"] == 1
        sim.set_hours(None, "CLOSED")
        await streamer._contracts.remember([await _listed_now(streamer, CALL)])
        sim.connectivity("lost")
        await eventually(lambda: streamer.state is SessionState.BLIND)
        sim.connectivity("restored_data_kept")
        await eventually(lambda: streamer.state is SessionState.LIVE)
        await asyncio.sleep(2.0)  # what must not happen cannot be waited for
        assert sim.stats()["requests"]["17"]["reqMktData"] == 1
        assert streamer.detail is None
        sim.set_hours(None)
        await eventually(lambda: received.newest(A, CALL).value_source is ValueOrigin.TICK)


async def _listed_now(streamer, conid):
    found = await streamer._link.connection.details([conid])
    assert ":CLOSED" in found[conid].trading_hours
    return found[conid]


async def test_hours_of_days_that_are_over_are_fetched_again(stream_legs, lake, eventually):
    async with stream_legs(CALL) as (_sim, streamer, received):
        await eventually(lambda: received.newest(A, CALL))
        fresh = (await lake.contracts.get([CALL]))[CALL]
        old = "20260105:0930-20260105:1600"
        await streamer._contracts.remember([replace(fresh, trading_hours=old)])
        await eventually(lambda: _hours(lake, CALL, fresh.trading_hours))


async def test_a_contract_that_an_older_release_stored_is_fetched_again_once(
    simulate, streaming, lake, leg, eventually
):
    old = contract_details(CALL, valid_exchanges=None, expires_on=None, trading_hours=None)
    await lake.contracts.put([old])
    await lake.registry.add_active(**leg(CALL))
    await lake.registry.add_active(**leg(PUT))
    async with simulate() as sim:
        for times in (1, 2):
            async with streaming(sim) as (_streamer, received):
                await eventually(lambda: received.newest(A, CALL))
                # every contract of the book that is held or a leg has been asked for
                await eventually(lambda: _known(lake, 9))
                await eventually(lambda: _hours(lake, CALL, None, other=True))
                assert sim.stats()["requests"]["17"]["reqContractDetails"] == 8, times
        assert (await lake.contracts.get([CALL]))[CALL].valid_exchanges.startswith("SMART")


async def _known(lake, at_least):
    return len(await lake.contracts.get()) >= at_least - 1


async def _hours(lake, conid, expected, *, other=False):
    hours = (await lake.contracts.get([conid]))[conid].trading_hours
    return (hours != expected) is other
