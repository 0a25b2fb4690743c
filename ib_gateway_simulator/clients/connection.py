"""The connection of one client: handshake, requests in, messages out."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Protocol, cast

from ib_gateway_simulator.clients.stats import Stats
from ib_gateway_simulator.errors import MalformedRequestError, WireError
from ib_gateway_simulator.options import Options
from ib_gateway_simulator.protocol import messages, requests, wire
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.message_ids import NAMES
from ib_gateway_simulator.protocol.request_ids import ORDER_REQUESTS
from ib_gateway_simulator.protocol.requests import Request
from ib_gateway_simulator.protocol.versions import as_of_version

log = logging.getLogger(__name__)

# A paused gateway stops reading from a client that has sent this much.
PAUSED_INPUT_BYTES = 1 << 20

RATE_WINDOW_S = 1.0


class ConnectionHost(Protocol):
    """The gateway, as the connection of a client sees it."""

    options: Options
    stats: Stats
    paused: bool

    @property
    def newest_version(self) -> int: ...

    def behind_s(self) -> float: ...
    def opened(self, client: ClientConnection) -> None: ...
    def greeting(self, version: int) -> Fields: ...
    def log_in(self, client: ClientConnection, client_id: int) -> bool: ...
    def handle(self, client: ClientConnection, request: Request) -> None: ...
    def closed(self, client: ClientConnection) -> None: ...


class ClientConnection(asyncio.Protocol):
    """Speaks the gateway's protocol with one client.

    `send` queues messages and `flush` writes them: one write per client and step. `client_id`
    is None until the client has logged in with startApi.
    """

    def __init__(self, host: ConnectionHost) -> None:
        self._host = host
        self._frames = wire.FrameReader()
        self._outgoing: list[bytes] = []
        self._request_times: deque[float] = deque()
        self._timeout: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._closing = False
        # The server version that was negotiated, and the one in whose layouts messages are made.
        self._version: int | None = None
        self._made_in = wire.MAX_SERVER_VERSION
        self._peer = "?"
        self.client_id: int | None = None
        self.market_data_type = 1

    # -- asyncio's callbacks ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer = str(transport.get_extra_info("peername"))
        options = self._host.options
        self._transport.set_write_buffer_limits(high=options.max_buffer_bytes)
        loop = asyncio.get_running_loop()
        self._timeout = loop.call_later(options.handshake_timeout_s, self._time_out)
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._frames.feed(data)
        if self._host.paused:
            if len(self._frames) > PAUSED_INPUT_BYTES and self._transport is not None:
                self._transport.pause_reading()
            return
        self.process()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._timeout is not None:
            self._timeout.cancel()
        self._host.closed(self)

    # -- requests in --------------------------------------------------------------------------

    def process(self) -> None:
        """Act on every complete frame that has arrived, then write the answers at once."""
        if self._transport is not None and not self._transport.is_reading() and not self._closing:
            self._transport.resume_reading()

        try:
            while not self._closing:
                payload = self._frames.next_frame()
                if payload is None:
                    break

                if self._version is None:
                    self._negotiate(payload)
                else:
                    self._handle(requests.decode(wire.fields_of(payload)))
        except MalformedRequestError as error:
            # A gateway answers 320 and closes (ib_insync issues/152).
            self._host.stats.refused["malformed request"] += 1
            values = {"field": error.field, "value": error.value}
            self.send(messages.error(error.req_id, Code.UNREADABLE_REQUEST, **values))
            self.close(f"malformed request: {error}")
        except WireError as error:
            self._host.stats.refused["not the protocol"] += 1
            self.close(f"not the gateway's protocol: {error}")
        self.flush()

    def _negotiate(self, payload: bytes) -> None:
        newest = self._host.newest_version
        version = wire.negotiate(payload, newest=newest)
        if version is None:
            self._host.stats.refused["version"] += 1
            self.close(
                f"the client offers {payload.decode('ascii', 'replace')!r}; this gateway serves "
                f"{wire.MIN_SERVER_VERSION} to {newest}"
            )
            return
        self._version = version
        self._made_in = newest
        self.send(self._host.greeting(version))

    def _handle(self, request: Request) -> None:
        if self.client_id is None:
            self._handle_before_login(request)
            return
        self._host.stats.requests[self.client_id][request.name] += 1
        self._check_rate()
        self._host.handle(self, request)

    def _handle_before_login(self, request: Request) -> None:
        if request.name in ORDER_REQUESTS:
            self._host.handle(self, request)
        if request.name != "startApi":
            log.info("%s sent %s before startApi: ignored", self._peer, request.name)
            return
        if self._host.log_in(self, request.client_id) and self._timeout is not None:
            self._timeout.cancel()

    def _check_rate(self) -> None:
        limit = self._host.options.max_messages_per_s
        if not limit:
            return
        now = asyncio.get_running_loop().time()
        times = self._request_times
        sent = now - self._host.behind_s()
        # What came while the gateway was busy counts as sent as early as the rate allowed.
        if times:
            sent = max(sent, times[-1])
        if len(times) >= limit:
            sent = max(sent, times[-limit] + RATE_WINDOW_S)
        sent = min(sent, now)

        while times and times[0] + RATE_WINDOW_S <= sent:
            times.popleft()
        times.append(sent)
        if len(times) > limit:
            self._host.stats.rate_violations += 1
            if len(times) == limit + 1:
                self.send(messages.error(-1, Code.MESSAGE_RATE_EXCEEDED))

    def _time_out(self) -> None:
        if self.client_id is None and not self._host.paused:
            self._host.stats.refused["handshake timeout"] += 1
            self.close("no complete handshake in time")

    # -- messages out -------------------------------------------------------------------------

    def send(self, fields: Fields) -> None:
        """Queue one message until the next flush; do nothing once the connection is closing."""
        if self._closing:
            return
        if fields[0] in NAMES:
            self._host.stats.sent[fields[0]] += 1
        if self._version is not None and self._version < self._made_in:
            fields = as_of_version(fields, self._version)
        self._outgoing.append(wire.frame(fields))

    def send_raw(self, data: bytes) -> None:
        """Queue bytes as they are, to test clients against a broken gateway."""
        self._outgoing.append(data)

    def flush(self) -> None:
        """Write what is queued, unless the gateway is paused.

        A client that does not read is dropped when its unread bytes reach `max_buffer_bytes`.
        """
        transport = self._transport
        if transport is None or not self._outgoing or self._host.paused:
            return
        if not transport.is_closing():
            transport.write(b"".join(self._outgoing))
        self._outgoing.clear()
        if transport.get_write_buffer_size() > self._host.options.max_buffer_bytes:
            log.warning("client %s at %s does not read: dropped", self.client_id, self._peer)
            self._host.stats.refused["slow client"] += 1
            self.abort()

    # -- end ----------------------------------------------------------------------------------

    def close(self, reason: str = "") -> None:
        """Write what is queued, then close the connection."""
        if self._closing:
            return
        if reason:
            log.warning("closing %s (client id %s): %s", self._peer, self.client_id, reason)
        self.flush()
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection and drop what is queued."""
        self._closing = True
        self._outgoing.clear()
        if self._transport is not None:
            self._transport.abort()
