"""A client of the wire protocol without a library, so that a test sees every single message."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ib_gateway_simulator import SimulatedGateway
from tests.support.messages import frame
from tests.support.waiting import DEADLINE_S

Message = list[str]
Test = Callable[[Message], bool]
NOTHING: Mapping[int, object] = {}


class RawClient:
    """Keeps every message that it receives, and waits for those that a test expects."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.closed = asyncio.Event()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack(">I", await self.reader.readexactly(4))
                payload = await self.reader.readexactly(length)
                self.messages.append(payload.decode().split("\0")[:-1])
                self._news.set()
        self.closed.set()
        self._news.set()

    def greet(self, versions: str = "v157..178") -> None:
        offer = versions.encode()
        self.writer.write(b"API\0" + struct.pack(">I", len(offer)) + offer)

    def send(self, *fields: object) -> None:
        self.writer.write(frame(*fields))

    async def wait(self, test: Test, since: int = 0) -> Message:
        """Return the first message from `since` on that passes a test; fail at the deadline."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                self._news.clear()
                for message in self.messages[since:]:
                    if test(message):
                        return message
                if self.closed.is_set():
                    raise AssertionError(f"closed; received {self.messages[since:][-20:]}")
                await self._news.wait()

    async def wait_id(
        self, type_id: int, since: int = 0, having: Mapping[int, object] = NOTHING
    ) -> Message:
        """Wait for a message of a type; `having` are fields of it, by their places."""
        fields = {0: str(type_id)} | {place: str(value) for place, value in having.items()}
        return await self.wait(
            lambda m: all(m[place : place + 1] == [text] for place, text in fields.items()), since
        )

    async def wait_error(self, code: int, req_id: int | None = None, since: int = 0) -> Message:
        return await self.wait(
            lambda m: m[0] == "4" and m[3] == str(code) and req_id in (None, int(m[2])), since
        )

    async def wait_closed(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.closed.wait()

    async def barrier(self) -> int:
        """Wait until every request so far is answered; return the count of messages then."""
        since = len(self.messages)
        self.send(49, 1)
        await self.wait_id(49, since)
        return len(self.messages)

    async def log_in(self, client_id: int = 4, options: str = "") -> None:
        self.send(71, 2, client_id, options)
        await self.wait_id(9)

    async def positions(self) -> None:
        """Request the list of positions, and wait for its end."""
        since = len(self.messages)
        self.send(61, 1)
        await self.wait_id(62, since)

    async def download(self, account: str) -> None:
        """Request the updates of an account, and wait for the end of its download."""
        since = len(self.messages)
        self.send(6, 2, 1, account)
        await self.wait_id(54, since)

    async def line(self, req_id: int, conid: int, **more: Any) -> int:
        """Request market data, and wait for what comes at once; return the count of messages."""
        self.market_data(req_id, conid, **more)
        return await self.barrier()

    async def step(self, sim: SimulatedGateway, count: int = 1) -> int:
        """Let the market move, and wait for what that sends; return the count of messages."""
        sim.step(count)
        return await self.barrier()

    def of(self, *type_ids: int, since: int = 0) -> list[Message]:
        wanted = {str(type_id) for type_id in type_ids}
        return [message for message in self.messages[since:] if message[0] in wanted]

    def about(self, req_id: int, since: int = 0) -> list[Message]:
        """Return the ticks and notices of one market data request."""
        at = {"1": 2, "2": 2, "4": 2, "21": 1, "45": 2, "46": 2, "57": 2, "58": 2, "81": 1}
        return [m for m in self.messages[since:] if m[0] in at and m[at[m[0]]] == str(req_id)]

    def market_data(
        self,
        req_id: int,
        conid: int,
        *,
        exchange: str = "SMART",
        sec_type: str = "OPT",
        ticks: str = "",
        snapshot: int = 0,
    ) -> None:
        contract = [conid, "", sec_type, "", 0.0, "", "", exchange, "", "", "", ""]
        self.send(1, 11, req_id, *contract, 0, ticks, snapshot, 0, "")

    def contract_details(self, req_id: int, conid: int, *more: object) -> None:
        """Request the details of a contract by its id, or by its other fields beside 0."""
        self.send(9, 8, req_id, conid, *more or ("", "", "", 0.0, *[""] * 7), 0, "", "", "")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self.writer.close()
            with suppress(ConnectionError):
                await self.writer.wait_closed()


async def logged_in(port: int, client_id: int = 4) -> RawClient:
    """Return a client that has logged in."""
    raw = RawClient()
    await raw.open(port)
    raw.greet()
    await raw.log_in(client_id)
    return raw
