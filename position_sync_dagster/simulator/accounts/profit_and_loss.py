"""Answers to reqPnL and reqPnLSingle: about once a second, and without a market data line."""

from __future__ import annotations

from dataclasses import dataclass

from position_sync_dagster.simulator.accounts.account_data import AccountDataService
from position_sync_dagster.simulator.accounts.ledger import Ledger
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.market.market import Market
from position_sync_dagster.simulator.protocol import account_messages, messages
from position_sync_dagster.simulator.protocol.codes import Code
from position_sync_dagster.simulator.protocol.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subscription:
    """One running reqPnL (conid 0) or reqPnLSingle."""

    account: str
    conid: int


class ProfitAndLossService:
    """Sends the profits and losses that clients subscribe to."""

    def __init__(self, *, accounts: AccountDataService, ledger: Ledger, market: Market) -> None:
        self._accounts = accounts
        self._ledger = ledger
        self._market = market
        self._subscriptions: dict[tuple[ClientConnection, int], _Subscription] = {}
        self.silent = False
        """Send nothing, as without a connection to IB."""

    def subscribe(self, client: ClientConnection, request: Request) -> None:
        """Start reqPnL or reqPnLSingle; the first message is sent at once, if there is one."""
        account = self._accounts.account_of(client, request)
        if account is None:
            return
        if (client, request.req_id) in self._subscriptions:
            client.send(messages.error(request.req_id, Code.DUPLICATE_REQUEST_ID))
            return
        subscription = _Subscription(account=account, conid=request.conid)
        self._subscriptions[client, request.req_id] = subscription
        if not self.silent:
            self._send(client, request.req_id, subscription)

    def cancel(self, client: ClientConnection, req_id: int) -> None:
        """End one subscription; answer 300 where there is none."""
        if self._subscriptions.pop((client, req_id), None) is None:
            client.send(messages.error(req_id, Code.UNKNOWN_REQUEST_ID))

    def send_all(self) -> None:
        """Send every subscription once; the gateway does so about every second."""
        if self.silent:
            return
        for (client, req_id), subscription in list(self._subscriptions.items()):
            self._send(client, req_id, subscription)

    def _send(self, client: ClientConnection, req_id: int, subscription: _Subscription) -> None:
        if subscription.conid:
            holding = self._ledger.holding(subscription.account, subscription.conid)
            if holding is None:
                return
            worth = self._ledger.value(holding, self._market.close_price(subscription.conid))
            row = (holding.quantity, worth.daily, worth.unrealized, holding.realized, worth.value)
            client.send(account_messages.pnl_single(req_id, *row))
            return
        daily = unrealized = realized = 0.0
        for holding in self._ledger.holdings(subscription.account):
            worth = self._ledger.value(holding, self._market.close_price(holding.contract.conid))
            daily += worth.daily
            unrealized += worth.unrealized
            realized += holding.realized or 0.0
        client.send(account_messages.pnl(req_id, daily, unrealized, realized))

    def __len__(self) -> int:
        return len(self._subscriptions)

    def end_subscriptions(self, client: ClientConnection | None = None) -> None:
        """End every subscription of one client, or of all."""
        for key in [key for key in self._subscriptions if client in (None, key[0])]:
            del self._subscriptions[key]
