"""The proxy passes on what is known to be harmless, and nothing else."""

import json
import os
import signal
import stat
from contextlib import asynccontextmanager

import pytest

from ib_gateway_simulator.errors import RecordingError
from ib_gateway_simulator.recording.recorder import Recorder
from ib_gateway_simulator.recordings.recording import load_recording
from tests.support.messages import frame
from tests.support.ports import free_port
from tests.support.raw_client import RawClient, logged_in


@pytest.fixture
def connected(simulate, recorded):
    @asynccontextmanager
    async def run(versions="v157..178", **options):
        async with simulate(autostep=False) as sim, recorded(sim.port, **options) as proxy:
            raw = RawClient()
            await raw.open(proxy.port)
            raw.greet(versions)
            yield sim, proxy, raw
            await raw.close()

    return run


ORDER = (7, 921000001, "AAPL", "OPT", "", 0, "", "", "SMART", "", "USD", "", "", "BUY", 1, "LMT")


@pytest.mark.parametrize(
    ("message", "req_id"),
    [
        ((3, *ORDER), 7),
        ((4, 1, 7, ""), 7),
        ((21, 2, 8, 921000001, "AAPL"), 8),
        ((58, 1), -1),
        ((19, 1, 1, "<xml/>"), -1),
        ((15, 1, 1), -1),
        (("03", *ORDER), -1),
        (("+3", *ORDER), -1),
        ((" 3", *ORDER), -1),
        ((203, *ORDER), -1),
        (("\x00\x00\x00\xcb", 7), -1),
        (("3" * 5000, 7), -1),
        ((), -1),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_an_order_message_is_refused_and_neither_passed_on_nor_recorded(
    connected, caplog, message, req_id
):
    async with connected() as (sim, proxy, raw):
        raw.send(*message)  # even before the log-in
        await raw.log_in()
        raw.send(*message)
        refusal = await raw.wait_error(321, req_id)
        assert "The recorder passes no" in refusal[4]

        await raw.barrier()  # the connection goes on
        assert proxy.refused == 2
        assert sim.orders_received == []
        assert sum(sim.stats()["requests"]["4"].values()) == 2  # the log-in, the barrier
    text = proxy.path.read_text()
    assert "LMT" not in text
    assert "recorder passes" not in text

    names = [json.loads(line).get("name") for line in text.splitlines()]
    requests = ["startApi", "reqCurrentTime"]
    assert [name for name in names if name in requests or "rder" in str(name)] == requests
    assert "it is not passed on" in caplog.text


REPORTS = (
    (3, 77, "Filled", 4211, 0),
    (5, 77, CALL := 921000001, "AAPL", "OPT"),
    (11, -1, 77, CALL, "AAPL"),
    (59, 1, "exec-id-5", 1.25, "USD"),
    (100, 77, 4, 1),
    (101, CALL, "AAPL", "OPT"),
)
LISTS = {53: (5, 1), 102: (99, 0)}


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: str(report[0]))
async def test_reports_of_orders_reach_neither_the_client_nor_the_recording(connected, report):
    async with connected() as (sim, proxy, raw):
        await raw.log_in()
        sim.send_raw(frame(*report))
        await raw.barrier()
        assert raw.of(report[0]) == []
    names = {json.loads(line).get("name") for line in proxy.path.read_text().splitlines()}
    assert f"message {report[0]}" not in names
    assert "exec-id-5" not in proxy.path.read_text()
    assert "Filled" not in proxy.path.read_text()


async def test_a_list_of_orders_ends_only_if_nothing_of_it_was_withheld(connected, caplog):
    async with connected() as (sim, proxy, raw):
        await raw.log_in()
        for end, request in LISTS.items():
            raw.send(*request)
            await raw.wait_id(end)  # without orders it ends at once
        since = await raw.barrier()
        sim.send_raw(frame(5, 77, CALL, "AAPL", "OPT") + frame(5, 78, CALL, "AAPL", "OPT"))
        for request in LISTS.values():
            raw.send(*request)
        await raw.barrier()
        assert raw.of(*LISTS, 5, since=since) == []
    ends = [e.name for e in load_recording(proxy.path).entries if "End" in getattr(e, "name", "")]
    assert sorted(ends) == ["completedOrdersEnd", "openOrderEnd"]
    assert caplog.text.count("reports of orders are not passed on") == 1


async def test_the_end_of_the_recording_ends_its_connections_and_says_so(
    simulate, recorded, eventually
):
    async with simulate() as sim:
        async with recorded(sim.port) as proxy:
            raw = await logged_in(proxy.port)
        await raw.wait_closed()
        await raw.close()
        await eventually(lambda: sim.stats()["connections"]["now"] == 0)
    [*_, last] = load_recording(proxy.path).entries
    assert last.connection == 1
    assert last.by == "recorder"


async def test_no_version_is_negotiated_whose_messages_cannot_be_read(connected):
    async with connected("v100..203") as (_sim, proxy, raw):
        assert (await raw.wait(lambda m: True))[0] == "178"
    assert '"v176..178"' in proxy.path.read_text()


@pytest.mark.parametrize("versions", ["v187..203", "v100..157", "nonsense"])
async def test_a_client_without_a_version_that_can_be_read_is_cut(connected, caplog, versions):
    async with connected(versions) as (_sim, _proxy, raw):
        await raw.wait_closed()
        assert raw.messages == []
    assert "a recording needs a version" in caplog.text or "cannot be read" in caplog.text


async def test_a_gateway_that_is_not_there_cuts_the_client_with_a_log_line(recorded, caplog):
    async with recorded(free_port()) as proxy:
        for _ in range(3):
            raw = RawClient()
            await raw.open(proxy.port)
            await raw.wait_closed()
            await raw.close()
    assert caplog.text.count("nothing answers at") == 1
    entries = load_recording(proxy.path).entries
    assert [getattr(entry, "by", "opened") for entry in entries] == ["opened", "gateway"] * 3


async def test_who_ended_a_connection_is_recorded(simulate, recorded, eventually):
    async with simulate() as sim, recorded(sim.port) as proxy:
        for end in ("client", "gateway"):
            raw = await logged_in(proxy.port)
            if end == "gateway":
                sim.disconnect()
                await raw.wait_closed()
            await raw.close()
            await eventually(lambda: sim.stats()["connections"]["now"] == 0)
    ends = [entry.by for entry in load_recording(proxy.path).entries if hasattr(entry, "by")]
    assert ends == ["client", "gateway"]


def test_a_recording_is_a_new_file_for_its_owner_alone(tmp_path):
    path = tmp_path / "session.ibrec"
    before = os.umask(0)
    try:
        with Recorder(path):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    with pytest.raises(RecordingError, match="exists already"), Recorder(path):
        pass
    assert path.read_text() == text


MAIN = ("-c", "from position_sync_dagster.cli import main; main()", "record")


async def test_the_command_records_until_a_signal(simulate, program, tmp_path, monkeypatch):
    out = tmp_path / "session.ibrec"
    async with simulate() as sim:
        monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(sim.port))
        async with program(*MAIN, "--out", out, "--minutes", "30") as process:
            ready = json.loads(await process.stdout.readline())
            raw = await logged_in(ready["port"])
            process.send_signal(signal.SIGINT)
            output, errors = await process.communicate()
        await raw.close()
    assert process.returncode == 0
    assert errors == b""

    done = json.loads(output)
    assert done["entries"] == len(load_recording(out).entries) > 5
    assert done["connections"] == 1
    assert done["not_passed_on"] == 0
    assert done["failed"] is None


