"""The gateway: one simulated login with its market, its accounts and its connected clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ib_gateway_simulator.accounts.account_data import AccountDataService
from ib_gateway_simulator.accounts.ledger import Ledger
from ib_gateway_simulator.accounts.profit_and_loss import ProfitAndLossService
from ib_gateway_simulator.books.book import Book
from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.clients.stats import OrderMessage, Stats
from ib_gateway_simulator.gateway.dispatch import Dispatcher
from ib_gateway_simulator.gateway.farm_notices import farm_notices
from ib_gateway_simulator.gateway.held_requests import HeldRequests
from ib_gateway_simulator.gateway.market_clock import MarketClock
from ib_gateway_simulator.gateway.pulse import Pulse
from ib_gateway_simulator.gateway.reference_data import ReferenceDataService
from ib_gateway_simulator.gateway.scripts import Scripts
from ib_gateway_simulator.gateway.timers import Timers
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.market.sessions import Sessions
from ib_gateway_simulator.market_data.lines import Lines
from ib_gateway_simulator.market_data.market_data import MarketDataService
from ib_gateway_simulator.market_data.tick_log import TickLog
from ib_gateway_simulator.options import Options
from ib_gateway_simulator.protocol import account_messages, messages, wire
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields
from ib_gateway_simulator.protocol.request_ids import ORDER_REQUESTS
from ib_gateway_simulator.protocol.requests import Request

# IB's limit of API clients on one gateway.
MAX_CLIENTS = 32


# Seconds between the orders of a book, the last of which came that long before the start.
ORDERS_APART_S = 300.0


class Gateway:
    """The state behind all connections of one login; it lives in one event loop.

    Args:
        book: Accounts, contracts and positions of the login at the start.
        options: How the gateway behaves.
        now: The wall clock, in seconds since 1970.
    """

    newest_version = wire.MAX_SERVER_VERSION

    def __init__(
        self, book: Book, options: Options, *, now: Callable[[], float] = time.time
    ) -> None:
        self.book = book
        self.options = options
        self.now = now
        self.stats = Stats()
        self.paused = False
        # Whether the gateway itself has its connection to IB.
        self.connected = True
        # What a client that logs in gets while the gateway has no connection to IB.
        self.login_code = Code.GATEWAY_OFFLINE
        # The clients that have logged in, by client id.
        self.clients: dict[int, ClientConnection] = {}

        # Client id to the time of the event loop until which it counts as in use.
        self.busy_ids: dict[int, float] = {}
        self._connections: set[ClientConnection] = set()
        self.scripts = Scripts()
        self._held = HeldRequests()
        self._timers = Timers(lambda: self.paused)
        self._pulse = Pulse(self._timers)
        self._market_clock = MarketClock(
            timers=self._timers,
            paused=lambda: self.paused,
            step=self.step,
            interval_s=options.tick_interval_s,
            enabled=options.autostep,
        )
        self.market = Market(
            underlyings=book.underlyings,
            contracts=book.contracts,
            as_of=book.as_of or datetime.fromtimestamp(now(), UTC),
            rate=book.rate,
            seed=options.seed,
            pins=book.pins,
            options=book.option_market,
            closed_days=options.closed_days,
        )

        self.sessions = Sessions(book.hours)
        self.ledger = Ledger(book, self.market.value_price, self.market.opening_cost)
        self.market_data = MarketDataService(
            book=book,
            market=self.market,
            sessions=self.sessions,
            lines=Lines(options.max_lines),
            log=TickLog(options.tick_ring),
            now=now,
            call_later=self._timers.call_later_unpaused,
            snapshot_s=options.snapshot_s,
        )
        self.accounts = AccountDataService(
            ledger=self.ledger,
            market=self.market,
            now=now,
            zone=options.zone,
            call_later=self._timers.call_later_unpaused,
            refresh_interval_s=options.refresh_interval_s,
        )
        of_today = [order for order in book.orders if not order.sessions_ago]
        for number, order in enumerate(of_today):
            rows = ((self.ledger.holding(order.account, c), q) for c, q in order.legs.items())
            self.accounts.executions.add_opening(
                ((row, quantity) for row, quantity in rows if row is not None),
                before_s=ORDERS_APART_S * (len(of_today) - number),
            )

        self.profits = ProfitAndLossService(
            accounts=self.accounts, ledger=self.ledger, market=self.market
        )
        self.reference_data = ReferenceDataService(book=book, sessions=self.sessions, now=now)
        self._dispatcher = Dispatcher(
            accounts=self.accounts,
            market_data=self.market_data,
            profits=self.profits,
            reference_data=self.reference_data,
            now=now,
            first_order_id=options.first_order_id,
            open_market=self._market_clock.open,
            open_market_soon=self._market_clock.open_soon,
        )

    # -- market time --------------------------------------------------------------------------

    def start_timers(self) -> None:
        """Start what happens regularly; call this once, in the event loop."""
        self._pulse.start()
        if self.options.autostep:
            self._timers.call_later(self.options.pnl_interval_s, self._send_profits)

    def step(self) -> None:
        """Advance the market by one step, and send the changed ticks."""
        self.market.step()
        self.market_data.send_changes()
        self.flush()

    def _send_profits(self) -> None:
        if not self.paused:
            self.profits.send_all()
            self.flush()
        self._timers.call_later(self.options.pnl_interval_s, self._send_profits)

    # -- clients ------------------------------------------------------------------------------

    def behind_s(self) -> float:
        """Return for how long the gateway has been too busy to read, in seconds."""
        return self._pulse.behind_s()

    def greeting(self, version: int) -> Fields:
        """Return the answer to a client's offer: the version and the time.

        The time is in the gateway's zone, with a free text for its name (recorded:
        `20250425 15:23:54 EST`).
        """
        now = datetime.fromtimestamp(self.now(), self.options.zone)
        zone = now.tzname()
        if now.tzname() == "UTC":
            zone = "Greenwich Mean Time"

        return (str(version), f"{now:%Y%m%d %H:%M:%S} {zone}")

    def opened(self, client: ClientConnection) -> None:
        """Record a new connection, before its login."""
        self._connections.add(client)
        self.stats.sockets = len(self._connections)

    def log_in(self, client: ClientConnection, client_id: int) -> bool:
        """Accept or refuse a client as a gateway does; return whether it is accepted."""
        free_at = self.busy_ids.get(client_id, 0.0)
        if client_id in self.clients or free_at > asyncio.get_running_loop().time():
            self.stats.refused["client id in use"] += 1
            client.send(messages.error(-1, Code.CLIENT_ID_IN_USE))
            client.close(f"client id {client_id} is in use")
            return False
        if len(self.clients) >= MAX_CLIENTS:
            self.stats.refused["too many clients"] += 1
            client.close(f"{MAX_CLIENTS} clients are connected already")
            return False

        client.client_id = client_id
        self.clients[client_id] = client
        self.stats.connected(client_id)
        self.stats.requests[client_id]["startApi"] += 1

        # 15 precedes 9 in every capture, and the notices follow.
        client.send(account_messages.managed_accounts(self.accounts.names))
        client.send(messages.next_valid_id(self.options.first_order_id))
        if self.connected:
            farms = self.market_data.farms()
            broken = self.market_data.broken_farms
            notices = farm_notices(farms, broken)
        else:
            notices = [messages.error(-1, self.login_code)]
        for notice in notices:
            client.send(notice)
        return True

    def handle(self, client: ClientConnection, request: Request) -> None:
        """Act on one request; an order message is recorded and refused, never carried out."""
        if request.name not in ORDER_REQUESTS:
            if not (self.scripts.answer(client, request) or self._held.hold(client, request)):
                self._dispatcher.handle(client, request)
            return
        client_id = -1 if client.client_id is None else client.client_id
        self.stats.orders.append(
            OrderMessage(client_id=client_id, name=request.name, fields=request.fields)
        )
        if request.req_id != -1:
            cause = "The API interface is currently in Read-Only mode."
            refusal = {"validator": "bF", "cause": cause}
            client.send(messages.error(request.req_id, Code.INVALID_REQUEST, **refusal))

    def closed(self, client: ClientConnection) -> None:
        """Free everything of a connection that has ended."""
        self._connections.discard(client)
        self.stats.sockets = len(self._connections)
        client_id = client.client_id
        if client_id is None or self.clients.get(client_id) is not client:
            return
        del self.clients[client_id]
        self.stats.disconnected(client_id)
        self._held.drop(client)
        self.end_subscriptions(client)

    def end_subscriptions(self, client: ClientConnection | None = None) -> None:
        """End every subscription of one client, or of all."""
        self.market_data.lines.remove_all(client)
        self.accounts.end_subscriptions(client)
        self.profits.end_subscriptions(client)

    def flush(self) -> None:
        """Write the queued messages of every client."""
        for client in list(self.clients.values()):
            client.flush()

    def set_paused(self, paused: bool) -> None:
        """Stop answering, or act on everything that arrived in the pause."""
        self.paused = paused
        if not paused:
            for client in list(self._connections):
                client.process()

    # -- connectivity to IB -------------------------------------------------------------------

    def lose_connectivity(self, *, answers: bool = True) -> None:
        """Send no data from now on, as without a connection to IB.

        Args:
            answers: Whether requests about positions and accounts are answered at once, else
                after the connection is restored.
        """
        self.connected = False
        self.market_data.silent = self.profits.silent = True
        self.accounts.start_silence()
        if answers:
            self._answer_held()
        else:
            self._held.on = True

    def restore_connectivity(self) -> None:
        """Send data again, starting with the changes since the connection to IB was lost."""
        self.connected = True
        self.profits.silent = False
        self.accounts.end_silence()
        self.market_data.end_silence()
        self._answer_held()
        self.flush()

    def _answer_held(self) -> None:
        for client, request in self._held.release():
            self._dispatcher.handle(client, request)

    # -- end ----------------------------------------------------------------------------------

    def drop_connections(self) -> None:
        """Cut every connection, logged in or not."""
        for client in list(self._connections):
            client.abort()

    def close(self) -> None:
        """Stop the timers and cut every connection."""
        self._timers.close()
        self.drop_connections()
