"""The connection: its loggers, its pace, its bytes, and which messages were understood."""

import logging
import sys
from collections.abc import Callable
from typing import Any

from ib_async import IB, Event

LENGTH_BYTES = 4
"""Each message begins with its length, big-endian."""


def quiet_loggers() -> None:
    """Silence the lines of ib_async that would leak holdings or repeat our own errors.

    It logs each position with its account at INFO. Its client, its decoder and eventkit log what
    we raise as errors with a cause and a remedy.
    """
    logging.getLogger("ib_async").setLevel(logging.WARNING)
    for name in ("ib_async.client", "ib_async.Decoder", "eventkit"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def set_pace(ib: IB, *, max_requests: int, interval_s: float) -> None:
    """Send at most so many messages per interval; `IB` has no setting for it."""
    ib.client.MaxRequests = max_requests
    ib.client.RequestsInterval = interval_s  # type: ignore[assignment] # any seconds do


# The socket: `IB` reports a connection when it is ready, and an end when it was ready. We must see
# what happens before, and wait until the socket is really closed.


def bytes_received(ib: IB) -> Event:
    """Return the event of the bytes that arrive, before they are read."""
    return ib.client.conn.hasData


def socket_closed(ib: IB) -> Event:
    """Return the event of the end of the socket, also before the log-in is complete."""
    return ib.client.conn.disconnected


def has_socket(ib: IB) -> bool:
    """Return whether the socket is still open, also after `IB.disconnect()`."""
    return bool(ib.client.conn.isConnected())


def unread_bytes(ib: IB) -> bytes:
    """Return the bytes that arrived and are no whole message yet.

    ib_async waits for the rest of a message without a bound.
    """
    return ib.client._data


def fields_of(message: bytes) -> list[str]:
    """Return the fields of a message."""
    fields = message.decode(errors="backslashreplace").split("\0")
    fields.pop()  # the text after the last mark
    return fields


def read_without_copies(ib: IB, *, reads: Callable[[bytes], bool] = lambda _message: False) -> None:
    """Read the messages of a log-in that is complete without a copy of all unread bytes for each.

    ib_async copies what is left after each message: of a large account, a hundred kilobytes for
    each of its rows. It must be called before others listen to the bytes that arrive.

    Args:
        ib: The connection.
        reads: Gets each message as sent, and returns whether ib_async does not get it.
    """
    client = ib.client
    usual: Callable[[bytes], None] = client._onSocketHasData
    bytes_received(ib).disconnect(usual)

    def received(data: bytes) -> None:
        if not client.isReady():
            usual(data)
            return
        ib.wrapper.tcpDataArrived()
        client._numBytesRecv += len(data)
        unread = client._data = client._data + data
        began, received_in_all = 0, len(unread)
        interpret: Callable[[list[str]], None] = client.decoder.interpret
        try:
            while received_in_all - began > LENGTH_BYTES:
                first = began + LENGTH_BYTES
                end = first + int.from_bytes(unread[began:first], "big")
                if end > received_in_all:
                    break
                message, began = unread[first:end], end
                client._numMsgRecv += 1
                if not reads(message):
                    interpret(fields_of(message))
                if client._data is not unread:
                    break  # a message ended the connection, which dropped the others
        finally:
            if client._data is unread:
                client._data = unread[began:]
        ib.wrapper.tcpDataProcessed()

    bytes_received(ib).connect(received)


# The reading of messages: ib_async logs a trace or a line for each that it cannot use.


def intercept_messages(
    ib: IB,
    *,
    read: Callable[[list[str]], None],
    unreadable: Callable[[BaseException | None], None],
) -> Callable[[list[str]], None]:
    """Read each message with a function of ours, which may call ib_async's own.

    ib_async does not tell whether it understood a message: its decoder logs the exception and
    goes on.

    Args:
        ib: The connection.
        read: Gets the fields of each message.
        unreadable: Gets the cause when ib_async's own function cannot read a message.

    Returns:
        ib_async's own function.
    """
    decoder = ib.client.decoder
    interpret: Callable[[list[str]], None] = decoder.interpret
    decoder.interpret = read  # type: ignore[method-assign]
    decoder.logger = _DecoderLog(unreadable)  # type: ignore[assignment]
    return interpret


class _DecoderLog:
    """Stands for the decoder's logger, which it uses for messages that it cannot read."""

    def __init__(self, unreadable: Callable[[BaseException | None], None]) -> None:
        self._unreadable = unreadable

    def exception(self, _message: str) -> None:
        """Report the cause; the message holds values of the account and is not logged."""
        error = sys.exc_info()[1]
        self._unreadable((error and error.__context__) or error)


def intercept_unknown_requests(ib: IB, report: Callable[[str], None]) -> None:
    """Report the ticks of requests that ib_async does not know; it logs a line for each."""
    ib.wrapper._logger = _WrapperLog(ib.wrapper._logger, report)  # type: ignore[assignment]


class _WrapperLog(logging.LoggerAdapter[logging.Logger]):
    """The wrapper's logger, without a line for each tick of an unknown request."""

    def __init__(self, inner: logging.Logger, report: Callable[[str], None]) -> None:
        super().__init__(inner)
        self._report = report

    def error(self, msg: object, *args: object, **more: Any) -> None:
        if "Unknown reqId" in str(msg):
            self._report(str(msg))
        else:
            super().error(msg, *args, **more)
