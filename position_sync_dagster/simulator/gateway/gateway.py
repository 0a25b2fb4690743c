"""The gateway: one simulated login with its market, its ledger and its connected clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from position_sync_dagster.simulator.accounts.account_data import AccountDataService
from position_sync_dagster.simulator.accounts.ledger import Ledger
from position_sync_dagster.simulator.accounts.profit_and_loss import ProfitAndLossService
from position_sync_dagster.simulator.books.book import Book
from position_sync_dagster.simulator.clients.connection import ClientConnection
from position_sync_dagster.simulator.clients.stats import OrderMessage, Stats
from position_sync_dagster.simulator.gateway.dispatch import ANSWERS
from position_sync_dagster.simulator.gateway.reference_data import ReferenceDataService
from position_sync_dagster.simulator.market.market import Market
from position_sync_dagster.simulator.market_data.lines import Lines
from position_sync_dagster.simulator.market_data.market_data import MarketDataService
from position_sync_dagster.simulator.market_data.tick_log import TickLog
from position_sync_dagster.simulator.options import Options
from position_sync_dagster.simulator.protocol import messages
from position_sync_dagster.simulator.protocol.request_ids import ORDER_REQUESTS
from position_sync_dagster.simulator.protocol.requests import Request

MAX_CLIENTS = 32
"""IB's limit of API clients on one gateway."""

IN_USE = "Unable to connect as the client id is already in use. Retry with a unique client id."
OFFLINE = (
    "Connectivity between Trader Workstation and server is broken. "
    "It will be restored automatically."
)
READ_ONLY = (
    "Error validating request.-'bF' : cause - The API interface is currently in Read-Only mode."
)
PAUSE_POLL_S = 0.1
OPENING_DELAY_S = 5.0
"""The market opens at the first tick or profit request, or this long after account data."""


