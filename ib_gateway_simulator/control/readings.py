"""Readings of a running gateway: counts, positions, ticks and order messages."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ib_gateway_simulator.accounts.ledger import Holding
from ib_gateway_simulator.clients.stats import OrderMessage
from ib_gateway_simulator.gateway.gateway import Gateway
from ib_gateway_simulator.gateway.scripts import Said


class Readings:
    """Reads one gateway; every dict is a copy, and ready for JSON."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @property
    def orders_received(self) -> list[OrderMessage]:
        """Every order message of every client, oldest first."""
        return list(self._gateway.stats.orders)

    @property
    def said(self) -> list[Said]:
        """What `say` and `answer` sent, oldest first, until the caller clears it."""
        return self._gateway.scripts.said

    def stats(self) -> dict[str, Any]:
        """Return all counts, as `GET /stats` does."""
        gateway = self._gateway
        lines = gateway.market_data.lines
        of_lines = {
            "lines_in_use": len(lines),
            "peak_lines": lines.peak,
            "line_limit": lines.limit,
            "lines_by_conid": lines.by_conid(),
            "silent_lines": lines.silent,
        }
        of_accounts = {
            "account_feed": gateway.accounts.updates.feed(),
            "odd_rows": gateway.accounts.rows.odd,
            "pnl_subscriptions": len(gateway.profits),
            "account_pnl_subscriptions": gateway.profits.accounts(),
        }
        state = {
            "steps": gateway.market.steps,
            "connectivity": "up" if gateway.connected else "lost",
            "paused": gateway.paused,
        }
        of_clients = gateway.stats.as_dict()
        return {"book": gateway.book.name} | of_lines | of_accounts | state | of_clients

    def positions(self) -> list[dict[str, Any]]:
        """Return all positions, also those that were closed today."""
        return [as_dict(holding) for holding in self._gateway.ledger.holdings()]

    def greeks(self, conid: int | None = None) -> dict[int, dict[str, float]]:
        """Return the theoretical price and greeks of each option now: the truth of this market.

        All of it is in the major unit of the currency, per unit of the underlying.
        """
        found = {}
        for contract in self._gateway.book.contracts.values():
            if contract.is_option and conid in (None, contract.conid):
                greeks, spot = self._gateway.market.theory(contract.conid)
                if greeks is not None:
                    found[contract.conid] = asdict(greeks) | {"underlying_price": spot}
        return found

    def ticks(self, conid: int) -> dict[str, dict[str, Any]]:
        """Return the newest price that was sent per field, and when it was sent."""
        return self._gateway.market_data.log.newest(conid)

    def recent_ticks(self, conid: int | None = None) -> list[dict[str, Any]]:
        """Return the last ticks that were sent, oldest first; needs the option `tick_ring`."""
        return [asdict(tick) for tick in self._gateway.market_data.log.recent(conid)]


def as_dict(holding: Holding) -> dict[str, Any]:
    """Return one position for JSON."""
    contract = holding.contract
    of_contract = {
        "conid": contract.conid,
        "symbol": contract.symbol,
        "sec_type": contract.sec_type.value,
        "local_symbol": contract.local_symbol,
        "expiry": contract.expiry or None,
        "strike": contract.strike if contract.is_option else None,
        "right": contract.right or None,
        "multiplier": contract.multiplier,
        "currency": contract.currency,
    }
    held = {
        "quantity": holding.quantity,
        "average_cost": holding.average_cost,
        "realized_pnl": holding.realized,
    }
    return {"account": holding.account} | of_contract | held
