"""A recording is played again: to a client that does the same, and to one that does not."""

import asyncio
import json
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import pytest

from ib_gateway_simulator.recording.proxy import Proxy
from ib_gateway_simulator.recording.recorder import Recorder
from ib_gateway_simulator.recordings.entry import Closed, Message
from ib_gateway_simulator.recordings.recording import load_recording
from ib_gateway_simulator.replay.server import Replay
from tests.support.raw_client import RawClient, logged_in
from tests.support.recorded_session import SMALL
from tests.support.waiting import DEADLINE_S, eventually

A = "DUSIM0001"
B = "DUSIM0002"
CALL = 921000001
PUT = 921000002


@pytest.fixture
async def session(simulate, recorded):
    """Record a session with faults and a cut, and return the path of its recording."""
    async with simulate(tick_interval_s=0.02) as sim, recorded(sim.port) as proxy:
        raw = await logged_in(proxy.port)
        await raw.positions()
        await raw.download(A)
        raw.contract_details(11, CALL)
        await raw.wait_id(52)
        for req_id, conid in ((21, CALL), (22, PUT)):
            raw.market_data(req_id, conid, ticks="232")

        raw.send(94, 31, A, "", CALL)
        await raw.wait_id(95)
        await raw.wait_id(1, having={2: 22, 3: 37})
        raw.market_data(23, 999)
        await raw.wait_error(200, 23)
        sim.connectivity("lost")
        await raw.wait_error(1100)
        sim.connectivity("restored_data_kept")

        await raw.wait_error(1102)
        sim.fill(A, CALL, -1)
        sim.send_error(399, "an odd notice about 12 things")
        await raw.wait_error(399)
        raw.send(2, 2, 21)
        await raw.barrier()
        sim.disconnect()
        await raw.wait_closed()

        again = await logged_in(proxy.port)
        await again.positions()
        again.market_data(7, PUT)
        await again.wait_id(1, having={2: 7})
        await again.close()
        await raw.close()
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
    return proxy.path


class Puppet:
    """A client that sends what a recording says, as soon as it got what came before."""

    def __init__(self, port, entries):
        self.port = port
        self.entries = entries

    async def run(self):
        numbers = sorted({entry.connection for entry in self.entries})
        for number in numbers:
            await self._connection([e for e in self.entries if e.connection == number])

    async def _connection(self, entries):
        raw = RawClient()
        await raw.open(self.port)
        received = 0
        for entry in entries:
            if isinstance(entry, Message) and entry.sender == "gateway":
                received += 1
                continue

            async with asyncio.timeout(DEADLINE_S):
                while len(raw.messages) < received:
                    await asyncio.sleep(0.001)
            if isinstance(entry, Closed):
                await (raw.close() if entry.by == "client" else raw.wait_closed())
            elif isinstance(entry, Message) and entry.name == "versionOffer":
                raw.greet(entry.fields[0])
            elif isinstance(entry, Message):
                raw.send(*entry.fields)
        await raw.close()


class RecordedClock:
    """The clock of a second recording: the times of the first one, entry by entry."""

    def __init__(self, recording):
        self._times = iter([0.0, *(entry.at_s for entry in recording.entries)])

    def __call__(self):
        return next(self._times, 0.0)


@asynccontextmanager
async def replayed(path, *, cut=True, **options):
    """Play a recording, with or without the cuts by the gateway."""
    recording = load_recording(path)
    if not cut:
        entries = [e for e in recording.entries if not isinstance(e, Closed)]
        recording = replace(recording, entries=tuple(entries))
    started = recording.header.started_at.timestamp()
    # The wall clock stands at the beginning of the recording: no time in it is moved.
    options.setdefault("now", lambda: started)
    options.setdefault("patience_s", DEADLINE_S)
    async with Replay(recording, **options) as replay:
        yield replay


