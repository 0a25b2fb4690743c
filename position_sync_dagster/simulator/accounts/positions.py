"""Answers to reqPositions and reqPositionsMulti, and the changes that follow the first."""

from __future__ import annotations

from position_sync_dagster.simulator.accounts.holding_rows import HoldingRows
from position_sync_dagster.simulator.accounts.ledger import Holding
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.protocol import account_messages


class PositionsService:
    """Sends position lists, and every changed position to the clients that subscribed."""

    def __init__(self, rows: HoldingRows) -> None:
        self._rows = rows
        self._clients: set[ClientConnection] = set()

    def subscribe(self, client: ClientConnection) -> None:
        """Send all positions of all accounts and their end, and every change from now on."""
        self._clients.add(client)
        for row in self._rows.positions():
            client.send(row)
        client.send(account_messages.position_end())

    def cancel(self, client: ClientConnection) -> None:
        """Send no more positions to a client."""
        self._clients.discard(client)

    def multi(self, client: ClientConnection, req_id: int, account: str) -> None:
        """Send the positions of one account and their end."""
        for row in self._rows.positions_multi(req_id, account):
            client.send(row)
        client.send(account_messages.position_multi_end(req_id))

    def send_change(self, holding: Holding) -> None:
        """Send a changed position to every client that subscribed."""
        for client in self._clients:
            client.send(self._rows.position(holding))

    def end_subscriptions(self, client: ClientConnection | None = None) -> None:
        """End the subscription of one client, or of all."""
        for each in list(self._clients):
            if client in (None, each):
                self._clients.discard(each)
