"""Requests that a gateway keeps unanswered while it has no connection to IB."""

from __future__ import annotations

from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.protocol.requests import Request

# The requests about positions and accounts; a cancel waits behind the request that it ends.
ACCOUNT_REQUESTS = frozenset(
    {
        "reqPositions",
        "cancelPositions",
        "reqPositionsMulti",
        "cancelPositionsMulti",
        "reqAccountUpdates",
        "reqAccountUpdatesMulti",
        "cancelAccountUpdatesMulti",
        "reqAccountSummary",
        "cancelAccountSummary",
    }
)


class HeldRequests:
    """Keeps requests about positions and accounts, in their order, while it is switched on."""

    def __init__(self) -> None:
        self.on = False
        self._held: list[tuple[ClientConnection, Request]] = []

    def hold(self, client: ClientConnection, request: Request) -> bool:
        """Keep a request and return True; return False for one that is answered now."""
        if not self.on or request.name not in ACCOUNT_REQUESTS:
            return False
        self._held.append((client, request))
        return True

    def drop(self, client: ClientConnection) -> None:
        """Forget the requests of a client that has gone."""
        self._held = [held for held in self._held if held[0] is not client]

    def release(self) -> list[tuple[ClientConnection, Request]]:
        """Switch it off and return what was kept, oldest first."""
        self.on = False
        held = self._held
        self._held = []
        return held
