"""The simulator: a gateway that listens on a socket, with its control port."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ib_gateway_simulator.books.book import Book
from ib_gateway_simulator.books.loader import load_book
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.control.control_port import ControlPort
from ib_gateway_simulator.control.faults import Faults
from ib_gateway_simulator.errors import PortInUseError
from ib_gateway_simulator.gateway.gateway import Gateway
from ib_gateway_simulator.options import Options
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.statements import statements_so_far

log = logging.getLogger(__name__)

DEFAULTS = Options()
LAST_PORT = 65535
LISTEN_RETRY_S = 0.2


class SimulatedGateway(Faults):
    """Runs one simulated gateway; use it as an async context manager.

    All methods belong to the event loop that entered the context.

    Args:
        book: Accounts, contracts and positions of the login at the start: a `Book`, or the name or
            file that `load_book` reads.
        options: How the gateway listens and behaves.
        now: The wall clock, in seconds since 1970.
        changes: Single fields of Options that replace those of `options`.

    Raises:
        OptionError: An option has an impossible value.
        PortInUseError: On entering the context: a port cannot be listened on.

    Example:
        async with SimulatedGateway(book="small", seed=7) as gateway:
            await ib.connectAsync("127.0.0.1", gateway.port, clientId=1)
            gateway.fill("DUSIM0001", 921000001, -1)
            assert not gateway.orders_received
    """

    def __init__(
        self,
        book: Book | str | Path = "demo",
        options: Options = DEFAULTS,
        *,
        now: Callable[[], float] = time.time,
        **changes: Any,
    ) -> None:
        options = replace(options, **changes)
        held = book if isinstance(book, Book) else load_book(str(book))
        super().__init__(Gateway(held, options, now=now))
        self.host = options.host
        self.port = options.port
        self._next_ports = options.next_ports
        self._wanted_control_port = options.control_port
        self._server: asyncio.Server | None = None
        self._control: ControlPort | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._login_confirmed = asyncio.Event()

    @property
    def control_port(self) -> int | None:
        """The port of the controls, or None without them."""
        if self._control is None:
            return None

        return self._control.port

    async def __aenter__(self) -> SimulatedGateway:
        await self._listen(self.port, next_ports=self._next_ports)
        try:
            if self._wanted_control_port is not None:
                self._control = ControlPort(self, self._wanted_control_port)
                await self._control.start()
        except BaseException:
            await self._stop_listening()
            raise
        self._gateway.start_timers()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        self._gateway.close()
        await self._stop_listening()
        if self._control is not None:
            await self._control.stop()

    async def _listen(self, port: int, *, next_ports: int = 0) -> None:
        for tried in range(port, port + next_ports + 1):
            try:
                self._server = await self._serve(tried)
                self.port = self._server.sockets[0].getsockname()[1]
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE or tried == port + next_ports:
                    raise PortInUseError(self.host, port, error) from error

    async def _serve(self, port: int) -> asyncio.Server:
        if not 0 <= port <= LAST_PORT:
            raise OSError("there is no such port")
        return await asyncio.get_running_loop().create_server(
            lambda: ClientConnection(self._gateway), self.host, port, backlog=128
        )

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._gateway.drop_connections()
            await self._server.wait_closed()
            self._server = None

    def statements(self) -> dict[str, str]:
        """Return the statement of each account since the start, as XML of an activity query."""
        return statements_so_far(self._gateway)

    async def restart(self, down_s: float = 1.0, needs_login: bool = False) -> None:
        """Restart as gateways do every night: down for `down_s`, then without closed rows."""
        port = self.port
        await self._stop_listening()
        self.reset_day()
        self._login_confirmed.clear()
        if not needs_login:
            self._login_confirmed.set()
        task = asyncio.create_task(self._listen_again(port, down_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def change_port(self, port: int = 0) -> int:
        """Listen on another port, any free one by default, and return it; drop all clients."""
        before = self._server
        await self._listen(port)
        self._send_notice(Code.PORT_CHANGED, port=self.port)
        if before is not None:
            before.close()
            self._gateway.drop_connections()
            await before.wait_closed()
        return self.port

    def confirm_login(self) -> None:
        """Confirm the login that a restart with `needs_login` waits for."""
        self._login_confirmed.set()

    async def _listen_again(self, port: int, down_s: float) -> None:
        await asyncio.sleep(down_s)
        await self._login_confirmed.wait()
        while self._server is None:
            try:
                await self._listen(port)
            except PortInUseError as error:
                log.warning("the gateway cannot come back yet: %s", error)
                await asyncio.sleep(LISTEN_RETRY_S)
