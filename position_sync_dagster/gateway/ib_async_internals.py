"""Every private thing of ib_async that we touch, each with the reason why.

Written against ib_async 2.1.0. The other modules of this package use its public interface alone:
`IB`, its events, and the request methods of `IB.client`.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from ib_async import IB, Contract, Event, PortfolioItem, Position, Ticker

from position_sync_dagster.gateway.codes import MessageType

_MARKET_DATA = "mktData"
"""Under this name ib_async keeps the requests of `reqMktData`."""

_POSITIONS = "positions"
"""Under this name ib_async collects the rows of a list of positions."""

WHOLE_ROW = 16
"""The number of fields of a whole position row; a portfolio row has more."""


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


# The reading of messages: ib_async drops some that we need, and logs a trace or a line for each
# that it cannot use.


def on_account_time(ib: IB, handler: Callable[[list[str]], None]) -> None:
    """Call a handler, besides those before it, with the fields of each account time message.

    ib_async drops these messages, and they are the only time of portfolio values.
    """
    before = ib.client.decoder.handlers.get(MessageType.ACCOUNT_TIME)

    def read(fields: list[str]) -> None:
        if before is not None:
            before(fields)
        handler(fields)

    ib.client.decoder.handlers[MessageType.ACCOUNT_TIME] = read


def on_download_end(ib: IB, handler: Callable[[str], None]) -> None:
    """Call a handler with the account of each end of a download; the account may be empty.

    ib_async ignores the account, and ends whatever download it waits for (ib_async issues/72).
    """

    def read(fields: list[str]) -> None:
        handler(fields[2] if len(fields) > 2 else "")

    ib.client.decoder.handlers[MessageType.ACCOUNT_DOWNLOAD_END] = read


def deliver_holdings(ib: IB) -> None:
    """Pass position and portfolio rows to the events of `IB` and to the list that is awaited.

    ib_async makes a second contract of each row, keeps the row, and writes the text of a log line
    that nobody reads: half of the time that a row takes. It also lists all positions at the log-in.
    """
    wrapper = ib.wrapper

    def position(account: str, contract: Contract, size: float, cost: float) -> None:
        row = Position(account, contract, size, cost)
        listed = wrapper._results.get(_POSITIONS)
        if listed is not None:
            listed.append(row)
        ib.positionEvent.emit(row)

    def portfolio(contract: Contract, *values: Any) -> None:
        ib.updatePortfolioEvent.emit(PortfolioItem(contract, *values))

    wrapper.position = position  # type: ignore[method-assign, assignment]
    wrapper.updatePortfolio = portfolio  # type: ignore[method-assign, assignment]


class RowFields(NamedTuple):
    """What a position and a portfolio row have in common, as sent."""

    account: str
    conid: str
    symbol: str
    sec_type: str
    multiplier: str
    quantity: str


def filter_holdings(
    ib: IB,
    accepts: Callable[[RowFields], bool],
    unreadable: Callable[[str, str], None],
) -> None:
    """Read a position or portfolio row only if a function accepts its fields as sent.

    ib_async takes an empty quantity of a position for 0, and cannot read others at all. A row that
    is too short goes to ib_async, which reports it as unreadable.

    Args:
        ib: The connection.
        accepts: Gets the fields of each row.
        unreadable: Gets account and conid of an accepted row that ib_async cannot read.
    """
    handlers = ib.client.decoder.handlers

    def filtered(message: MessageType, account: int, conid: int, quantity: int) -> None:
        read = handlers[message]

        def read_accepted(fields: list[str]) -> None:
            if len(fields) < WHOLE_ROW:
                read(fields)
                return
            symbol, sec_type, *_, multiplier = fields[conid + 1 : conid + 7]
            row = RowFields(
                fields[account], fields[conid], symbol, sec_type, multiplier, fields[quantity]
            )
            if accepts(row):
                try:
                    read(fields)
                except ValueError:
                    unreadable(row.account, row.conid)

        handlers[message] = read_accepted

    filtered(MessageType.POSITION, account=2, conid=3, quantity=-2)
    filtered(MessageType.PORTFOLIO_VALUE, account=-1, conid=2, quantity=-7)


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


# Tickers: `IB` has one ticker per contract for ever. We need the id of each request, and a ticker
# without old prices when a contract is requested again.


def request_id_of(ib: IB, ticker: Ticker) -> int:
    """Return the id of the market data request of a ticker; refusals name the id alone."""
    return ib.wrapper.ticker2ReqId[_MARKET_DATA][ticker]


def packet_time(ib: IB) -> float:
    """Return when the packet that is being read arrived, in Unix seconds.

    `Ticker.time` is the same as a datetime: this one is cheaper for each tick.
    """
    return ib.wrapper.time


def retire_ticker(ib: IB, ticker: Ticker, contract: Contract) -> None:
    """End a ticker without a message, so that the next request of the contract gets a new one.

    Ticks of the old request still find the old ticker, until `forget_request`.
    """
    ib.wrapper.endTicker(ticker, _MARKET_DATA)
    ib.wrapper.tickers.pop(hash(contract), None)


def forget_request(ib: IB, request_id: int) -> None:
    """Drop a retired request; ib_async keeps each for ever, and logs ticks of unknown ones."""
    ib.wrapper.reqId2Ticker.pop(request_id, None)


# Profit and loss: refusals name the id alone, and a refused request stays listed.


def account_pnl_request(ib: IB, account: str) -> int | None:
    """Return the id of an account's request for profit and loss; None where there is none."""
    return ib.wrapper.pnlKey2ReqId.get((account, ""))


def forget_account_pnl(ib: IB, account: str) -> None:
    """Drop an account's request without a message: the gateway has ended it."""
    request = ib.wrapper.pnlKey2ReqId.pop((account, ""), None)
    if request is not None:
        ib.wrapper.reqId2PnL.pop(request, None)


def forget_pnl_single(ib: IB, account: str, conid: int) -> None:
    """Drop a holding's request without a message: the gateway has ended it."""
    request = ib.wrapper.pnlSingleKey2ReqId.pop((account, "", conid), None)
    if request is not None:
        ib.wrapper.reqId2PnlSingle.pop(request, None)
