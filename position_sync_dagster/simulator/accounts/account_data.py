"""The account desk: positions, account updates and summaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from position_sync_dagster.simulator.accounts.ledger import Holding, Ledger
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.market.market import Market
from position_sync_dagster.simulator.protocol import messages
from position_sync_dagster.simulator.protocol.messages import Fields
from position_sync_dagster.simulator.protocol.requests import Request

UNSUBSCRIBED = "API client has been unsubscribed from account data."


class AccountDataService:
    """Serve what belongs to accounts. None of it uses a market data line."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        market: Market,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], None],
        refresh_interval_s: float,
    ) -> None:
        self._ledger = ledger
        self._market = market
        self._now = now
        self._later = later
        self._refresh_interval_s = refresh_interval_s
        self._positions: set[ClientConnection] = set()
        self._feeds: dict[ClientConnection, str] = {}
        self._feed_runs: dict[ClientConnection, object] = {}
        self._late: list[Holding] = []
        self.silent = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._ledger.accounts)

    def feed(self) -> dict[str, object] | None:
        """Return which account is subscribed, by which clients."""
        for account in self._feeds.values():
            clients = [s.client_id for s in self._feeds if s.client_id is not None]
            return {"account": account, "clients": sorted(clients)}
        return None

    def subscribe_positions(self, client: ClientConnection) -> None:
        """Send all positions of all accounts, their end, and changes from now on."""
        self._positions.add(client)
        for holding in self._ledger.holdings():
            client.send(_position(holding))
        client.send(messages.position_end())

    def cancel_positions(self, client: ClientConnection) -> None:
        self._positions.discard(client)

    def positions_multi(self, client: ClientConnection, request: Request) -> None:
        account = self.account_of(client, request)
        if account is None:
            return
        for held in self._ledger.holdings(account):
            row = (account, held.contract, held.quantity, held.average_cost)
            client.send(messages.position_multi(request.req_id, *row))
        client.send(messages.position_multi_end(request.req_id))

    def account_updates(self, client: ClientConnection, request: Request) -> None:
        """Answer reqAccountUpdates.

        One account at a time over all clients of a login: another client's other account gets
        2101 and no end (IB, "Account Handling"). The same client's next account replaces its
        first one, which 2100 says.
        """
        if not request.subscribe:
            if self._feeds.pop(client, None) is not None:
                self._feed_runs.pop(client, None)
            client.send(messages.error(-1, 2100, UNSUBSCRIBED))
            return
        account = request.account or (self.names[0] if len(self.names) == 1 else "")
        if account not in self._ledger.accounts:
            text = f"Error validating request.-'bU' : cause - Invalid account code '{account}'."
            client.send(messages.error(-1, 321, text))
            return
        others = {s: a for s, a in self._feeds.items() if s is not client and a != account}
        if others:
            clients = ", ".join(str(s.client_id) for s in others)
            text = (
                "Unable to subscribe to account as the following clients are subscribed to a "
                f"different account: {clients} ({next(iter(others.values()))})"
            )
            client.send(messages.error(-1, 2101, text))
            return
        if self._feeds.get(client, account) != account:
            client.send(messages.error(-1, 2100, UNSUBSCRIBED))
        self._feeds[client] = account
        self._download(client, account)
        client.send(messages.account_download_end(account))
        run = object()
        self._feed_runs[client] = run
        self._later(self._refresh_interval_s, lambda: self._refresh(client, run))

    def _refresh(self, client: ClientConnection, run: object) -> None:
        account = self._feeds.get(client)
        if self._feed_runs.get(client) is not run or account is None:
            return
        if not self.silent:
            self._download(client, account)
            client.flush()
        self._later(self._refresh_interval_s, lambda: self._refresh(client, run))

    def _download(self, client: ClientConnection, account: str) -> None:
        for tag, value, currency in self._values(account):
            client.send(messages.account_value(account, tag, value, currency))
        clock = self._clock()
        for holding in self._ledger.holdings(account):
            client.send(self._portfolio(holding))
            client.send(clock)
        client.send(clock)

    def _clock(self) -> Fields:
        return messages.account_time(datetime.fromtimestamp(self._now(), UTC).strftime("%H:%M"))

    def _portfolio(self, holding: Holding) -> Fields:
        worth = self._ledger.value(holding, self._market.close_price(holding.contract.conid))
        return messages.portfolio_value(
            holding.account,
            holding.contract,
            held=holding.quantity,
            price=worth.price,
            value=worth.value,
            average_cost=holding.average_cost,
            unrealized=worth.unrealized,
            realized=holding.realized or 0.0,
        )

    def _values(self, account: str) -> Iterator[tuple[str, str, str]]:
        """Yield tag, value and currency; a small but true subset of what a gateway sends."""
        currency = self._ledger.accounts[account].currency
        market = {"STK": 0.0, "OPT": 0.0}
        unrealized = realized = 0.0
        for holding in self._ledger.holdings(account):
            worth = self._ledger.value(holding, self._market.close_price(holding.contract.conid))
            kind = "OPT" if holding.contract.is_option else holding.contract.sec_type.value
            if kind in market:
                market[kind] += worth.value
            unrealized += worth.unrealized
            realized += holding.realized or 0.0
        cash = self._ledger.cash[account]
        net = cash + sum(market.values())
        yield "AccountCode", account, ""
        yield "AccountReady", "true", ""
        yield "AccountType", "INDIVIDUAL", ""
        yield "Currency", currency, currency
        for tag, amount in (
            ("AvailableFunds", net),
            ("BuyingPower", 4 * net),
            ("CashBalance", cash),
            ("ExcessLiquidity", net),
            ("GrossPositionValue", sum(abs(value) for value in market.values())),
            ("NetLiquidation", net),
            ("OptionMarketValue", market["OPT"]),
            ("RealizedPnL", realized),
            ("StockMarketValue", market["STK"]),
            ("TotalCashBalance", cash),
            ("TotalCashValue", cash),
            ("UnrealizedPnL", unrealized),
        ):
            yield tag, f"{amount:.2f}", currency

    def account_of(self, client: ClientConnection, request: Request) -> str | None:
        """Return the account that a request means, or refuse it with 321 and return None."""
        if request.account in self._ledger.accounts:
            return request.account
        if not request.account and len(self.names) == 1:
            return self.names[0]
        text = f"Error validating request.-'bV' : cause - Invalid account code '{request.account}'."
        client.send(messages.error(request.req_id, 321, text))
        return None

    def account_updates_multi(self, client: ClientConnection, request: Request) -> None:
        account = self.account_of(client, request)
        if account is None:
            return
        for tag, value, currency in self._values(account):
            row = (request.req_id, account, tag, value, currency)
            client.send(messages.account_update_multi(*row))
        client.send(messages.account_update_multi_end(request.req_id))

    def summary(self, client: ClientConnection, request: Request) -> None:
        """Answer reqAccountSummary with the values that exist, for every account."""
        for account in self.names:
            for tag, value, currency in self._values(account):
                row = (request.req_id, account, tag, value, currency)
                client.send(messages.account_summary(*row))
        client.send(messages.account_summary_end(request.req_id))

    def changed(self, holding: Holding) -> None:
        """Tell everybody concerned about one changed row; after a silence if there is one."""
        if self.silent:
            self._late.append(holding)
            return
        for client in self._positions:
            client.send(_position(holding))
        clock = self._clock()
        for client, account in self._feeds.items():
            if account == holding.account:
                client.send(self._portfolio(holding))
                client.send(clock)

    def speak(self) -> None:
        """End the silence, and tell what changed in it."""
        self.silent = False
        late, self._late = self._late, []
        for holding in late:
            self.changed(holding)

    def forget(self, client: ClientConnection | None = None) -> None:
        """End every subscription of one client, or of all."""
        for each in {*self._positions, *self._feeds}:
            if client in (None, each):
                self._positions.discard(each)
                self._feeds.pop(each, None)
                self._feed_runs.pop(each, None)


def _position(holding: Holding) -> Fields:
    return messages.position(
        holding.account, holding.contract, holding.quantity, holding.average_cost
    )
