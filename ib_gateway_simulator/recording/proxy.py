"""The proxy: passes each message between a client and the gateway, and shows it to the recorder."""

from __future__ import annotations

import asyncio
import logging
import re
import struct
from contextlib import suppress
from types import TracebackType

from ib_gateway_simulator.errors import PortInUseError, WireError
from ib_gateway_simulator.protocol import messages, wire
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.request_ids import NAMES, ORDER_REQUESTS
from ib_gateway_simulator.recording.disguise import (
    ENDS_OF_ORDER_LISTS,
    FIRST_ID,
    NEXT_ID,
    REPORTS_OF_ORDERS,
)
from ib_gateway_simulator.recording.recorder import Recorder
from ib_gateway_simulator.recordings.entry import Ender

log = logging.getLogger(__name__)

# The proxy listens here alone: it has no protection of its own.
LOCALHOST = "127.0.0.1"

READ_BYTES = 1 << 16
# The largest message of a gateway, the parameters of scanners, has about 2 MB.
MAX_MESSAGE_BYTES = 1 << 24

CONNECT_S = 10.0

# The oldest server version whose messages can be disguised: the layouts of older ones differ.
OLDEST_RECORDED = 176

# Requests that change something at the gateway: orders, their owner, an advisor's groups.
NOT_PASSED_ON = ORDER_REQUESTS | {"replaceFA", "reqAutoOpenOrders"}

_NAMES = {str(number): name for number, name in NAMES.items()}
_OFFER = re.compile(rb"v\d{1,9}")


