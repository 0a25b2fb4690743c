"""A simulator with clients and its control port.

`client` is a client of the wire protocol without a library, so that a test sees every single
message; `ib` is the real ib_async.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager

import httpx
import pytest
from ib_async import IB, StartupFetchNONE

from ib_gateway_simulator import SimulatedGateway, load_book
from ib_gateway_simulator.__main__ import main
from tests.support.ports import NO_CERTIFICATES
from tests.support.raw_client import RawClient
from tests.support.waiting import DEADLINE_S


@pytest.fixture(scope="session")
def small():
    return load_book("small")


@pytest.fixture
def options():
    """Return the options of `sim`; a module with others has a fixture of its own."""
    return {}


@pytest.fixture
async def sim(small, options):
    async with SimulatedGateway(small, **{"control_port": 0, **options}) as running:
        yield running


@pytest.fixture
async def connect():
    """Return a function that connects one more client and, by default, logs it in."""
    clients: list[RawClient] = []

    async def open_client(port, client_id=1, *, versions="v157..178", start=True):
        client = RawClient()
        await client.open(port)
        clients.append(client)
        if start:
            client.greet(versions)
            await client.wait(lambda m: len(m) == 2)
            client.send(71, 2, client_id, "")
            await client.wait_error(2158)
        return client

    yield open_client
    for client in clients:
        await client.close()


@pytest.fixture
async def client(sim, connect):
    return await connect(sim.port)


@pytest.fixture
async def ib(sim):
    """Return the real ib_async, connected; it has requested nothing."""
    ib = IB()
    options = {"clientId": 1, "timeout": DEADLINE_S, "fetchFields": StartupFetchNONE}
    await ib.connectAsync("127.0.0.1", sim.port, **options)
    yield ib
    ib.disconnect()


@pytest.fixture
def program():
    """Return a function that runs Python with arguments, and ends it with the block."""

    @asynccontextmanager
    async def run(*arguments):
        command = (sys.executable, *map(str, arguments))
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    return run


@pytest.fixture
def ended(monkeypatch):
    """Return what runs the simulator in this process until it ends, and returns its exit code."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["ib-gateway-simulator", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code

    return run


@pytest.fixture
async def http(sim):
    """Return a client of the control port."""
    url = f"http://127.0.0.1:{sim.control_port}"
    async with httpx.AsyncClient(
        base_url=url, trust_env=False, timeout=DEADLINE_S, verify=NO_CERTIFICATES
    ) as client:
        yield client


@pytest.fixture
def post(http):
    """Return a function that does an action at the control port, and returns its result."""

    async def act(name, *, status=200, **body):
        answer = await http.post(f"/{name}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json().get("result")

    return act