async def test_a_replay_through_the_recorder_gives_the_same_recording_to_the_byte(
    session, tmp_path
):
    first = load_recording(session)
    names = [e.name for e in first.entries if isinstance(e, Message)]
    assert {"position", "updatePortfolio", "tickPrice", "pnlSingle", "error"} <= set(names)
    started: datetime = first.header.started_at
    now = started.timestamp()

    class Still(Replay):
        """A replay whose recorded connections all begin now: it moves no time."""

        def log_in(self, client, client_id):
            at_s = self._waiting[0].started_at_s
            self.now = lambda: now + at_s
            return super().log_in(client, client_id)

    again = tmp_path / "again.ibrec"
    clock = RecordedClock(first)
    async with Still(first, patience_s=DEADLINE_S) as replay:
        with Recorder(
            again, keep_quantities=True, monotonic=clock, now=lambda: started
        ) as recorder:
            async with Proxy(recorder, ("127.0.0.1", replay.port)) as proxy:
                await Puppet(proxy.port, first.entries).run()
                await eventually(lambda: recorder.entries >= len(first.entries))
        assert replay.unmade == 0
    expected = session.read_text().replace('"quantities":"replaced"', '"quantities":"kept"')
    assert again.read_text().splitlines() == expected.splitlines()


async def test_request_ids_of_another_client_are_mapped(session):
    async with replayed(session, cut=False) as replay:
        raw = await logged_in(replay.port, client_id=9)
        await raw.positions()
        raw.send(6, 2, 1, A)
        raw.contract_details(501, CALL)
        row = await raw.wait_id(10)
        assert row[1] == "501"
        assert row[12] == str(CALL)

        raw.market_data(602, PUT)  # in another order, with another id
        raw.market_data(601, CALL)
        raw.send(94, 701, A, "", CALL)
        raw.market_data(603, 999)
        assert (await raw.wait_error(200, 603))[2] == "603"
        for req_id in (601, 602):
            await raw.wait(lambda m, req_id=req_id: m[0] == "1" and m[2] == str(req_id))
        await raw.wait_id(95, having={1: 701})
        await raw.wait_error(1102)
        ids = {m[2] for m in raw.messages if m[0] in ("1", "2", "45", "46")}
        assert ids == {"601", "602"}
        await raw.close()


async def test_what_was_not_recorded_is_answered_from_what_is_known_or_refused_by_name(session):
    async with replayed(session, cut=False, patience_s=0.1) as replay:
        raw = await logged_in(replay.port)
        await raw.positions()
        await raw.download(A)
        await raw.wait_error(399)
        first = [m[2:] for m in raw.of(61)]
        since = await raw.barrier()
        await raw.positions()
        listed = {(m[2], m[3]): m[14] for m in raw.of(61, since=since)}
        assert listed.keys() == {(m[0], m[1]) for m in first}  # none is missing

        since = await raw.barrier()
        await raw.download(A)
        assert len(raw.of(7, since=since)) >= 6
        raw.send(6, 2, 1, B)  # never downloaded: no end may come
        raw.send(20, 88, CALL)
        for name in ("reqAccountUpdates", "reqHistoricalData"):
            text = f"the recording has no answer to {name}."
            await raw.wait(lambda m, text=text: m[0] == "4" and text in m[4])
        assert [m[2] for m in raw.of(54)] == [A, A]
        raw.send(3, 5, CALL)
        assert "takes no orders" in (await raw.wait_error(321, 5))[4]
        await raw.close()


async def test_a_late_request_gets_at_once_what_it_missed(session):
    async with replayed(session, cut=False, patience_s=0.01) as replay:
        raw = await logged_in(replay.port)
        await raw.wait_error(1102)
        assert raw.of(61, 62, 7, 1) == []  # nothing that was not requested
        await raw.positions()
        assert len(raw.of(61)) > 5
        raw.market_data(5, PUT)
        await raw.wait_id(1, having={2: 5, 3: 37})
        await raw.close()


async def test_the_command_plays_a_recording(session, program):
    words = ("--replay", session, "--speed", "10", "--port", "0")
    async with program("-m", "ib_gateway_simulator", *words) as process:
        ready = json.loads(await process.stdout.readline())
        raw = await logged_in(ready["port"])
        await raw.positions()
        await raw.wait_closed()  # as recorded
        await raw.close()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


def test_a_recording_in_which_no_client_logged_in_is_refused(tmp_path, ended, capsys):
    with Recorder(tmp_path / "a.ibrec") as recorder:
        number = recorder.opened()
        recorder.offer(number, "v176..178")
        recorder.greeting(number, ("178", ""))
        recorder.closed(number, "client")
    assert ended("--replay", str(recorder.path)) == 2
    assert "no client logged in" in capsys.readouterr().err


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
