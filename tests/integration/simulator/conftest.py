"""Clients and the control port.

`connect` opens a client of the wire protocol without a library, so that a test sees every single
message; `connect_ib` opens the real ib_async.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from ib_async import IB, StartupFetchNONE

from ib_gateway_simulator import Book, SimulatedGateway, load_book
from tests.support.raw_client import RawClient
from tests.support.waiting import DEADLINE_S

Connect = Callable[..., Awaitable[RawClient]]
Post = Callable[..., Awaitable[Any]]
Controlled = Callable[..., Awaitable[tuple[SimulatedGateway, Post]]]


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
        sim: SimulatedGateway, client_id: int = 1, listen: list[tuple[int, str]] | None = None
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
async def controlled(small: Book) -> AsyncIterator[Controlled]:
    """Return a function that starts a simulator, with a function that posts to its control port.

    That one does an action and returns its result.
    """
    async with AsyncExitStack() as running:

        async def start(book: Book = small, **options: Any) -> tuple[SimulatedGateway, Post]:
            sim = await running.enter_async_context(
                SimulatedGateway(book, control_port=0, **options)
            )
            http = await running.enter_async_context(
                httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{sim.control_port}", timeout=DEADLINE_S
                )
            )

            async def post(name: str, *, status: int = 200, **body: Any) -> Any:
                answer = await http.post(f"/{name}", json=body)
                assert answer.status_code == status, answer.text
                return answer.json().get("result")

            return sim, post

        yield start
