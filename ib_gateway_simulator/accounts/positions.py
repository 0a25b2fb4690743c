"""Answers to reqPositions and reqPositionsMulti, and the changes that follow them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ib_gateway_simulator.accounts.holding_rows import HoldingRows, Row
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.protocol import account_messages
from ib_gateway_simulator.protocol.fields import Fields


@dataclass(slots=True, eq=False, kw_only=True)
class _Answer:
    """A position list whose tail is still to come; `waiting` requests are answered after it.

    `due` is set if the time of the tail came while there was no connection to IB.
    """

    tail: list[Fields]
    waiting: int = 0
    due: bool = False


class PositionsService:
    """Sends position lists, and every changed position to the clients that subscribed.

    Args:
        rows: Writes the rows.
        call_later: Runs an action after some seconds, but not during a pause.
    """

    def __init__(
        self, rows: HoldingRows, call_later: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self._rows = rows
        self._call_later = call_later
        self._clients: set[ClientConnection] = set()
        self._answers: dict[ClientConnection, _Answer] = {}
        self._by_account: dict[tuple[ClientConnection, int], str] = {}
        self._silent = False
        # How long after the first rows the end of a list comes; None means never.
        self.end_delay_s: float | None = 0.0
        # How many rows come only with a delayed end.
        self.late_rows = 0

    def subscribe(self, client: ClientConnection) -> None:
        """Send all positions of all accounts and their end, and every change from now on.

        A client's requests are answered one after the other.
        """
        self._clients.add(client)
        answer = self._answers.get(client)
        if answer is None:
            self._answer(client, waiting=0)
        else:
            answer.waiting += 1

    def _answer(self, client: ClientConnection, *, waiting: int) -> None:
        rows = list(self._rows.positions())
        if self.end_delay_s == 0:
            for row in rows:
                client.send(row)
            client.send(account_messages.position_end())
            if waiting:
                self._answer(client, waiting=waiting - 1)
            return

        at_once = len(rows) - self.late_rows
        for row in rows[: max(0, at_once)]:
            client.send(row)
        if self.end_delay_s is None:
            return
        tail = [*rows[max(0, at_once) :], account_messages.position_end()]
        answer = self._answers[client] = _Answer(tail=tail, waiting=waiting)
        self._call_later(self.end_delay_s, lambda: self._send_tail(client, answer))

    def _send_tail(self, client: ClientConnection, answer: _Answer) -> None:
        if self._answers.get(client) is not answer:
            return
        if self._silent:
            answer.due = True
            return
        del self._answers[client]
        for fields in answer.tail:
            client.send(fields)
        if answer.waiting:
            self._answer(client, waiting=answer.waiting - 1)
        client.flush()

    def cancel(self, client: ClientConnection) -> None:
        """Send no more changes to a client."""
        self._clients.discard(client)

    def multi(self, client: ClientConnection, req_id: int, account: str) -> None:
        """Send the positions of one account, their end, and every change from now on."""
        self._by_account[client, req_id] = account
        for row in self._rows.positions_multi(req_id, account):
            client.send(row)
        if self.end_delay_s == 0:
            client.send(account_messages.position_multi_end(req_id))
        elif self.end_delay_s is not None:
            self._call_later(self.end_delay_s, lambda: self._end_multi(client, req_id))

    def _end_multi(self, client: ClientConnection, req_id: int) -> None:
        if (client, req_id) in self._by_account:
            client.send(account_messages.position_multi_end(req_id))
            client.flush()

    def cancel_multi(self, client: ClientConnection, req_id: int) -> None:
        """Send no more changes for one request."""
        self._by_account.pop((client, req_id), None)

    def send_change(self, row: Row) -> None:
        """Send a changed position to every client that subscribed."""
        for client in self._clients:
            client.send(self._rows.position(row))
            client.flush()
        for (client, req_id), account in self._by_account.items():
            if self._rows.concerns(row, account):
                client.send(self._rows.position_multi(req_id, row))
                client.flush()

    def start_silence(self) -> None:
        """Send no late tail from now on, as without a connection to IB."""
        self._silent = True

    def end_silence(self) -> None:
        """Send late tails again, first those whose time came in the silence."""
        self._silent = False
        for client, answer in list(self._answers.items()):
            if answer.due:
                self._send_tail(client, answer)

    def end_subscriptions(self, client: ClientConnection | None = None) -> None:
        """End the subscription of one client, or of all."""
        for receiver in {*self._clients, *self._answers}:
            if client in (None, receiver):
                self._clients.discard(receiver)
                self._answers.pop(receiver, None)
        self._by_account = {
            key: account
            for key, account in self._by_account.items()
            if client not in (None, key[0])
        }
