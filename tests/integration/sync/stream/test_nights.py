"""Steady nights: what is requested while nothing happens."""

from position_sync_dagster.domain.clock import Backoff
from position_sync_dagster.gateway.codes import GatewayCode
from position_sync_dagster.sync.stream import contracts
from tests.support.booked_legs import CALL, PUT, STOCK
from tests.support.streams import eventually


def requests(sim):
    return sim.stats()["requests"]["17"]["reqMktData"]


async def test_while_another_session_has_the_data_one_line_is_requested_for_all(
    stream_legs, monkeypatch
):
    waits = {GatewayCode.COMPETING_SESSION: Backoff(first_s=0.5, longest_s=2.0)}
    monkeypatch.setattr(contracts, "RETRY_WAITS", waits)
    async with stream_legs(CALL, PUT, STOCK, min_hold_s=0.1) as (sim, streamer, _received):
        sim.freeze()
        before = requests(sim)
        sim.set_permission(code=10197)
        for tried in (1, 2, 3):
            await eventually(lambda tried=tried: requests(sim) > before + tried - 1)
            assert requests(sim) == before + tried
        assert streamer.lines_in_use <= 1
        sim.set_permission()
        await eventually(lambda: sim.stats()["lines_in_use"] == streamer.lines_in_use == 3)
        assert requests(sim) <= before + 7
        await eventually(lambda: streamer.detail is None)
