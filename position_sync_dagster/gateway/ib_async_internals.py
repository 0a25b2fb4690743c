"""Every private symbol of ib_async that is used, each with its reason.

- The connection: its loggers, its pace, its bytes, its messages, and which were understood.
- The ids of requests: ib_async keeps them, and refusals name the id alone.
- The messages of accounts and holdings, which functions of ours read: ib_async drops some, and is
  slow with the many of a large book, since it inspects each field, keeps objects and writes logs.
"""

import logging
import sys
from collections.abc import Callable
from datetime import UTC
from types import SimpleNamespace

from ib_async import IB, Contract, Event, Ticker

from position_sync_dagster.domain.exchange_time import read_time
from position_sync_dagster.gateway.codes import (
    GREETING,
    HUNG_UP,
    RECEIVED,
    SENT,
    Listener,
    MessageType,
)

# Each message begins with its length, big-endian.
LENGTH_BYTES = 4


# Maximum length of a message: 1 MiB; contract details, for example, take about 2 KB. If bytes were
# lost and text stands where the length should be, its value is greater.
MAX_FRAME = 1 << 20


def is_no_length(data: bytes | bytearray) -> bool:
    """Return whether data cannot begin with the length of a message.

    >>> is_no_length(b"HTTP/1.1"), is_no_length(bytes([0, 0, 0, 26, 49])), is_no_length(b"HT")
    (True, False, False)
    """
    length = data[:LENGTH_BYTES]
    return len(length) == LENGTH_BYTES and int.from_bytes(length, "big") > MAX_FRAME


