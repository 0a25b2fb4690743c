"""The stream on a recording, of the tests or of a real gateway (`--recording FILE`).

Whatever was recorded, the stream invents nothing: no close that was not told, no value of a holding
that nobody has, and at the end the positions that the gateway told last.
"""

import pytest

from ib_gateway_simulator.recordings.entry import Message
from ib_gateway_simulator.recordings.recording import load_recording
from ib_gateway_simulator.replay.server import Replay
from tests.support.recorded_session import SMALL, held_in, legs_of
from tests.support.waiting import eventually


@pytest.fixture
def recording(request):
    return load_recording(request.config.getoption("--recording") or SMALL)


def told(recording):
    """Return every position that was told, by holding."""
    found = {}
    for entry in recording.entries:
        match entry:
            case Message(name="position", fields=fields) if fields:
                found.setdefault((fields[2], int(fields[3])), set()).add(float(fields[14]))
            case Message(name="updatePortfolio", fields=fields) if fields:
                found.setdefault((fields[19], int(fields[2])), set()).add(float(fields[13]))
    return found


async def test_a_recorded_day_ends_with_the_recorded_positions(recording, streaming, lake):
    legs = legs_of(recording)
    assert legs
    await lake.registry.add_many(legs)
    streamed = {leg.conid for leg in legs}
    last = {key: held for key, held in held_in(recording).items() if key[1] in streamed}
    known = told(recording)
    connections = sum(getattr(e, "name", "") == "startApi" for e in recording.entries)
    async with Replay(recording, speed=4.0) as replay:
        async with streaming(replay, refresh_interval_s=600.0) as (streamer, received):

            def newest():
                rows = [received.newest(*key) for key in last]
                return {(r.account, r.conid): r.position for r in rows if r is not None}

            await eventually(lambda: replay.is_over)
            held = {key: position for key, position in last.items() if position}
            await eventually(lambda: newest().items() >= held.items())
            await eventually(lambda: set(held) <= streamer.routes.keys())
            await eventually(lambda: streamer.counts.reconnects >= connections - 1)
        assert replay.stats.orders == []
    assert received.updates
    for row in received.updates:
        assert row.position in known[row.account, row.conid]
