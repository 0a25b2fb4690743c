"""The server of a replay: a gateway that says what a recorded one said."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from types import TracebackType

from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.clients.stats import OrderMessage, Stats
from ib_gateway_simulator.errors import PortInUseError, RecordingError
from ib_gateway_simulator.options import Options
from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.request_ids import ORDER_REQUESTS
from ib_gateway_simulator.protocol.requests import Request
from ib_gateway_simulator.recordings.recording import Recording
from ib_gateway_simulator.replay.known import Known
from ib_gateway_simulator.replay.player import Player
from ib_gateway_simulator.replay.timeline import Asked, connections_of
from ib_gateway_simulator.replay.unanswered import Unanswered, unanswered

log = logging.getLogger(__name__)

PATIENCE_S = 10.0


class Replay:
    """Plays a recording to the clients that connect; use it as an async context manager.

    The first client that logs in gets the first recorded connection, and so on; those after the
    last one are answered from what the gateway has said. No order is ever carried out.

    Args:
        recording: What to play.
        host: The address to listen on.
        port: The port; 0 takes any free one.
        speed: How many recorded seconds a second takes.
        now: The wall clock, in seconds since 1970.
        patience_s: How long the replay waits for a recorded request, in recorded seconds.

    Attributes:
        left: How many recorded connections were not begun yet.
        unmade: How many recorded requests no client made.
        unanswered: The requests that the recording does not have, oldest first.

    Raises:
        RecordingError: No client logged in: there is nothing to play.
        PortInUseError: On entering the context: the port cannot be listened on.
    """

    paused = False

    def __init__(
        self,
        recording: Recording,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        now: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.options = Options(host=host, port=port, max_messages_per_s=0)
        self.stats = Stats()
        self.host = host
        self.port = port
        self.now = now
        self.unmade = 0
        self._speed = speed
        self._patience_s = patience_s
        self._waiting = list(connections_of(recording.entries))
        if not self._waiting:
            raise RecordingError(
                "the recording", 0, "no client logged in: record again, from the log-in on"
            )

        self.unanswered: list[Unanswered] = []
        self._requests = [
            step.request
            for connection in self._waiting
            for step in connection.steps
            if isinstance(step, Asked)
        ]
        self._last_version = int(self._waiting[-1].greeting[0])
        self._started_at = recording.header.started_at.timestamp()
        self._known = Known()
        self._connections: set[ClientConnection] = set()
        self._players: dict[ClientConnection, Player] = {}
        self._tasks: dict[ClientConnection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._outages: dict[ClientConnection, float] = {}
        self._down_until_s = 0.0

    def behind_s(self) -> float:
        """Return 0: a replay counts no messages."""
        return 0.0

    @property
    def left(self) -> int:
        """Return how many recorded connections no client has had yet."""
        return len(self._waiting)

    @property
    def is_over(self) -> bool:
        """Return whether every recorded connection was played."""
        return not self._waiting and all(task.done() for task in self._tasks.values())

    async def __aenter__(self) -> Replay:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: ClientConnection(self), self.host, self.port, backlog=128
            )
        except (OSError, OverflowError) as error:
            raise PortInUseError(self.host, self.port, error) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            for client in list(self._connections):
                client.abort()
            await self._server.wait_closed()

    # -- what a connection needs --------------------------------------------------------------

    def opened(self, client: ClientConnection) -> None:
        """Count a new connection, or end it while the recorded gateway was down."""
        if asyncio.get_running_loop().time() < self._down_until_s:
            client.abort()
            return
        self._connections.add(client)
        self.stats.sockets = len(self._connections)

    @property
    def newest_version(self) -> int:
        """Return the version that the next recorded client negotiated: its messages have it."""
        if not self._waiting:
            return self._last_version

        return int(self._waiting[0].greeting[0])

    def greeting(self, version: int) -> Fields:
        """Return the answer to the offer: the recorded time, if a connection is left."""
        recorded: Fields = ("",)
        if self._waiting:
            recorded = self._waiting[0].greeting[1:]

        return (str(version), *recorded)

    def log_in(self, client: ClientConnection, client_id: int) -> bool:
        """Play the next recorded connection to a client."""
        client.client_id = client_id
        recorded = None
        if self._waiting:
            recorded = self._waiting.pop(0)

        started_at = self._started_at + (recorded.started_at_s if recorded else 0.0)
        player = Player(
            client,
            recorded,
            self._known,
            speed=self._speed,
            now=self.now,
            shift_s=self.now() - started_at,
            patience_s=self._patience_s,
        )
        self._players[client] = player

        if recorded is None:
            log.info("client %d logs in after the last recorded connection", client_id)
            for fields in self._known.log_in():
                client.send(fields)
        else:
            log.info("client %d gets the recorded connection %d", client_id, recorded.number)
            self._tasks[client] = asyncio.create_task(player.run())
            self._outages[client] = recorded.down_s / self._speed
        return True

    def handle(self, client: ClientConnection, request: Request) -> None:
        """Answer one request; an order message is refused, and never carried out."""
        if request.name in ORDER_REQUESTS:
            client_id = -1 if client.client_id is None else client.client_id
            self.stats.orders.append(
                OrderMessage(client_id=client_id, name=request.name, fields=request.fields)
            )
            cause = "A replay takes no orders."
            client.send(
                messages.error(request.req_id, Code.INVALID_REQUEST, validator="rp", cause=cause)
            )
        elif client in self._players and not self._players[client].handle(request):
            self.unanswered.append(unanswered(request, self._requests))

    def closed(self, client: ClientConnection) -> None:
        """End the replay to a client that has gone."""
        self._connections.discard(client)
        self.stats.sockets = len(self._connections)
        task = self._tasks.get(client)
        if task is not None:
            task.cancel()
        down_s = self._outages.pop(client, 0.0)
        if down_s:
            self._down_until_s = asyncio.get_running_loop().time() + down_s
        player = self._players.pop(client, None)
        self.unmade += player.unmade if player else 0
