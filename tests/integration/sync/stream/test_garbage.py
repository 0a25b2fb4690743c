"""A gateway that sends garbage: it is logged once, nothing ends, and no wrong row is written."""

import asyncio
import struct

import pytest

from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import GatewayTimeoutError
from position_sync_dagster.gateway import connection
from position_sync_dagster.gateway.connection import IBConnectionManager
from tests.support.booked_legs import PUT
from tests.support.messages import frame
from tests.support.streams import eventually, settings_for, simulate, updates_continue

UNREADABLE = "sent a message that cannot be read"
GIVEN_UP = "a message has been incomplete"


@pytest.mark.parametrize(
    ("garbage", "expected"),
    [
        (frame("garbage", "DUSIM0001", 12.5), "type 'garbage'"),
        (struct.pack(">I", 8) + b"\xff\xfe\x00\x80abcd", "cannot be read"),
        (frame(999, 1, 2), "type '999', KeyError"),
        (frame(7, 8, PUT, "DUSIM0001"), "type '7', ValueError"),
        (frame(1, 6, 1), "type '1', ValueError"),
    ],
    ids=["text", "binary", "unknown type", "short", "short tick"],
)
async def test_a_message_that_cannot_be_read_is_left_out_and_logged_once(
    stream_legs, caplog, garbage, expected
):
    async with stream_legs(PUT) as (sim, streamer, received):
        for _ in range(50):
            sim.send_raw(garbage)
        await updates_continue(streamer, received)
        assert streamer.counts.reconnects == 0
        lines = [r.getMessage() for r in caplog.records if UNREADABLE in r.getMessage()]
        assert len(lines) == 1
        assert expected in lines[0]
        assert "DUSIM0001" not in lines[0]
        assert "Traceback" not in caplog.text
        assert not [r for r in caplog.records if r.name == "ib_async.Decoder"]


async def test_ticks_of_requests_that_nobody_made_write_no_log(stream_legs, caplog):
    async with stream_legs(PUT) as (sim, streamer, received):
        for _ in range(50):
            sim.send_raw(frame(1, 6, 7777, 1, 1.5, 3, 0) + frame(2, 6, 7777, 8, 12))
            sim.send_raw(frame(45, 6, 7777, 49, 0.0) + frame(46, 6, 7777, 45, "1772463600"))
            sim.send_raw(frame(58, 1, 7777, 1) + frame(81, 7777, 0.01, "", 3))
        await updates_continue(streamer, received)
        assert streamer.counts.reconnects == 0
        assert "7777" not in caplog.text


@pytest.mark.parametrize(
    "garbage",
    [
        frame(61, 3, "DUSIM0001"),
        frame(61, 3, "DUSIM0001") + 2 * frame(62, 1),
        frame("garbage") + 2 * frame(62, 1),
        frame() + 2 * frame(62, 1),
    ],
    ids=["cut", "cut, and a second end", "text", "empty"],
)
async def test_positions_of_which_one_cannot_be_read_are_no_snapshot(garbage):
    async with simulate() as sim:
        manager = IBConnectionManager(settings_for(sim, gateway_timeout_s=0.5))
        held = await manager.get_connection()
        await held.feed.snapshot()
        before = {h.key: h.position for h in held.feed.book.holdings}
        sim.send_raw(garbage)
        with pytest.raises(GatewayTimeoutError, match="did not send the whole list of positions"):
            await held.feed.snapshot()
        assert {h.key: h.position for h in held.feed.book.holdings} == before
        again = await manager.get_connection()
        assert again is not held
        await again.feed.snapshot()
        await manager.close()


@pytest.mark.parametrize(
    "half", ["000fffff39", "00f00000", "0000"], ids=["the longest length", "15 MB", "half a length"]
)
async def test_half_a_message_ends_the_connection_even_if_others_follow(stream_legs, caplog, half):
    async with stream_legs(PUT, gateway_silence_s=0.4) as (sim, streamer, received):
        sim.send_raw(bytes.fromhex(half))
        await eventually(lambda: streamer.counts.reconnects == 1)
        await updates_continue(streamer, received)
        assert f"is given up: {GIVEN_UP}" in caplog.text


async def test_half_a_message_ends_the_connection_even_if_nothing_follows(stream_legs, caplog):
    stream = stream_legs(PUT, gateway_timeout_s=0.5, gateway_silence_s=0.4)
    async with stream as (sim, streamer, received):
        sim.send_raw(bytes.fromhex("0000004036"))
        sim.pause()
        await eventually(lambda: streamer.state is SessionState.BLIND)
        sim.resume()
        await updates_continue(streamer, received)
        assert GIVEN_UP in caplog.text


async def test_a_gateway_that_sends_only_garbage_is_disconnected(stream_legs, caplog, monkeypatch):
    stream = stream_legs(PUT, gateway_timeout_s=0.5, gateway_silence_s=0.3)
    async with stream as (sim, streamer, received):
        send = connection.IB.reqCurrentTimeAsync
        monkeypatch.setattr(connection.IB, "reqCurrentTimeAsync", _never)
        sim.freeze()

        async def left():
            sim.send_raw(frame("garbage"))
            return streamer.counts.reconnects

        await eventually(left)
        monkeypatch.setattr(connection.IB, "reqCurrentTimeAsync", send)
        sim.freeze(False)
        await updates_continue(streamer, received)
        assert "it has not answered" in caplog.text


async def _never(_ib):
    await asyncio.Event().wait()


async def test_a_quiet_market_ends_no_connection(stream_legs):
    async with stream_legs(PUT, gateway_silence_s=0.2) as (sim, streamer, received):
        sim.freeze()
        await asyncio.sleep(1.0)  # what must not happen cannot be waited for
        sim.freeze(False)
        await updates_continue(streamer, received)
        assert streamer.counts.reconnects == 0
