"""Clients and the control port.

`connect` opens a client of the wire protocol without a library, so that a test sees every single
message; `connect_ib` opens the real ib_async.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from ib_async import IB, StartupFetchNONE

from position_sync_dagster.simulator import Book, Simulator, load_book
from tests.support.raw_client import RawClient
from tests.support.waiting import DEADLINE_S

Connect = Callable[..., Awaitable[RawClient]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Return a function that connects one more client and, by default, logs it in."""
    clients: list[RawClient] = []

    async def open_client(
        port: int, client_id: int = 1, *, versions: str = "v157..178", start: bool = True
    ) -> RawClient:
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


@pytest.fixture(scope="session")
def small() -> Book:
    return load_book("small")


@pytest.fixture
async def connect_ib() -> AsyncIterator[Callable[..., Awaitable[IB]]]:
    """Return a function that connects the real ib_async, and requests nothing more.

    Codes and texts of notices and errors are appended to `listen`.
    """
    libraries: list[IB] = []

    async def open_library(
        sim: Simulator, client_id: int = 1, listen: list[tuple[int, str]] | None = None
    ) -> IB:
        ib = IB()
        libraries.append(ib)
        if listen is not None:
            ib.errorEvent += lambda _id, code, text, _contract: listen.append((code, text))
        await ib.connectAsync(
            "127.0.0.1",
            sim.port,
            clientId=client_id,
            timeout=DEADLINE_S,
            fetchFields=StartupFetchNONE,
        )
        return ib

    yield open_library
    for ib in libraries:
        ib.disconnect()


@pytest.fixture
def control() -> Callable[[Simulator], httpx.AsyncClient]:
    """Return a function that opens the control port of a simulator."""

    def open_control(sim: Simulator) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{sim.control_port}")

    return open_control


@pytest.fixture
def post() -> Callable[..., Awaitable[Any]]:
    """Return a function that does an action over the control port and returns its result."""

    async def do(http: httpx.AsyncClient, name: str, **body: Any) -> Any:
        answer = await http.post(f"/{name}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    return do