class Proxy:
    """Listens on loopback and connects each client to the gateway; an async context manager.

    Server versions above those whose layouts we know are not negotiated. A message is passed on
    only if it is known to be no order message: any other is refused with an error. Reports of
    orders do not reach the client.

    Args:
        recorder: Writes what passes.
        gateway: Host and port of the gateway.
        port: The port to listen on; 0 takes any free one.

    Attributes:
        refused: How many messages were not passed on.
        connections: How many clients have connected.

    Raises:
        PortInUseError: On entering the context: the port cannot be listened on.
    """

    def __init__(self, recorder: Recorder, gateway: tuple[str, int], *, port: int = 0) -> None:
        self.port = port
        self.refused = 0
        self.connections = 0
        self._recorder = recorder
        self._gateway = gateway
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._unreachable = False

    async def __aenter__(self) -> Proxy:
        try:
            self._server = await asyncio.start_server(self._serve, LOCALHOST, self.port)
        except (OSError, OverflowError) as error:
            raise PortInUseError(LOCALHOST, self.port, error) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a callback of a server runs in a task

        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        number = self._recorder.opened()
        by: Ender = "recorder"
        try:
            by = await self._connect(number, reader, writer)
        except WireError as error:
            log.warning("connection %d is ended: %s", number, error)
        except asyncio.CancelledError:
            log.info("connection %d is ended: the recording is over", number)
        finally:
            self._recorder.closed(number, by)
            await _close(writer)

    async def _connect(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Ender:
        host, port = self._gateway
        try:
            async with asyncio.timeout(CONNECT_S):
                answers, requests = await asyncio.open_connection(host, port)
        except OSError as error:
            if not self._unreachable:
                self._unreachable = True
                log.warning("nothing answers at %s:%d (%s); clients are cut", host, port, error)
            return "gateway"

        self._unreachable = False
        link = _Link(self, self._recorder, number, client=writer, gateway=requests)
        ways = [
            asyncio.create_task(link.pass_requests(reader)),
            asyncio.create_task(link.pass_messages(answers)),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with suppress(OSError):
                    task.result()

            # A write to a client that has gone fails in the task that passes messages to it.
            if reader.at_eof() or reader.exception() is not None:
                return "client"

            return "gateway"
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _close(requests)


class _Link:
    """One client and its connection to the gateway."""

    def __init__(
        self,
        proxy: Proxy,
        recorder: Recorder,
        number: int,
        *,
        client: asyncio.StreamWriter,
        gateway: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._recorder = recorder
        self._number = number
        self._client = client
        self._gateway = gateway
        self._offered = False
        self._greeted = False
        self._withheld = False

    async def pass_requests(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the client sends, until it ends the connection."""
        frames = wire.FrameReader()
        while data := await reader.read(READ_BYTES):
            frames.feed(data)
            while (payload := frames.next_frame()) is not None:
                if self._offered:
                    self._request(payload)
                else:
                    self._offer(payload)
            await self._gateway.drain()

    async def pass_messages(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the gateway sends, until it ends the connection."""
        frames = wire.FrameReader(MAX_MESSAGE_BYTES, prefix=False)
        while data := await reader.read(READ_BYTES):
            frames.feed(data)

            while (payload := frames.next_frame()) is not None:
                fields = tuple(wire.fields_of(payload))
                if not self._greeted:
                    self._greet(fields)
                elif self._is_withheld(fields[0] if fields else ""):
                    continue
                elif fields[:1] == (NEXT_ID,):
                    # It counts the account's orders, and clients begin their own ids with it.
                    self._recorder.message(self._number, fields)
                    self._client.write(wire.frame((NEXT_ID, "1", FIRST_ID)))
                    continue
                else:
                    self._recorder.message(self._number, fields)

                self._client.write(_frame(payload))
            await self._client.drain()

    def _is_withheld(self, kind: str) -> bool:
        """Return whether a message is a report of an order, or the end of a list without them.

        A list of orders from which something was withheld does not end: the client would take it
        for a whole one, without orders.
        """
        if kind in REPORTS_OF_ORDERS:
            if not self._withheld:
                log.warning("connection %d: reports of orders are not passed on", self._number)
            self._withheld = True
            return True
        return self._withheld and kind in ENDS_OF_ORDER_LISTS

    def _offer(self, payload: bytes) -> None:
        """Offer the gateway no version of which we do not know the layouts.

        From 201 on, messages are no texts any more, and an order could not be recognized.
        """
        version = wire.negotiate(payload)
        lowest = _OFFER.match(payload)
        if version is None or version < OLDEST_RECORDED or lowest is None:
            raise WireError(
                f"the client offers {payload[:60]!r}; a recording needs a version from "
                f"{OLDEST_RECORDED} to {wire.MAX_SERVER_VERSION}"
            )
        versions = f"v{max(int(lowest[0][1:]), OLDEST_RECORDED)}..{version}"
        self._offered = True
        self._recorder.offer(self._number, versions)
        self._gateway.write(wire.GREETING_PREFIX + _frame(versions.encode()))

    def _greet(self, fields: tuple[str, ...]) -> None:
        known_versions = range(OLDEST_RECORDED, wire.MAX_SERVER_VERSION + 1)
        if not fields or not fields[0].isdecimal() or int(fields[0]) not in known_versions:
            raise WireError(
                f"the gateway has version {fields[:1]}; a recording needs one from "
                f"{OLDEST_RECORDED} to {wire.MAX_SERVER_VERSION}: update the gateway"
            )
        self._greeted = True
        self._recorder.greeting(self._number, fields)

    def _request(self, payload: bytes) -> None:
        fields = tuple(wire.fields_of(payload))
        kind = fields[0] if fields else ""
        # A text that another reader could take for the same number (`03`) is not passed on.
        name = _NAMES.get(kind)
        if name is None or name in NOT_PASSED_ON:
            self._refuse(name or "an unknown message", fields)
            return
        self._recorder.request(self._number, name, fields)
        self._gateway.write(_frame(payload))

    def _refuse(self, name: str, fields: tuple[str, ...]) -> None:
        self._proxy.refused += 1
        log.warning(
            "connection %d: the client sent %s; it is not passed on and not recorded",
            self._number,
            name,
        )
        at = 1 if name == "placeOrder" else 2
        text = fields[at] if name in ORDER_REQUESTS and len(fields) > at else ""
        req_id = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
        cause = f"The recorder passes no {name} on; the connection is read-only."
        error = messages.error(req_id, Code.INVALID_REQUEST, validator="bF", cause=cause)
        self._client.write(wire.frame(error))


def _frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, asyncio.CancelledError):
        await writer.wait_closed()
