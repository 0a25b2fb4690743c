"""The profit desk: reqPnL and reqPnLSingle, about once a second and without a line."""

from __future__ import annotations

from dataclasses import dataclass

from position_sync_dagster.simulator.accounts.account_data import AccountDataService
from position_sync_dagster.simulator.accounts.ledger import Ledger
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.market.market import Market
from position_sync_dagster.simulator.protocol import messages
from position_sync_dagster.simulator.protocol.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Profit:
    """Hold one running reqPnL (conid 0) or reqPnLSingle."""

    account: str
    conid: int


class ProfitAndLossService:
    """Send the profits that clients follow."""

    def __init__(self, *, accounts: AccountDataService, ledger: Ledger, market: Market) -> None:
        self._accounts = accounts
        self._ledger = ledger
        self._market = market
        self._profits: dict[tuple[ClientConnection, int], _Profit] = {}
        self.silent = False

    def subscribe(self, client: ClientConnection, request: Request) -> None:
        """Start reqPnL or reqPnLSingle; the first message comes at once, if there is one."""
        account = self._accounts.account_of(client, request)
        if account is None:
            return
        if (client, request.req_id) in self._profits:
            client.send(messages.error(request.req_id, 102, "Duplicate ticker ID."))
            return
        profit = _Profit(account=account, conid=request.conid)
        self._profits[client, request.req_id] = profit
        if not self.silent:
            self._send(client, request.req_id, profit)

    def cancel(self, client: ClientConnection, req_id: int) -> None:
        if self._profits.pop((client, req_id), None) is None:
            text = f"Can't find EId with tickerId:{req_id}"
            client.send(messages.error(req_id, 300, text))

    def send_all(self) -> None:
        """Send every running profit once; the gateway does so about every second."""
        if self.silent:
            return
        for (client, req_id), profit in list(self._profits.items()):
            self._send(client, req_id, profit)

    def _send(self, client: ClientConnection, req_id: int, profit: _Profit) -> None:
        if profit.conid:
            held = self._ledger.holding(profit.account, profit.conid)
            if held is None:
                return
            worth = self._ledger.value(held, self._market.close_price(profit.conid))
            row = (held.quantity, worth.daily, worth.unrealized, held.realized, worth.value)
            client.send(messages.pnl_single(req_id, *row))
            return
        daily = unrealized = realized = 0.0
        for held in self._ledger.holdings(profit.account):
            worth = self._ledger.value(held, self._market.close_price(held.contract.conid))
            daily += worth.daily
            unrealized += worth.unrealized
            realized += held.realized or 0.0
        client.send(messages.pnl(req_id, daily, unrealized, realized))

    def __len__(self) -> int:
        return len(self._profits)

    def forget(self, client: ClientConnection | None = None) -> None:
        """End every profit of one client, or of all."""
        for key in [key for key in self._profits if client in (None, key[0])]:
            del self._profits[key]
