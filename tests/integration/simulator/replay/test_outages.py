"""An outage of the recorded gateway is played too: clients are cut for as long."""

from dataclasses import replace

import pytest

from ib_gateway_simulator.recordings.entry import Closed
from ib_gateway_simulator.recordings.recording import load_recording
from ib_gateway_simulator.replay.server import Replay
from tests.support.raw_client import RawClient
from tests.support.recorded_session import SMALL
from tests.support.waiting import eventually


async def log_in(port):
    """Return whether a client that connects now is let in."""
    raw = RawClient()
    await raw.open(port)
    raw.greet()
    raw.send(71, 2, 4, "")
    await eventually(lambda: raw.closed.is_set() or raw.of(9))
    let_in = bool(raw.of(9))
    return raw if let_in else await raw.close()


@pytest.fixture
def recording():
    return load_recording(SMALL)


def longer(recording, down_s):
    """Return the recording with a longer outage between its two connections."""
    cut = next(e for e in recording.entries if isinstance(e, Closed))
    later = [
        replace(e, at_s=e.at_s + down_s) if e.at_s > cut.at_s and e.connection > 1 else e
        for e in recording.entries
    ]
    return replace(recording, entries=tuple(later))


async def test_clients_are_cut_while_the_recorded_gateway_was_down(recording):
    async with Replay(longer(recording, 1e6), speed=1000.0, patience_s=0.01) as replay:
        raw = await log_in(replay.port)
        await raw.wait_closed()
        await raw.close()
        for _ in range(3):
            assert await log_in(replay.port) is None
        assert replay.left == 1


async def test_the_next_connection_is_played_after_the_outage(recording):
    async with Replay(recording, speed=10.0, patience_s=0.01) as replay:
        raw = await log_in(replay.port)
        await raw.wait_closed()
        await raw.close()
        again = None

        async def is_let_in():
            nonlocal again
            again = await log_in(replay.port)
            return again is not None

        await eventually(is_let_in)
        assert replay.left == 0
        await again.close()
