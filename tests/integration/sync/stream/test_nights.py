"""Steady nights: what is requested and written while nothing happens."""

import asyncio
from datetime import timedelta

import pytest

from position_sync_dagster.domain import login_lines, streamed_holding
from position_sync_dagster.domain.clock import Backoff
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.gateway.codes import GatewayCode
from position_sync_dagster.gateway.market_data_lines import MarketDataLines
from position_sync_dagster.sync.stream import lines
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


async def test_a_steady_gap_to_the_broker_is_confirmed_once_and_named_in_the_note(
    stream_legs, eventually, monkeypatch
):
    monkeypatch.setattr(streamed_holding, "SETTLE", timedelta(seconds=0.5))
    async with stream_legs(*LEGS, simulator={"pnl_interval_s": 0.1}) as (sim, _, received):
        sim.pin_quote(CALL, **QUOTE)
        await eventually(
            lambda: (
                (row := received.newest(A, CALL))
                and row.market_price == 10.0
                and row.daily_pnl is not None
            )
        )
        sim.broker_price(CALL, 1.05)
        row = await eventually(
            lambda: (row := received.newest(A, CALL)) and "confirmed" in (row.note or "") and row
        )
        assert (row.market_price, row.value_source) == (10.0, ValueOrigin.TICK)
        assert row.note.startswith(f"the broker's value differs: {row.market_value * 1.05:,.2f} ")
        assert requests(sim) == 4
        await asyncio.sleep(2)  # what must not happen cannot be waited for
        assert requests(sim) == 4
        assert received.newest(A, CALL).note == row.note
        sim.broker_price(CALL)
        await eventually(lambda: received.newest(A, CALL).note is None)


async def test_a_probe_that_opens_with_another_fourth_decimal_suspects_no_other_line(
    stream_legs, eventually, stand_still, monkeypatch
):
    requested, switch = [], MarketDataLines.switch

    def record(self, conid, **kind):
        requested.append(conid)
        switch(self, conid, **kind)

    monkeypatch.setattr(MarketDataLines, "switch", record)
    monkeypatch.setattr(login_lines, "RENEWAL", Backoff(first_s=0.1, longest_s=0.1))
    async with stream_legs(*LEGS, **QUIET) as (sim, _streamer, received):
        await stand_still(sim, received)
        for conid in LEGS:
            sim.pin_quote(conid, **QUOTE | {"mark": 10.0004})
        await eventually(lambda: len(requested) >= 2)
        assert len(set(requested[:2])) == 1  # two probes of the same line
        assert {row.note for row in received.updates} == {None}


async def test_while_another_session_has_the_data_one_line_is_requested_for_all(
    stream_legs, eventually, stand_still, monkeypatch
):
    waits = {GatewayCode.COMPETING_SESSION: Backoff(first_s=0.5, longest_s=2.0)}
    monkeypatch.setattr(lines, "RETRY_WAITS", waits)
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


async def test_outside_the_session_an_unchanged_holding_has_few_rows_and_no_time_of_a_reconnect(
    simulate, streaming, lake, leg, eventually
):
    async with simulate() as sim:
        sim.set_hours(hours="CLOSED")
        await lake.registry.add_active(**leg(PUT))
        async with streaming(sim, row_interval_s=0.2, pnl_subscriptions=0) as (_, received):
            row = await eventually(
                lambda: (row := received.newest(A, PUT)) and row.value_source == "TICK" and row
            )
            assert (row.note, row.value_time) == ("outside the trading session", None)
            count = len(received.updates)
            await asyncio.sleep(2)  # what must not happen cannot be waited for
            assert len(received.updates) == count
            sim.set_hours()


async def test_quiet_lines_that_another_farm_interrupted_are_requested_again(
    stream_legs, eventually, stand_still
):
    async with stream_legs(*LEGS, **QUIET) as (sim, streamer, received):
        before = await stand_still(sim, received)
        sim.farm("cashfarm", 2103)
        await eventually(lambda: requests(sim) >= before + 3)
        await eventually(lambda: streamer.detail == "data farm cashfarm is broken")
        assert received.newest(A, PUT).note is None
