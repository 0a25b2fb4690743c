"""The reader of messages: counts those that were understood, and reports the others sparingly."""

import logging

from ib_async import IB

from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.outage_log import LimitedLog

logger = logging.getLogger(__name__)

MAX_FRAME = 1 << 20
"""Maximum length of a message: 1 MiB; contract details, for example, take about 2 KB. If bytes were
lost and text stands where the length should be, its value is greater."""

LOG_EVERY_S = 60.0
"""Seconds between two log lines for one kind of bad message, which may come hundreds a second."""

_POSITION, _POSITION_END = str(int(MessageType.POSITION)), str(int(MessageType.POSITION_END))


def is_no_length(data: bytes | bytearray) -> bool:
    """Return whether data cannot begin with the length of a message.

    >>> is_no_length(b"HTTP/1.1"), is_no_length(bytes([0, 0, 0, 26, 49])), is_no_length(b"HT")
    (True, False, False)
    """
    length = data[: ib_async_internals.LENGTH_BYTES]
    return (
        len(length) == ib_async_internals.LENGTH_BYTES and int.from_bytes(length, "big") > MAX_FRAME
    )


class MessageReader:
    """Counts the messages of a connection that were understood, and logs the others sparingly.

    ib_async logs a trace for each message that it cannot read, and a line for each tick of a
    request that it does not know.

    After a position that could not be read, or a message that may have been one, no list of
    positions ends on this connection: the holding that the list lacks would count as closed. The
    request for the list times out, which ends the connection. A later end message proves nothing:
    the gateway may send the end of one list twice.

    Args:
        ib: The connection.
        gateway_id: Its gateway.

    Attributes:
        understood: The number of messages that were understood.
    """

    def __init__(self, ib: IB, gateway_id: str) -> None:
        self.understood = 0
        self._gateway_id = gateway_id
        self._type = ""
        self._failed = False
        self._position_failed = False
        self._log = LimitedLog(logger, every_s=LOG_EVERY_S)
        self._interpret = ib_async_internals.intercept_messages(
            ib, read=self._read, unreadable=self._on_unreadable
        )
        ib_async_internals.intercept_unknown_requests(ib, self._on_unknown_request)
        ib_async_internals.read_without_copies(ib)

    def _read(self, fields: list[str]) -> None:
        self._type, self._failed = fields[0] if fields else "", False
        if self._type == _POSITION_END and self._position_failed:
            return
        self._interpret(fields)
        if self._failed:
            self._position_failed |= self._type == _POSITION or not self._type.isdecimal()
        else:
            self.understood += 1

    def _on_unreadable(self, error: BaseException | None) -> None:
        self._failed = True
        self._log.report(
            "unreadable message",
            f"{self._gateway_id} sent a message that cannot be read (type {self._type[:12]!a}, "
            f"{type(error).__name__}); it is left out",
        )

    def _on_unknown_request(self, message: str) -> None:
        self._log.report(
            "unknown request", f"{self._gateway_id} sent a tick that nobody asked for ({message})"
        )
