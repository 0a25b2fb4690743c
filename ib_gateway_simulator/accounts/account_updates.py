"""Answers to reqAccountUpdates: the exclusive account feed of a login."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, tzinfo

from ib_gateway_simulator.accounts.download_ends import DownloadEnds
from ib_gateway_simulator.accounts.holding_rows import HoldingRows, Row
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.protocol import account_messages, messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.requests import Request


class AccountUpdatesService:
    """Sends the account that clients subscribe to: its values and portfolio rows.

    Args:
        accounts: The accounts of the login.
        rows: Writes the portfolio rows.
        values: Returns tag, value and currency of every value of an account.
        now: The wall clock, in seconds since 1970.
        zone: The zone of the account times.
        call_later: Runs an action after some seconds, but not during a pause.
        refresh_interval_s: How often a subscribed account is sent again (IB: 3 minutes).
    """

    def __init__(
        self,
        *,
        accounts: Collection[str],
        rows: HoldingRows,
        values: Callable[[str], Iterator[tuple[str, str, str]]],
        now: Callable[[], float],
        zone: tzinfo,
        call_later: Callable[[float, Callable[[], None]], None],
        refresh_interval_s: float,
    ) -> None:
        self._accounts = accounts
        self._rows = rows
        self._values = values
        self._now = now
        self._zone = zone
        self._call_later = call_later
        self._refresh_interval_s = refresh_interval_s
        self._feeds: dict[ClientConnection, str] = {}
        self._feed_versions: dict[ClientConnection, object] = {}
        self.ends = DownloadEnds(call_later)
        # The accounts of which no portfolio row is sent.
        self.without_rows: set[str] = set()
        self._silent_since: float | None = None

    def feed(self) -> dict[str, object] | None:
        """Return the account that is subscribed and the ids of its clients; None without one."""
        for account in self._feeds.values():
            clients = [c.client_id for c in self._feeds if c.client_id is not None]
            return {"account": account, "clients": sorted(clients)}
        return None

    def request(self, client: ClientConnection, request: Request) -> None:
        """Answer reqAccountUpdates.

        One account at a time can be subscribed by all clients of a login: a client that requests
        another account gets 2101 and no end (IB, "Account Handling"). When the same client
        requests another account, that one replaces its first one, and 2100 reports this.
        """
        if not request.subscribe:
            self._end_feed(client)
            client.send(messages.error(-1, Code.ACCOUNT_UNSUBSCRIBED))
            return
        account = request.account or (next(iter(self._accounts)) if self._only_one else "")
        if account not in self._accounts:
            client.send(_unknown_account(account))
            return

        other_feeds = {c: a for c, a in self._feeds.items() if c is not client and a != account}
        if other_feeds:
            values = {
                "clients": ", ".join(str(c.client_id) for c in other_feeds),
                "account": next(iter(other_feeds.values())),
            }
            client.send(messages.error(-1, Code.OTHER_ACCOUNT_SUBSCRIBED, **values))
            return
        if self._feeds.get(client, account) != account:
            client.send(messages.error(-1, Code.ACCOUNT_UNSUBSCRIBED))

        self._feeds[client] = account
        self._send_account(client, account)
        self.ends.finish(client, account)
        version = object()
        self._feed_versions[client] = version
        self._call_later(self._refresh_interval_s, lambda: self._refresh(client, version))

    @property
    def _only_one(self) -> bool:
        return len(self._accounts) == 1

    def _refresh(self, client: ClientConnection, version: object) -> None:
        account = self._feeds.get(client)
        if self._feed_versions.get(client) is not version or account is None:
            return
        if self._silent_since is None:
            self._send_account(client, account)
            client.flush()
        self._call_later(self._refresh_interval_s, lambda: self._refresh(client, version))

    def _send_account(self, client: ClientConnection, account: str) -> None:
        for tag, value, currency in self._values(account):
            client.send(account_messages.account_value(account, tag, value, currency))
        # A gateway sends the time after every single row (ibkr-go, pnl_single).
        clock = self._clock()
        for row in () if account in self.without_rows else self._rows.portfolio(account):
            client.send(row)
            client.send(clock)
        client.send(clock)

    def _clock(self) -> Fields:
        # HH:MM in the zone of the gateway, without date and zone (ibkr-go, pnl_single).
        epoch_s = self._now()
        if self._silent_since is not None:
            epoch_s = self._silent_since

        time = datetime.fromtimestamp(epoch_s, self._zone)
        return account_messages.account_time(time.strftime("%H:%M"))

    def send_change(self, row: Row) -> None:
        """Send a changed holding to every client that is subscribed to its account."""
        clock = self._clock()
        for client, account in self._feeds.items():
            if account not in self.without_rows and self._rows.concerns(row, account):
                client.send(self._rows.portfolio_row(row))
                client.send(clock)

    def start_silence(self) -> None:
        """Send nothing regularly from now on, as without a connection to IB.

        Account times stand still.
        """
        if self._silent_since is None:
            self._silent_since = self._now()
        self.ends.start_silence()

    def end_silence(self) -> None:
        """Send regularly again, first the ends that are due."""
        self._silent_since = None
        self.ends.end_silence()

    def end_account(self, account: str, *, notice: bool) -> int:
        """End the feed of an account for every client, and return how many had it.

        Args:
            account: The account.
            notice: Whether the clients get 2100.
        """
        self.ends.forget(account=account)
        clients = [client for client, fed in self._feeds.items() if fed == account]
        for client in clients:
            self._end_feed(client)
            if notice:
                client.send(messages.error(-1, Code.ACCOUNT_UNSUBSCRIBED))
        return len(clients)

    def end_subscriptions(self, client: ClientConnection | None = None) -> None:
        """End the feed of one client, or of all."""
        self.ends.forget(client=client)
        for feed in list(self._feeds):
            if client in (None, feed):
                self._end_feed(feed)

    def _end_feed(self, client: ClientConnection) -> None:
        self._feeds.pop(client, None)
        self._feed_versions.pop(client, None)


def _unknown_account(account: str) -> Fields:
    cause = f"Invalid account code '{account}'."
    return messages.error(-1, Code.INVALID_REQUEST, validator="bU", cause=cause)