def quiet_loggers() -> None:
    """Silence the lines of ib_async that would leak holdings or repeat our own errors.

    It logs each position with its account at INFO. Its client, its decoder and eventkit log what
    we raise as errors with a cause and a remedy. Late ticks of ended requests come in hundreds.
    """
    logging.getLogger("ib_async").setLevel(logging.WARNING)
    for name in ("ib_async.client", "ib_async.Decoder", "eventkit"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("ib_async.wrapper").addFilter(_is_no_stray_tick)


def _is_no_stray_tick(record: logging.LogRecord) -> bool:
    """Return whether a log line is worth writing: ticks of an unknown request come in hundreds."""
    return "Unknown reqId" not in record.getMessage()


def set_pace(ib: IB, max_requests: int, interval_s: float) -> None:
    """Limit the messages that are sent per interval; `IB` has no setting for it."""
    ib.client.MaxRequests = max_requests
    ib.client.RequestsInterval = interval_s  # type: ignore[assignment] # any seconds do


def unsent_messages(ib: IB) -> int:
    """Return how many messages wait for the pace that `set_pace` set."""
    return len(ib.client._msgQ)


# The socket: `IB` reports only connections that became ready, and their end. We must see what
# happens before that, and wait until the socket is really closed.


def bytes_received(ib: IB) -> Event:
    """Return the event of the bytes that arrive, before they are read."""
    return ib.client.conn.hasData


# A second's profits of 2,000 holdings are 150 kB.
PIECE_BYTES = 4096


def read_in_pieces(ib: IB) -> None:
    """Pass on in pieces what arrives at once.

    ib_async copies all that follows for each message that it takes out of its buffer.
    """
    conn = ib.client.conn
    receive: Callable[[bytes], None] = conn.data_received

    def receive_pieces(data: bytes) -> None:
        """Pass on data, piece by piece, as long as the connection is there."""
        for start in range(0, len(data), PIECE_BYTES):
            transport = conn.transport
            if transport is not None and transport.is_closing():
                return  # a message ended the connection: nothing that follows is read
            receive(data[start : start + PIECE_BYTES])

    conn.data_received = receive_pieces  # type: ignore[method-assign]


def socket_closed(ib: IB) -> Event:
    """Return the event of the end of the socket, also before the log-in is complete."""
    return ib.client.conn.disconnected


def has_socket(ib: IB) -> bool:
    """Return whether the socket is still open, also after `IB.disconnect()`."""
    return bool(ib.client.conn.isConnected())


def unread_bytes(ib: IB) -> bytes:
    """Return the bytes that arrived and do not form a whole message yet.

    ib_async waits for the rest of a message without a bound.
    """
    return ib.client._data


# The reading of messages: ib_async logs a trace or a line for each that it cannot use.


def intercept_messages(ib: IB, read: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Read each message with a function of ours, which may call ib_async's own.

    ib_async's decoder logs the exception of a message that it cannot read, and goes on.

    Args:
        ib: The connection.
        read: Gets the fields of each message.

    Returns:
        ib_async's own function; it raises what it cannot read.
    """
    decoder = ib.client.decoder
    interpret: Callable[[list[str]], None] = decoder.interpret

    def report(_message: str) -> None:
        """Raise the cause; the message holds values of the account and is not logged."""
        error = sys.exc_info()[1]
        if error is not None:
            # Where a field cannot be read, ib_async's log line fails as well (its `args` is
            # unbound): the error before it is the cause.
            raise error.__context__ or error

    # The decoder uses its logger for messages that it cannot read, and for nothing else.
    decoder.logger = SimpleNamespace(exception=report)  # type: ignore[assignment]
    decoder.interpret = read  # type: ignore[method-assign]
    return interpret


def listen(ib: IB, listener: Listener) -> None:
    """Pass each message of a new client to a listener: as it is sent, or before it is read.

    ib_async shows messages to its own decoder alone, and requests to its log.
    """
    client = ib.client
    interpret: Callable[[list[str]], None] = client.decoder.interpret
    send: Callable[[bytes], None] = client.conn.sendMsg
    greeted = False

    def read(fields: list[str]) -> None:
        """Pass a message to the listener before ib_async reads it."""
        listener(RECEIVED, fields)
        interpret(fields)

    def write(data: bytes) -> None:
        """Pass a message to the listener as it is sent; before the first one, the greeting."""
        nonlocal greeted
        if client.serverVersion():  # before the greeting the client offers its versions
            if not greeted:
                listener(RECEIVED, (GREETING, str(client.serverVersion())))
            greeted = True
            listener(SENT, data[LENGTH_BYTES:].decode().split("\0")[:-1])
        send(data)

    client.decoder.interpret = read  # type: ignore[method-assign]
    client.conn.sendMsg = write  # type: ignore[method-assign]
    socket_closed(ib).connect(lambda _message: listener(RECEIVED, (HUNG_UP,)))


# The name under which ib_async keeps the requests of `reqMktData`.
_MARKET_DATA = "mktData"

# Tickers: `IB` has one ticker per contract for ever. We need the id of each request, and a ticker
# without old prices when a contract is requested again.


def request_id_of(ib: IB, ticker: Ticker) -> int:
    """Return the id of the market data request of a ticker; refusals name the id alone."""
    return ib.wrapper.ticker2ReqId[_MARKET_DATA][ticker]


def retire_ticker(ib: IB, ticker: Ticker, contract: Contract) -> None:
    """End a ticker without a message, so that the next request of the contract gets a new one.

    Ticks of the old request, which may still arrive, find the old ticker.
    """
    ib.wrapper.endTicker(ticker, _MARKET_DATA)
    ib.wrapper.tickers.pop(hash(contract), None)


def read_messages(ib: IB, kind: MessageType, read: Callable[[list[str]], bool]) -> None:
    """Read the messages of a type with a function of ours.

    ib_async drops account times, ignores the account that an end of a download names (ib_async
    issues/72), and reads rows and values in a loop over the types of their fields, into objects
    that it keeps.

    Args:
        ib: The connection.
        kind: The type of the messages.
        read: Gets the fields of a message, and returns whether it could read them. Other messages
            go to ib_async, which reports those that are malformed.
    """
    handlers = ib.client.decoder.handlers
    usual = handlers[kind]
    handlers[kind] = lambda fields: read(fields) or usual(fields)


# The place of the time among the fields of an execution.
_EXECUTED_AT = 15

# The place of the last trade among the fields of contract details, and the version of the API from
# which on no version of the message stands before it.
_LAST_TRADE_AT = 4
_SHORT_DETAILS = 164

# Stands between the time of a last trade and the words of its zone; ib_async splits at blanks.
IN_ZONE = "~"


def rewrite_times(ib: IB) -> None:
    """Rewrite the times of executions and last trades, so that ib_async reads them in their zones.

    ib_async reads an execution in UTC, such as `20231214-20:57:37`, as one of this machine's zone
    (issues/230), and none in a zone that the IANA database does not name. With the zone of a last
    trade it replaces that of the trading hours (ib_insync pull/664).
    """

    def rewrite_execution(fields: list[str]) -> bool:
        """Write the time of an execution in UTC, and leave the message to ib_async."""
        if len(fields) > _EXECUTED_AT:
            executed_at = read_time(fields[_EXECUTED_AT]).astimezone(UTC)
            fields[_EXECUTED_AT] = f"{executed_at:%Y%m%d %H:%M:%S} UTC"
        return False

    def rewrite_details(fields: list[str]) -> bool:
        """Join time and zone of the last trade by IN_ZONE: ib_async would split them at blanks."""
        # Older messages have a version of their own before it.
        place = _LAST_TRADE_AT + (ib.client.serverVersion() < _SHORT_DETAILS)
        if len(fields) > place:
            day, *time_and_zone = fields[place].replace("-", " ").split() or [""]
            if "-" in fields[place]:  # as in an execution, a dash stands for UTC
                time_and_zone.append("UTC")
            fields[place] = f"{day} {IN_ZONE.join(time_and_zone)}".strip()
        return False

    read_messages(ib, MessageType.EXECUTION, rewrite_execution)
    read_messages(ib, MessageType.CONTRACT_DETAILS, rewrite_details)


def skip_positions(ib: IB) -> None:
    """Keep no position rows: ib_async keeps and logs each, and lists all at the log-in."""
    ib.wrapper.position = lambda *_row: None  # type: ignore[method-assign]


def skip_account_summaries(ib: IB) -> None:
    """Request no summary of all accounts after a restore (1102), as ib_async does each time.

    It cancels none of them, and the gateway refuses the third (322). Source: IB, "Account Summary":
    two may be active (interactivebrokers.github.io/tws-api/account_summary.html).
    """
    ib.errorEvent -= ib._onError


def is_unanswered(error: BaseException | None) -> bool:
    """Return whether a log-in failed because nobody answered; ib_async closes the socket then.

    It requests the positions at each log-in, and raises a `ConnectionError` with a list of the
    requests that timed out, and no code (2.1.0, `connectAsync`).
    """
    timed_out = ["positions request timed out"]
    return isinstance(error, TimeoutError) or (
        isinstance(error, ConnectionError) and error.args == (timed_out,)
    )
