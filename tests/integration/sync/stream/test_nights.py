"""Steady nights: what is requested and written while nothing happens."""

import pytest

from position_sync_dagster.domain.clock import Backoff
from position_sync_dagster.gateway.codes import GatewayCode
from position_sync_dagster.sync.stream import contracts
from tests.integration.sync.conftest import CALL, PUT, STOCK, A

LEGS = (CALL, PUT, STOCK)
QUOTE = {"bid": 9.9, "ask": 10.1, "mark": 10.0}
QUIET = {"line_silence_s": 0.5, "pnl_subscriptions": 0}


def requests(sim):
    return sim.stats()["requests"]["17"]["reqMktData"]


@pytest.fixture
def stand_still(eventually):
    """Pin each leg to a quote, wait until that is known, and stop the ticks."""

    async def wait(sim, received):
        for conid in LEGS:
            sim.pin_quote(conid, **QUOTE)
        for conid in LEGS:
            await eventually(
                lambda c=conid: (row := received.newest(A, c)) and row.market_price == 10.0
            )
        sim.freeze()
        return requests(sim)

    return wait


async def test_while_another_session_has_the_data_one_line_is_requested_for_all(
    stream_legs, eventually, stand_still, monkeypatch
):
    waits = {GatewayCode.COMPETING_SESSION: Backoff(first_s=0.5, longest_s=2.0)}
    monkeypatch.setattr(contracts, "RETRY_WAITS", waits)
    async with stream_legs(*LEGS, min_hold_s=0.1) as (sim, streamer, received):
        before = await stand_still(sim, received)
        sim.set_permission(code=10197)
        for tried in (1, 2, 3):
            await eventually(lambda tried=tried: requests(sim) > before + tried - 1)
            assert requests(sim) == before + tried
        assert streamer.lines_in_use <= 1
        sim.set_permission()
        await eventually(lambda: sim.stats()["lines_in_use"] == streamer.lines_in_use == 3)
        assert requests(sim) <= before + 7
        await eventually(lambda: streamer.detail is None)


async def test_quiet_lines_that_another_farm_interrupted_are_requested_again(
    stream_legs, eventually, stand_still
):
    async with stream_legs(*LEGS, **QUIET) as (sim, streamer, received):
        before = await stand_still(sim, received)
        sim.farm("cashfarm", 2103)
        await eventually(lambda: requests(sim) >= before + 3)
        await eventually(lambda: streamer.detail == "data farm cashfarm is broken")
        assert received.newest(A, PUT).note is None
