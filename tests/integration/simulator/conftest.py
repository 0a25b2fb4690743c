"""Clients of the simulator that speak the wire protocol without a library."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from position_sync_dagster.simulator import Book, load_book
from tests.support.raw_client import RawClient

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
