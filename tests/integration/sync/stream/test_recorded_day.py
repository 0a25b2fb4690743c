"""The stream on a recording, of the tests or of a real gateway (`--recording FILE`).

Whatever was recorded, the stream invents nothing: no close that was not told, no value of a holding
that nobody has, and at the end the positions that the gateway told last.
"""

import pytest

from ib_gateway_simulator.recordings.recording import load_recording
from ib_gateway_simulator.replay.server import Replay
from tests.support.recorded_session import SMALL, legs_of, told_in
from tests.support.waiting import eventually


@pytest.fixture
def recording(request):
    return load_recording(request.config.getoption("--recording") or SMALL)


async def test_a_recorded_day_ends_with_the_recorded_positions(recording, streaming, lake):
    legs = legs_of(recording)
    assert legs
    await lake.registry.add_many(legs)
    streamed = {leg.conid for leg in legs}
    known = told_in(recording)
    last = {key: told[-1] for key, told in known.items() if key[1] in streamed}
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
