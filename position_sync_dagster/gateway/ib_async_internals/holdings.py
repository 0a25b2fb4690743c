"""The messages of accounts and holdings: those that ib_async drops, and the many of large books.

ib_async reads a message in a loop over its fields or its types, into objects that it keeps, and
writes lines of a log for some. Where thousands come, they are read here.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from ib_async import IB, Contract, Position

from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.gateway.ib_async_internals.connection import fields_of

_POSITIONS = "positions"
"""Under this name ib_async collects the rows of a list of positions."""

WHOLE_ROW = 16
"""The number of fields of a whole position row; a portfolio row has more."""


UNSET_TEXT = b"1.797693134862315"
"""So an unset double begins, as sent (`translate.UNSET`)."""

PNL_SINGLE = MessageType.PNL_SINGLE.start
"""So a message of a PnLSingle subscription begins."""

REALIZED = 5
"""The place of the realized profit among its fields."""


class PnlFields(NamedTuple):
    """A message of a PnLSingle subscription; a field that is empty is 0, as ib_async reads it."""

    position: float
    daily: float
    unrealized: float
    realized: float
    value: float


def pnl_request(message: bytes) -> bytes:
    r"""Return the id of the request that a message of a PnLSingle subscription names, as sent.

    >>> pnl_request(b"95\0" b"12\0" b"-2\0")
    b'12'
    """
    first = len(PNL_SINGLE)
    return message[first : message.find(b"\0", first)]


def lacks_realized(message: bytes) -> bool:
    """Return whether the realized profit of a message of a PnLSingle subscription is unset."""
    if UNSET_TEXT not in message:
        return False
    fields = message.split(b"\0", REALIZED + 1)
    return len(fields) > REALIZED and fields[REALIZED].startswith(UNSET_TEXT)


def read_pnl(ib: IB, message: bytes) -> PnlFields | None:
    """Read a message of a PnLSingle subscription as sent.

    A large book gets a thousand of them a second, and looks at a tenth. One that cannot be read is
    handed to ib_async, which reports it, once the message that is being read has been.
    """
    try:
        _type, _request, *sent, _end = message.split(b"\0")
        position, daily, unrealized, realized, value = [float(text or 0) for text in sent[:5]]
    except ValueError:
        loop = asyncio.get_running_loop()
        loop.call_soon(ib.client.decoder.interpret, fields_of(message))
        return None
    return PnlFields(position, daily, unrealized, realized, value)


def on_download_end(ib: IB, handler: Callable[[str], None]) -> None:
    """Call a handler with the account of each end of a download; the account may be empty.

    ib_async ignores the account, and ends whatever download it waits for (ib_async issues/72).
    """

    def read(fields: list[str]) -> None:
        handler(fields[2] if len(fields) > 2 else "")

    ib.client.decoder.handlers[MessageType.ACCOUNT_DOWNLOAD_END] = read


def deliver_positions(ib: IB) -> None:
    """Pass position rows to the event of `IB` and to the list that is awaited.

    ib_async keeps each row, and writes the text of a log line that nobody reads. It also lists all
    positions at the log-in.
    """
    wrapper = ib.wrapper

    def position(account: str, contract: Contract, size: float, cost: float) -> None:
        row = Position(account, contract, size, cost)
        listed = wrapper._results.get(_POSITIONS)
        if listed is not None:
            listed.append(row)
        ib.positionEvent.emit(row)

    wrapper.position = position  # type: ignore[method-assign, assignment]


class RowFields(NamedTuple):
    """What a position and a portfolio row have in common, as sent."""

    account: str
    conid: str
    symbol: str
    sec_type: str
    multiplier: str
    quantity: str


def filter_positions(
    ib: IB,
    accepts: Callable[[RowFields], bool],
    unreadable: Callable[[str, str], None],
) -> None:
    """Read a position row only if a function accepts its fields as sent.

    ib_async takes an empty quantity for 0, and cannot read others at all. A row that is too short
    goes to ib_async, which reports it as unreadable.

    Args:
        ib: The connection.
        accepts: Gets the fields of each row.
        unreadable: Gets account and conid of an accepted row that ib_async cannot read.
    """
    handlers = ib.client.decoder.handlers
    read = handlers[MessageType.POSITION]

    def read_accepted(fields: list[str]) -> None:
        if len(fields) < WHOLE_ROW:
            read(fields)
            return
        row = RowFields(fields[2], fields[3], fields[4], fields[5], fields[9], fields[-2])
        if accepts(row):
            try:
                read(fields)
            except ValueError:
                unreadable(row.account, row.conid)

    handlers[MessageType.POSITION] = read_accepted