async def test_the_command_records_the_login_that_is_named(
    simulate, program, tmp_path, monkeypatch, refuse
):
    out = tmp_path / "session.ibrec"
    command = ("--out", str(out), "--minutes", "0.01")
    async with simulate() as sim:
        file = tmp_path / "gateways.yaml"
        file.write_text(
            "gateways:\n- {name: east, port: 1, accounts: [DUSIM0001]}\n"
            f"- {{name: west, port: {sim.port}, accounts: [DUSIM0002]}}\n"
        )
        monkeypatch.setenv("POSITION_SYNC_GATEWAYS_FILE", str(file))
        for words in ((), ("--login", "north")):
            code, errors = refuse("record", *command, *words)
            assert code == 2
            assert "Choose one of the logins: east, west." in errors
        assert not out.exists()

        async with program(*MAIN, *command, "--login", "west") as process:
            output, errors = await process.communicate()
    assert process.returncode == 0
    assert errors == b""
    assert json.loads(output.splitlines()[0])["gateway"] == f"127.0.0.1:{sim.port}"


async def test_the_id_of_the_next_order_reaches_neither_the_recording_nor_the_client(
    simulate, recorded
):
    async with simulate(first_order_id=987654) as sim, recorded(sim.port) as proxy:
        raw = await logged_in(proxy.port)
        assert raw.of(9)[0][2] == "1"
        await raw.close()
    assert "987654" not in proxy.path.read_text()
