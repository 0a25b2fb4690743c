"""Counts of connections, requests, messages and orders."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from ib_gateway_simulator.protocol.message_ids import NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderMessage:
    """One order message of a client; a program that only reads positions must never send any."""

    client_id: int
    name: str
    fields: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Stats:
    """Counts of connections, requests and messages; all of them only grow, except `now`."""

    # Requests by client id and name.
    requests: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    # Messages sent by message id.
    sent: Counter[str] = field(default_factory=Counter)
    # Refused and dropped connections by reason.
    refused: Counter[str] = field(default_factory=Counter)
    orders: list[OrderMessage] = field(default_factory=list)
    # Connections that are logged in now, by client id.
    now: Counter[int] = field(default_factory=Counter)
    # Logins by client id.
    total: Counter[int] = field(default_factory=Counter)
    peak: int = 0
    sockets: int = 0
    rate_violations: int = 0

    def connected(self, client_id: int) -> None:
        """Count a client that has logged in."""
        self.now[client_id] += 1
        self.total[client_id] += 1
        self.peak = max(self.peak, self.now.total())

    def disconnected(self, client_id: int) -> None:
        """Count the end of a client that was logged in."""
        self.now[client_id] -= 1

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        by_client = {
            str(client): {"now": self.now[client], "total": total}
            for client, total in sorted(self.total.items())
        }
        connections = {
            "now": self.now.total(),
            "peak": self.peak,
            "total": self.total.total(),
            "by_client": by_client,
            "sockets": self.sockets,
        }
        requests = {
            str(client): dict(sorted(counts.items()))
            for client, counts in sorted(self.requests.items())
        }
        sent = {NAMES.get(kind, kind): count for kind, count in sorted(self.sent.items())}
        return {
            "connections": connections,
            "requests": requests,
            "messages_sent": sent,
            "orders_received": [asdict(order) for order in self.orders],
            "refused": dict(self.refused),
            "rate_violations": self.rate_violations,
        }
