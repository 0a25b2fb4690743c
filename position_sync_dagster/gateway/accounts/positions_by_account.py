"""The positions of a login with many accounts, which the gateway lists account by account."""

import asyncio
from collections.abc import Iterator

from ib_async import IB, Position

from position_sync_dagster.errors import shown
from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.accounts.portfolio_rows import OddRows
from position_sync_dagster.gateway.codes import MessageType, is_notice

LISTED_TOGETHER = 50
"""`reqPositions` lists the positions of up to so many accounts. Source: IB, "Requesting Positions"
(interactivebrokers.github.io/tws-api/positions.html), which names `reqPositionsMulti` for more."""

MAX_ACCOUNTS = 500
"""The most accounts of a login. IB names no limit: it is ours, since their values are requested
one account after the other and are old after 10 minutes."""

AT_ONCE = 10
"""Requests that are under way together; further ones would delay other messages to the gateway."""

_FIELDS = 18
"""The number of fields of a row: message type, version, request, account, the 13 fields that a row
of `reqPositions` has as well, and the model code (ib_async 2.1.0, decoder.py)."""


class PositionsByAccount:
    """Requests one list of positions for each account, and reads their rows as position rows.

    A list stays subscribed: the changes of its account follow it. Each message names its request,
    so that rows of an earlier list are recognized.

    A row may have a model code: it is part of a model portfolio of an advisor. IB does not say
    whether the row without a code is then the sum or the rest. Therefore a holding that has any
    row with a code is set aside by name, so that nothing counts twice or is left out.

    Args:
        odd_rows: Gets the holdings that are set aside.
        accounts: The accounts of the login.

    Attributes:
        refused: The accounts whose list the gateway refused, each with the code.
    """

    def __init__(self, ib: IB, odd_rows: OddRows, *, accounts: tuple[str, ...]) -> None:
        self.refused: dict[str, int] = {}
        self._ib = ib
        self._odd_rows = odd_rows
        self._accounts = accounts
        self._next: Iterator[str] = iter(())
        self._subscribed: dict[str, str] = {}
        self._rows: dict[str, list[list[str]]] = {}
        ib_async_internals.read_messages(ib, MessageType.POSITION_MULTI, self._read_row)
        ib_async_internals.read_messages(ib, MessageType.POSITION_MULTI_END, self._read_end)
        ib.errorEvent += self._on_error

    def request(self) -> asyncio.Future[list[Position]]:
        """Request the list of each account, a few at a time, in place of those before.

        Returns:
            The rows of all accounts, once each list has ended or was refused.

        Raises:
            ConnectionError: There is no connection.
        """
        for request in self._subscribed:
            self._ib.client.cancelPositionsMulti(int(request))
        self._subscribed.clear()
        self._rows.clear()
        self.refused.clear()
        self._odd_rows.accept_again()
        listing = ib_async_internals.begin_position_list(self._ib)
        self._next = iter(self._accounts)
        for _ in range(AT_ONCE):
            self._request_next()
        return listing

    def _request_next(self) -> None:
        account = next(self._next, None)
        if account is not None:
            request = self._ib.client.getReqId()
            self._subscribed[str(request)] = account
            self._rows[str(request)] = []
            self._ib.client.reqPositionsMulti(request, account, "")
        elif not self._rows:
            ib_async_internals.end_position_list(self._ib)

    def _read_row(self, fields: list[str]) -> bool:
        if len(fields) != _FIELDS:
            return False
        request = fields[2]
        if request in self._rows:
            self._rows[request].append(fields)
        elif request in self._subscribed:
            self._take([fields])
        return True

    def _read_end(self, fields: list[str]) -> bool:
        rows = self._rows.pop(fields[-1], None)
        if rows is not None:
            self._take(rows)
            self._request_next()
        return True

    def _take(self, rows: list[list[str]]) -> None:
        for _, _, _, account, conid, *_, model in rows:
            if model:
                self._odd_rows.refuse(account, conid, f"a part in the model {shown(model)}")
        for row in rows:
            if not row[-1]:
                ib_async_internals.take_position(self._ib, row[3:-1])

    def _on_error(self, request: int, code: int, _text: str, _contract: object) -> None:
        if str(request) in self._rows and not is_notice(code):
            del self._rows[str(request)]
            self.refused[self._subscribed.pop(str(request))] = code
            self._request_next()
