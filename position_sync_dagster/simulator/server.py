"""The simulator: a gateway listening on a socket, with its control port."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from position_sync_dagster.simulator.books.book import Book
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.clients.stats import OrderMessage
from position_sync_dagster.simulator.control.control_port import ControlPort
from position_sync_dagster.simulator.control.faults import Faults, as_dict
from position_sync_dagster.simulator.errors import PortInUseError
from position_sync_dagster.simulator.gateway.gateway import Gateway
from position_sync_dagster.simulator.options import Options

log = logging.getLogger(__name__)

LAST_PORT = 65535
RETRY_S = 0.2


class Simulator(Faults):
    """Run one simulated gateway; use it as an async context manager.

        async with Simulator(load_book("small"), seed=7) as sim:
            await ib.connectAsync("127.0.0.1", sim.port, clientId=1)
            sim.fill("DUSIM0001", 921000001, -1)
            assert not sim.orders_received

    Port 0 takes any free one. `control_port` None opens no control port. Raises PortInUseError.
    All methods belong to the event loop that entered the context.
    """

    def __init__(
        self,
        book: Book,
        *,
        seed: int = 7,
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int | None = None,
        max_lines: int = 100,
        tick_interval_s: float = 0.5,
        refresh_interval_s: float = 180.0,
        pnl_interval_s: float = 1.0,
        snapshot_s: float = 12.0,
        max_messages_per_s: int = 50,
        max_buffer_bytes: int = 4 << 20,
        handshake_timeout_s: float = 10.0,
        tick_ring: int = 0,
        autostep: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        options = Options(
            seed=seed,
            max_lines=max_lines,
            tick_interval_s=tick_interval_s,
            refresh_interval_s=refresh_interval_s,
            pnl_interval_s=pnl_interval_s,
            snapshot_s=snapshot_s,
            max_messages_per_s=max_messages_per_s,
            max_buffer_bytes=max_buffer_bytes,
            handshake_timeout_s=handshake_timeout_s,
            tick_ring=tick_ring,
            autostep=autostep,
        )
        super().__init__(Gateway(book, options, now=now))
        self.host = host
        self.port = port
        self._wanted_control_port = control_port
        self._server: asyncio.Server | None = None
        self._control: ControlPort | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def control_port(self) -> int | None:
        """The port of the control server, or None without one."""
        return None if self._control is None else self._control.port

    @property
    def orders_received(self) -> list[OrderMessage]:
        """Every order message of every client, oldest first."""
        return list(self._gateway.stats.orders)

    def stats(self) -> dict[str, Any]:
        """Return all counts, as `GET /stats` does."""
        return self._gateway.as_dict()

    def positions(self) -> list[dict[str, Any]]:
        """Return all positions, closed ones of today included."""
        return [as_dict(holding) for holding in self._gateway.ledger.holdings()]

    def ticks(self, conid: int) -> dict[str, dict[str, Any]]:
        """Return the newest sent price per field with the time it was sent."""
        return self._gateway.data.log.newest(conid)

    def recent_ticks(self, conid: int | None = None) -> list[dict[str, Any]]:
        """Return the last sent ticks, oldest first; needs `tick_ring`."""
        return [
            {"conid": t.conid, "field": t.field, "value": t.value, "sent_at_us": t.sent_at_us}
            for t in self._gateway.data.log.recent(conid)
        ]

    def step(self, count: int = 1) -> None:
        """Let the market take steps now, besides those it takes by itself."""
        for _ in range(count):
            self._gateway.step()

    async def __aenter__(self) -> Simulator:
        await self._listen(self.port)
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
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        self._gateway.end()
        await self._stop_listening()
        if self._control is not None:
            await self._control.stop()

    async def _listen(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            if not 0 <= port <= LAST_PORT:
                raise OSError("there is no such port")
            self._server = await loop.create_server(
                lambda: ClientConnection(self._gateway), self.host, port, backlog=128
            )
        except OSError as problem:
            raise PortInUseError(self.host, port, problem.strerror or str(problem)) from problem
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._gateway.drop_sockets()
            await self._server.wait_closed()
            self._server = None

    async def move_port(self, port: int = 0) -> int:
        """Move to another port: 1300 to every client, then their connections end."""
        old = self._server
        await self._listen(port)
        text = (
            "TWS socket port has been reset and this connection is being dropped. "
            f"Please reconnect on the new port - {self.port}"
        )
        self.send_error(1300, text)
        for client in list(self._gateway.clients.values()):
            client.close()
        if old is not None:
            old.close()
        return self.port

    async def restart(self, down_s: float = 1.0) -> None:
        """Restart as gateways do every night: down for `down_s`, then without closed rows."""
        port = self.port
        await self._stop_listening()
        self.reset_day()
        task = asyncio.create_task(self._return(port, down_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _return(self, port: int, down_s: float) -> None:
        await asyncio.sleep(down_s)
        while self._server is None:
            try:
                await self._listen(port)
            except PortInUseError as problem:
                log.warning("the gateway cannot come back yet: %s", problem)
                await asyncio.sleep(RETRY_S)
