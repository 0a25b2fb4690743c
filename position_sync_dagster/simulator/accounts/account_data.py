"""Answers about accounts: positions, account updates and summaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from position_sync_dagster.simulator.accounts.account_values import account_values
from position_sync_dagster.simulator.accounts.ledger import Holding, Ledger
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.market.market import Market
from position_sync_dagster.simulator.protocol import account_messages, messages
from position_sync_dagster.simulator.protocol.codes import Code
from position_sync_dagster.simulator.protocol.fields import Fields
from position_sync_dagster.simulator.protocol.requests import Request


class AccountDataService:
    """Answers requests about accounts. None of it uses a market data line.

    Args:
        call_later: Runs an action after some seconds, but not during a pause.
        refresh_interval_s: How often a subscribed account is sent again (IB: 3 minutes).
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        market: Market,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], None],
        refresh_interval_s: float,
    ) -> None:
        self._ledger = ledger
        self._market = market
        self._now = now
        self._call_later = call_later
        self._refresh_interval_s = refresh_interval_s
        self._position_clients: set[ClientConnection] = set()
        self._feeds: dict[ClientConnection, str] = {}
        self._feed_versions: dict[ClientConnection, object] = {}
        self._unsent: list[Holding] = []
        self.silent = False
        """Send no changes, as without a connection to IB."""

    @property
    def names(self) -> tuple[str, ...]:
        """The accounts of the login."""
        return tuple(self._ledger.accounts)

    def feed(self) -> dict[str, object] | None:
        """Return the account that is subscribed and the ids of its clients; None without one."""
        for account in self._feeds.values():
            clients = [c.client_id for c in self._feeds if c.client_id is not None]
            return {"account": account, "clients": sorted(clients)}
        return None

    # -- positions ----------------------------------------------------------------------------

    def subscribe_positions(self, client: ClientConnection) -> None:
        """Send all positions of all accounts and their end, and every change from now on."""
        self._position_clients.add(client)
        for holding in self._ledger.holdings():
            client.send(_position(holding))
        client.send(account_messages.position_end())

    def cancel_positions(self, client: ClientConnection) -> None:
        """Send no more positions to a client."""
        self._position_clients.discard(client)

    def positions_multi(self, client: ClientConnection, request: Request) -> None:
        """Answer reqPositionsMulti with the positions of one account."""
        account = self.account_of(client, request)
        if account is None:
            return
        for holding in self._ledger.holdings(account):
            row = (account, holding.contract, holding.quantity, holding.average_cost)
            client.send(account_messages.position_multi(request.req_id, *row))
        client.send(account_messages.position_multi_end(request.req_id))

    # -- account updates ----------------------------------------------------------------------

    def account_updates(self, client: ClientConnection, request: Request) -> None:
        """Answer reqAccountUpdates.

        One account at a time can be subscribed by all clients of a login: a client that requests
        another account gets 2101 and no end (IB, "Account Handling"). When the same client
        requests another account, that one replaces its first one, and 2100 reports this.
        """
        if not request.subscribe:
            if self._feeds.pop(client, None) is not None:
                self._feed_versions.pop(client, None)
            client.send(messages.error(-1, Code.ACCOUNT_UNSUBSCRIBED))
            return
        account = request.account or (self.names[0] if len(self.names) == 1 else "")
        if account not in self._ledger.accounts:
            client.send(_unknown_account(-1, account, validator="bU"))
            return
        others = {c: a for c, a in self._feeds.items() if c is not client and a != account}
        if others:
            values = {
                "clients": ", ".join(str(c.client_id) for c in others),
                "account": next(iter(others.values())),
            }
            client.send(messages.error(-1, Code.OTHER_ACCOUNT_SUBSCRIBED, **values))
            return
        if self._feeds.get(client, account) != account:
            client.send(messages.error(-1, Code.ACCOUNT_UNSUBSCRIBED))
        self._feeds[client] = account
        self._send_account(client, account)
        client.send(account_messages.account_download_end(account))
        version = object()
        self._feed_versions[client] = version
        self._call_later(self._refresh_interval_s, lambda: self._refresh(client, version))

    def _refresh(self, client: ClientConnection, version: object) -> None:
        account = self._feeds.get(client)
        if self._feed_versions.get(client) is not version or account is None:
            return
        if not self.silent:
            self._send_account(client, account)
            client.flush()
        self._call_later(self._refresh_interval_s, lambda: self._refresh(client, version))

    def _send_account(self, client: ClientConnection, account: str) -> None:
        for tag, value, currency in self._values(account):
            client.send(account_messages.account_value(account, tag, value, currency))
        # A gateway sends the time after every single row (ibkr-go, pnl_single).
        clock = self._clock()
        for holding in self._ledger.holdings(account):
            client.send(self._portfolio_row(holding))
            client.send(clock)
        client.send(clock)

    def _clock(self) -> Fields:
        time = datetime.fromtimestamp(self._now(), UTC)
        return account_messages.account_time(time.strftime("%H:%M"))

    def _portfolio_row(self, holding: Holding) -> Fields:
        worth = self._ledger.value(holding, self._market.close_price(holding.contract.conid))
        return account_messages.portfolio_value(
            holding.account,
            holding.contract,
            held=holding.quantity,
            price=worth.price,
            value=worth.value,
            average_cost=holding.average_cost,
            unrealized=worth.unrealized,
            realized=holding.realized or 0.0,
        )

    # -- account values -----------------------------------------------------------------------

    def _values(self, account: str) -> Iterator[tuple[str, str, str]]:
        return account_values(self._ledger, self._market, account)

    def account_of(self, client: ClientConnection, request: Request) -> str | None:
        """Return the account that a request means, or refuse it with 321 and return None."""
        if request.account in self._ledger.accounts:
            return request.account
        if not request.account and len(self.names) == 1:
            return self.names[0]
        client.send(_unknown_account(request.req_id, request.account, validator="bV"))
        return None

    def account_updates_multi(self, client: ClientConnection, request: Request) -> None:
        """Answer reqAccountUpdatesMulti with the values of one account."""
        account = self.account_of(client, request)
        if account is None:
            return
        for tag, value, currency in self._values(account):
            row = (request.req_id, account, tag, value, currency)
            client.send(account_messages.account_update_multi(*row))
        client.send(account_messages.account_update_multi_end(request.req_id))

    def summary(self, client: ClientConnection, request: Request) -> None:
        """Answer reqAccountSummary with the values of every account."""
        for account in self.names:
            for tag, value, currency in self._values(account):
                row = (request.req_id, account, tag, value, currency)
                client.send(account_messages.account_summary(*row))
        client.send(account_messages.account_summary_end(request.req_id))

    # -- changes ------------------------------------------------------------------------------

    def send_change(self, holding: Holding) -> None:
        """Send a changed position to every subscribed client, or keep it until silence ends."""
        if self.silent:
            self._unsent.append(holding)
            return
        for client in self._position_clients:
            client.send(_position(holding))
        clock = self._clock()
        for client, account in self._feeds.items():
            if account == holding.account:
                client.send(self._portfolio_row(holding))
                client.send(clock)

    def end_silence(self) -> None:
        """Send changes again, first those of the silence."""
        self.silent = False
        unsent, self._unsent = self._unsent, []
        for holding in unsent:
            self.send_change(holding)

    def end_subscriptions(self, client: ClientConnection | None = None) -> None:
        """End every subscription of one client, or of all."""
        for each in {*self._position_clients, *self._feeds}:
            if client in (None, each):
                self._position_clients.discard(each)
                self._feeds.pop(each, None)
                self._feed_versions.pop(each, None)


def _position(holding: Holding) -> Fields:
    return account_messages.position(
        holding.account, holding.contract, holding.quantity, holding.average_cost
    )


def _unknown_account(req_id: int, account: str, *, validator: str) -> Fields:
    cause = f"Invalid account code '{account}'."
    return messages.error(req_id, Code.INVALID_REQUEST, validator=validator, cause=cause)
