"""When lines are requested again: in the session of their contract, and beside another session."""

import asyncio

from position_sync_dagster.domain.position_update import ValueOrigin
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.domain.valuation import OUTSIDE_SESSION
from position_sync_dagster.gateway.codes import GatewayCode
from tests.support.booked_legs import CALL, PUT, STOCK, A
from tests.support.streams import eventually, offline, requests

# Longer than a busy machine keeps a line that ticks from being read.
SILENCE_S = 1.0

# What must not happen cannot be waited for.
MANY_SILENCES_S = 3 * SILENCE_S


async def test_outside_the_session_silent_lines_are_left_alone_until_it_opens(stream_legs):
    quick = {"line_silence_s": SILENCE_S, "pnl_subscriptions": 0, "row_interval_s": 0.3}
    async with stream_legs(CALL, PUT, **quick) as (sim, streamer, received):
        await close(sim, streamer)
        sim.after_restore("dead")
        await offline(sim, streamer)
        await asyncio.sleep(MANY_SILENCES_S)
        assert requests(sim, "reqMktData") == 2
        assert streamer.detail is None
        before = len(received.updates)
        await open_again(sim, streamer)
        await eventually(lambda: requests(sim, "reqMktData") == 4)
        for conid in (CALL, PUT):
            await eventually(lambda c=conid: has_ticked(received.updates[before:], c))


async def test_outside_the_session_a_price_stays_and_says_so(stream_legs):
    quick = {"line_silence_s": SILENCE_S, "pnl_subscriptions": 0, "row_interval_s": 0.3}
    async with stream_legs(CALL, PUT, **quick) as (sim, streamer, received):
        before = len(received.updates)
        await close(sim, streamer)
        await asyncio.sleep(MANY_SILENCES_S)
        assert requests(sim, "reqMktData") == 2
        assert {row.value_source for row in received.updates[before:]} == {ValueOrigin.TICK}
        newest = {received.newest(A, conid).note for conid in (CALL, PUT)}
        assert newest == {OUTSIDE_SESSION}


async def close(sim, streamer):
    """Close every session, as the simulator says it and as the streamer has read it."""
    sim.set_hours(None, "CLOSED")
    await _read_hours(streamer, "CLOSED")


async def open_again(sim, streamer):
    """Open every session around the clock."""
    sim.set_hours(None)
    await _read_hours(streamer, "0000-")


async def _read_hours(streamer, expected):
    """Read the hours of the lines now; the streamer does so when the listed days are over."""
    details = await streamer._link.connection.details(streamer._router.lines.held)
    assert all(f":{expected}" in detail.trading_hours for detail in details.values())
    streamer._router.contracts.take(details)


def has_ticked(rows, conid):
    return any(row.conid == conid and row.value_source is ValueOrigin.TICK for row in rows)


async def test_while_another_session_has_the_data_each_line_is_requested_after_its_wait(
    stream_legs,
):
    waits = {GatewayCode.COMPETING_SESSION: Backoff(first_s=0.5, longest_s=2.0)}
    stream = stream_legs(CALL, PUT, STOCK, min_hold_s=0.1, retry_waits=waits)
    async with stream as (sim, streamer, _received):
        before = requests(sim, "reqMktData")
        sim.set_permission(code=10197)
        await eventually(lambda: requests(sim, "reqMktData") >= before + 6)
        await eventually(lambda: "10197" in (streamer.detail or ""))
        sim.set_permission()
        await eventually(lambda: sim.stats()["lines_in_use"] == streamer.lines_in_use == 3)
        await eventually(lambda: streamer.detail is None)