class Gateway:
    """Hold the state behind all clients; lives in one event loop."""

    def __init__(
        self, book: Book, options: Options, *, now: Callable[[], float] = time.time
    ) -> None:
        self.book = book
        self.options = options
        self.now = now
        self.stats = Stats()
        self.paused = False
        self.connected = True
        self.max_messages_per_s = options.max_messages_per_s
        self.max_buffer_bytes = options.max_buffer_bytes
        self.handshake_timeout_s = options.handshake_timeout_s
        self.market = Market(
            underlyings=book.underlyings,
            contracts=book.contracts,
            as_of=book.as_of,
            rate=book.rate,
            seed=options.seed,
            pins=book.pins,
        )
        self.ledger = Ledger(book, self.market.value_price)
        self.data: MarketDataService = MarketDataService(
            book=book,
            market=self.market,
            lines=Lines(options.max_lines),
            log=TickLog(options.tick_ring),
            now=now,
            later=self._when_awake,
            snapshot_s=options.snapshot_s,
        )
        self.accounts: AccountDataService = AccountDataService(
            ledger=self.ledger,
            market=self.market,
            now=now,
            later=self._when_awake,
            refresh_interval_s=options.refresh_interval_s,
        )
        self.profits: ProfitAndLossService = ProfitAndLossService(
            accounts=self.accounts, ledger=self.ledger, market=self.market
        )
        self.reference: ReferenceDataService = ReferenceDataService(book=book, now=now)
        self.clients: dict[int, ClientConnection] = {}
        self.busy_ids: dict[int, float] = {}
        self._sockets: set[ClientConnection] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._open = False
        self._opening = False
        self._ended = False

    # -- time ---------------------------------------------------------------------------------

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run an action later, unless the gateway has ended by then."""
        if self._ended:
            return

        def run() -> None:
            self._timers.discard(handle)
            action()

        handle = asyncio.get_running_loop().call_later(delay_s, run)
        self._timers.add(handle)

    def _when_awake(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run an action later, but not while the gateway is paused."""

        def run() -> None:
            if self.paused:
                self._later(PAUSE_POLL_S, run)
            else:
                action()

        self._later(delay_s, run)

    def open_market(self) -> None:
        """Let market time run from now on; a second call changes nothing.

        It starts with the first request that sees prices move, so that two clients with the
        same requests see the same prices.
        """
        if self._open or not self.options.autostep:
            return
        self._open = True
        self._later(self.options.tick_interval_s, self._step_again)

    def open_market_soon(self) -> None:
        """Open the market even if nobody asks for ticks."""
        if not self._opening:
            self._opening = True
            self._later(OPENING_DELAY_S, self.open_market)

    def _step_again(self) -> None:
        started = time.perf_counter()
        if not self.paused:
            self.step()
        spent = time.perf_counter() - started
        self._later(max(0.0, self.options.tick_interval_s - spent), self._step_again)

    def _profits_again(self) -> None:
        if not self.paused:
            self.profits.send_all()
            self.flush()
        self._later(self.options.pnl_interval_s, self._profits_again)

    def start(self, client: ClientConnection, client_id: int) -> bool:
        """Let a client in, or refuse it as a gateway does; returns whether it is in."""
        free_at = self.busy_ids.get(client_id, 0.0)
        if client_id in self.clients or free_at > asyncio.get_running_loop().time():
            self.stats.refused["client id in use"] += 1
            client.send(messages.error(-1, 326, IN_USE))
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
        client.send(messages.managed_accounts(self.accounts.names))
        client.send(messages.next_valid_id(self.options.first_order_id))
        for code, text in self.notices():
            client.send(messages.error(-1, code, text))
        return True

    def notices(self) -> list[tuple[int, str]]:
        """List what a gateway says about its farms at login."""
        if not self.connected:
            return [(2110, OFFLINE)]
        broken = self.data.broken_farms
        farms = [
            (2103, f"Market data farm connection is broken:{farm}")
            if farm in broken
            else (2104, f"Market data farm connection is OK:{farm}")
            for farm in self.data.farms()
        ]
        history = "HMDS data farm connection is"
        historical = (2105, f"{history} broken:ushmds")
        if "ushmds" not in broken:
            historical = (2106, f"{history} OK:ushmds")
        return [*farms, historical, (2158, "Sec-def data farm connection is OK:secdefnj")]

    def start_timers(self) -> None:
        """Start what runs by itself; call once in the loop."""
        if self.options.autostep:
            self._later(self.options.pnl_interval_s, self._profits_again)

    # -- clients -----------------------------------------------------------------------------

    def opened(self, client: ClientConnection) -> None:
        self._sockets.add(client)
        self.stats.sockets = len(self._sockets)

    def ended(self, client: ClientConnection) -> None:
        """Free everything of a client that has gone."""
        self._sockets.discard(client)
        self.stats.sockets = len(self._sockets)
        client_id = client.client_id
        if client_id is None or self.clients.get(client_id) is not client:
            return
        del self.clients[client_id]
        self.stats.disconnected(client_id)
        self.data.lines.free_all(client)
        self.accounts.forget(client)
        self.profits.forget(client)

    def answer(self, client: ClientConnection, request: Request) -> None:
        """Act on one request of a client that is in."""
        if request.name in ORDER_REQUESTS:
            client_id = -1 if client.client_id is None else client.client_id
            self.stats.orders.append(
                OrderMessage(client_id=client_id, name=request.name, fields=request.fields)
            )
            if request.req_id != -1:
                client.send(messages.error(request.req_id, 321, READ_ONLY))
            return
        answer = ANSWERS.get(request.name)
        if answer is not None:
            answer(self, client, request)

    def flush(self) -> None:
        """Write what every client has waiting."""
        for client in list(self.clients.values()):
            client.flush()

    def step(self) -> None:
        """Let the market take one step, and send what changed."""
        self.market.step()
        self.data.step()
        self.flush()

    def end(self) -> None:
        """Stop the timers and cut every connection."""
        self._ended = True
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()
        self.drop_sockets()

    def drop_sockets(self) -> None:
        """Cut every connection, started or not."""
        for client in list(self._sockets):
            client.abort()

    def resume_sockets(self) -> None:
        """Act on what arrived while the gateway was paused."""
        for client in list(self._sockets):
            client.process()

    def as_dict(self) -> dict[str, Any]:
        """Return everything that is counted, for JSON."""
        lines = self.data.lines
        return {
            "book": self.book.name,
            "lines_in_use": len(lines),
            "peak_lines": lines.peak,
            "line_limit": lines.limit,
            "lines_by_conid": lines.by_conid(),
            "steps": self.market.steps,
            "account_feed": self.accounts.feed(),
            "pnl_subscriptions": len(self.profits),
            "connectivity": "up" if self.connected else "lost",
            "paused": self.paused,
            **self.stats.as_dict(),
        }
