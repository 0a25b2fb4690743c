"""One client's socket: handshake, requests in, messages out."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import UTC, datetime
from typing import Protocol, cast

from position_sync_dagster.simulator.clients.stats import Stats
from position_sync_dagster.simulator.errors import MalformedRequestError, WireError
from position_sync_dagster.simulator.protocol import messages, requests, wire
from position_sync_dagster.simulator.protocol.message_ids import NAMES
from position_sync_dagster.simulator.protocol.messages import Fields
from position_sync_dagster.simulator.protocol.request_ids import ORDER_REQUESTS
from position_sync_dagster.simulator.protocol.requests import Request

log = logging.getLogger(__name__)

PAUSED_INPUT_BYTES = 1 << 20


class Host(Protocol):
    """What a client needs of the gateway behind it."""

    stats: Stats
    paused: bool
    max_messages_per_s: int
    max_buffer_bytes: int
    handshake_timeout_s: float

    def now(self) -> float: ...
    def opened(self, client: ClientConnection) -> None: ...
    def start(self, client: ClientConnection, client_id: int) -> bool: ...
    def answer(self, client: ClientConnection, request: Request) -> None: ...
    def ended(self, client: ClientConnection) -> None: ...


class ClientConnection(asyncio.Protocol):
    """Speak the gateway's protocol with one client.

    Messages are collected with `send` and leave with `flush`: one write per step and client.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._reader = wire.FrameReader()
        self._outgoing: list[bytes] = []
        self._times: deque[float] = deque()
        self._timeout: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self.version: int | None = None
        self.client_id: int | None = None
        self.market_data_type = 1
        self.peer = "?"

    @property
    def started(self) -> bool:
        """Say whether the client has been let in and is still there."""
        return self.client_id is not None and not self._closing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = str(transport.get_extra_info("peername"))
        self._transport.set_write_buffer_limits(high=self._host.max_buffer_bytes)
        loop = asyncio.get_running_loop()
        self._timeout = loop.call_later(self._host.handshake_timeout_s, self._handshake_late)
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._reader.feed(data)
        if self._host.paused:
            if len(self._reader) > PAUSED_INPUT_BYTES and self._transport is not None:
                self._transport.pause_reading()
            return
        self.process()

    def process(self) -> None:
        """Act on every whole frame that has arrived, then write the answers in one go."""
        if self._transport is not None and not self._transport.is_reading() and not self._closing:
            self._transport.resume_reading()
        try:
            while not self._closing:
                payload = self._reader.next_frame()
                if payload is None:
                    break
                self._take(payload)
        except MalformedRequestError as problem:
            # A gateway answers 320 and closes (ib_insync issues/152).
            self._host.stats.refused["malformed request"] += 1
            self.send(messages.error(problem.req_id, 320, str(problem)))
            self.close(f"malformed request: {problem}")
        except WireError as problem:
            self._host.stats.refused["not the protocol"] += 1
            self.close(f"not the gateway's protocol: {problem}")
        self.flush()

    def _take(self, payload: bytes) -> None:
        if self.version is None:
            self._greet(payload)
            return
        fields = wire.fields_of(payload)
        request = requests.decode(fields)
        if self.client_id is None:
            if request.name in ORDER_REQUESTS:
                self._host.answer(self, request)
            if request.name != "startApi":
                log.info("%s sent %s before startApi: ignored", self.peer, request.name)
                return
            if self._host.start(self, request.client_id) and self._timeout is not None:
                self._timeout.cancel()
            return
        self._host.stats.requests[self.client_id][request.name] += 1
        self._check_rate()
        self._host.answer(self, request)

    def _greet(self, payload: bytes) -> None:
        version = wire.negotiate(payload)
        if version is None:
            self._host.stats.refused["version"] += 1
            self.close(
                f"the client offers {payload.decode('ascii', 'replace')!r}; this gateway serves "
                f"{wire.MIN_SERVER_VERSION} to {wire.MAX_SERVER_VERSION}"
            )
            return
        self.version = version
        stamp = datetime.fromtimestamp(self._host.now(), UTC).strftime("%Y%m%d %H:%M:%S")
        self.send((str(version), f"{stamp} Greenwich Mean Time"))

    def _check_rate(self) -> None:
        limit = self._host.max_messages_per_s
        if not limit:
            return
        now = asyncio.get_running_loop().time()
        times = self._times
        while times and now - times[0] > 1.0:
            times.popleft()
        times.append(now)
        if len(times) > limit:
            self._host.stats.rate_violations += 1
            if len(times) == limit + 1:
                text = "Max rate of messages per second has been exceeded."
                self.send(messages.error(-1, 100, text))

    def _handshake_late(self) -> None:
        if self.client_id is None and not self._host.paused:
            self._host.stats.refused["handshake timeout"] += 1
            self.close("no complete handshake in time")

    def send(self, fields: Fields) -> None:
        """Queue one message until the next flush; nothing is sent to a client that is leaving."""
        if self._closing:
            return
        if fields[0] in NAMES:
            self._host.stats.sent[fields[0]] += 1
        self._outgoing.append(wire.frame(fields))

    def send_raw(self, data: bytes) -> None:
        """Queue bytes as they are, for clients that must survive a gateway gone mad."""
        self._outgoing.append(data)

    def flush(self) -> None:
        """Write what was queued, unless the gateway is paused.

        A client that does not read is dropped at its buffer limit.
        """
        transport = self._transport
        if transport is None or not self._outgoing or self._host.paused:
            return
        if not transport.is_closing():
            transport.write(b"".join(self._outgoing))
        self._outgoing.clear()
        if transport.get_write_buffer_size() > self._host.max_buffer_bytes:
            log.warning("client %s at %s does not read: dropped", self.client_id, self.peer)
            self._host.stats.refused["slow client"] += 1
            self.abort()

    def close(self, reason: str = "") -> None:
        """Write what is queued, then close."""
        if self._closing:
            return
        if reason:
            log.warning("closing %s (client id %s): %s", self.peer, self.client_id, reason)
        self.flush()
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection without writing anything more."""
        self._closing = True
        self._outgoing.clear()
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._timeout is not None:
            self._timeout.cancel()
        self._host.ended(self)
