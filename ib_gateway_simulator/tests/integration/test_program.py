"""The simulator as a program: its output, signals, errors and scenario."""

import asyncio
import json
import signal
import socket
from asyncio.subprocess import Process
from typing import Any

import httpx
import pytest

from tests.support.ports import NO_CERTIFICATES
from tests.support.waiting import DEADLINE_S

CALL = 921000001
SIMULATOR = ("-m", "ib_gateway_simulator")


async def ready(process: Process) -> dict[str, Any]:
    line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_S)
    assert line, (await process.communicate())[1].decode()
    return dict(json.loads(line))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_prints_its_ports_serves_and_ends_cleanly(program, connect, number):
    async with program(*SIMULATOR, "--port", "0", "--book", "small", "--max-lines", "1") as process:
        ports = await ready(process)
        client = await connect(ports["port"])
        client.market_data(1, CALL)
        client.market_data(2, CALL)
        await client.wait_error(101, 2)
        async with httpx.AsyncClient(timeout=DEADLINE_S, verify=NO_CERTIFICATES) as http:
            stats = await http.get(f"http://127.0.0.1:{ports['control_port']}/stats")
        assert stats.json()["lines_in_use"] == 1

        process.send_signal(number)
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        assert process.returncode == 0
        assert out == b""
        assert err == b""
        await client.wait_closed()


def test_a_port_in_use_ends_it_with_exit_code_2_and_the_reason(ended, capsys):
    with socket.socket() as taken_port:
        taken_port.bind(("127.0.0.1", 0))
        taken_port.listen()
        port = taken_port.getsockname()[1]
        assert ended("--port", str(port), "--book", "small") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"cannot listen on 127.0.0.1:{port}" in printed.err
    assert printed.err.count("\n") == 1


def test_a_bad_book_ends_it_with_exit_code_2_and_the_place(ended, capsys, tmp_path):
    book = tmp_path / "bad.yaml"
    book.write_text("as_of: 2028-06-01\naccounts: [{name: U1}]\n")
    assert ended("--book", str(book)) == 2
    assert f"{book}:2:19: accounts[0].name" in capsys.readouterr().err


async def test_the_actions_of_a_scenario_are_done_at_their_times(program, connect, tmp_path):
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(
        "- {at_s: 0.0, do: close, account: DUSIM0001, conid: 921000007}\n"
        "- {at_s: 0.0, do: line_limit, limit: 3}\n"
        "- {at_s: 0.5, do: fill, account: DUSIM0001, conid: 921000007, quantity: 2}\n"
        "- {at_s: 0, every_s: 0.05, do: fill, account: DUSIM0001, conid: 921000001, quantity: 1}\n"
    )
    arguments = ("--port", "0", "--book", "small", "--scenario", str(scenario))
    async with program(*SIMULATOR, *arguments) as process:
        ports = await ready(process)
        client = await connect(ports["port"])
        client.send(61, 1)
        row = await client.wait_id(61, having={3: 921000007})
        assert row[14] == "2"

        # How many are bought before the client asks depends on the machine.
        filled = await client.wait_id(61, having={3: CALL, 2: "DUSIM0001"})
        since = client.messages.index(filled) + 1
        for quantity in range(int(filled[14]) + 1, int(filled[14]) + 4):
            await client.wait_id(61, since, {3: CALL, 14: quantity})
        async with httpx.AsyncClient(timeout=DEADLINE_S, verify=NO_CERTIFICATES) as http:
            stats = await http.get(f"http://127.0.0.1:{ports['control_port']}/stats")
        assert stats.json()["line_limit"] == 3
        process.terminate()
        _, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        assert b"scenario: close at 0.0 s failed" in err
