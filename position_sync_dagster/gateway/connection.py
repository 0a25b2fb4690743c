"""One shared connection to the gateway per process and client id."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import ClassVar
from weakref import WeakKeyDictionary, WeakSet

from ib_async import IB, StartupFetchNONE

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.update import TradingMode, trading_mode_of
from position_sync_dagster.errors import (
    ClientIdInUseError,
    GatewayError,
    GatewayRefusedError,
    GatewayTimeoutError,
    NotAGatewayError,
    SettingsError,
)
from position_sync_dagster.gateway.details import fetch_details
from position_sync_dagster.gateway.feed import AccountFeed
from position_sync_dagster.gateway.lines import MarketDataLines
from position_sync_dagster.gateway.pnl import PnlSubscriptions
from position_sync_dagster.settings import Settings, load_settings

logger = logging.getLogger(__name__)

CLIENT_ID_IN_USE = 326
CONNECTIVITY_LOST = (1100, 2110)
"""The gateway has lost IB: while it was connected, or before (it says 2110 at the log-in)."""

DATA_LOST, DATA_KEPT = 1101, 1102
PORT_CHANGED = 1300

_NEW_PORT = re.compile(r"new port\D*(\d{2,5})")
MAX_REQUESTS, REQUESTS_INTERVAL_S = 10, 0.25
"""Pace of our messages: never more than 50 in any second, as the gateway counts them. ib_async's
own 45 per second come in bursts, of which two may fall into one second at the gateway."""

SILENCE_S = 10.0
"""After this long without a packet the gateway is asked for the time, with as long to answer."""

MAX_FRAME = 1 << 24
"""No message of a gateway is longer (16 MiB); a greater length prefix is another protocol."""


class GatewayConnection:
    """A live connection: ib_async's `ib`, the account feed and the market data lines on it.

    It ends with the socket: after a drop `is_connected` is False for ever, and the manager
    gives a new one. It has no order path.

    Attributes:
        connectivity_lost: What the gateway said when it lost IB (1100, 2110), else None.
        new_port: Where the gateway said it moved to (code 1300).
        on_message: Listeners, called with (code, text) for each message of type 4.
        lost: Set when the socket is gone.
    """

    def __init__(
        self,
        ib: IB,
        *,
        client_id: int,
        settings: Settings,
        connectivity_lost: str | None = None,
    ) -> None:
        self.ib = ib
        self.client_id = client_id
        self.gateway_id = settings.gateway_id
        self.new_port: int | None = None
        self.accounts: tuple[str, ...] = tuple(ib.client.getAccounts())
        self.lost = asyncio.Event()
        ib.disconnectedEvent.connect(self.lost.set, keep_ref=True)
        self.feed = AccountFeed(ib, settings=settings, accounts=self.accounts)
        self.lines = MarketDataLines(ib, settings=settings)
        self.pnl = PnlSubscriptions(ib, self.feed)
        self.on_message: list[Callable[[int, str], None]] = []
        self.connectivity_lost = connectivity_lost
        self._timeout_s = settings.gateway_timeout_s
        ib.errorEvent += self._on_error
        ib.client.conn.hasData += self._on_data
        self._watchdog = asyncio.create_task(self._watch())

    @property
    def is_connected(self) -> bool:
        """Tell whether the gateway is there and has told its accounts."""
        return bool(self.ib.isConnected())

    @property
    def trading_mode(self) -> TradingMode:
        """Tell live, paper or simulated by the account ids."""
        return trading_mode_of(self.accounts[0])

    async def details(self, conids: Iterable[int]) -> dict[int, ContractDetails]:
        """Ask for contract details; a conid that the gateway does not know is left out."""
        return await fetch_details(self.ib, conids, timeout_s=self._timeout_s)

    def drop(self, why: str) -> None:
        """End the connection without waiting; whoever needs one gets a new one."""
        logger.warning("the connection to %s is given up: %s", self.gateway_id, why)
        self._watchdog.cancel()
        self.ib.disconnect()
        self.lost.set()

    async def _watch(self) -> None:
        """Drop a connection on which nothing arrives any more, not even an answer.

        A hung gateway, or one that a broken network hides, keeps its socket open for hours.
        """
        while self.is_connected:
            await asyncio.sleep(SILENCE_S / 2)
            if time.time() - self.ib.wrapper.time < SILENCE_S:
                continue
            try:
                await asyncio.wait_for(self.ib.reqCurrentTimeAsync(), SILENCE_S)
            except TimeoutError:
                self.drop(f"it has not answered for {2 * SILENCE_S:g} s")
            except ConnectionError:
                return

    def _on_data(self, _data: bytes) -> None:
        waiting = self.ib.client._data
        if len(waiting) >= 4 and int.from_bytes(waiting[:4], "big") > MAX_FRAME:
            self.drop("it sent a frame longer than any message")

    def _on_error(self, _request: int, code: int, text: str, _contract: object) -> None:
        if code in CONNECTIVITY_LOST:
            self.connectivity_lost = text
        elif code in (DATA_LOST, DATA_KEPT):
            self.connectivity_lost = None
        if code == DATA_LOST:
            # Every subscription is gone; whoever listens asks for positions and values anew.
            self.feed.invalidate()
            self.lines.resubscribe()
            self.pnl.resubscribe()
        elif code == PORT_CHANGED and (found := _NEW_PORT.search(text)):
            self.new_port = int(found[1])
        for listener in list(self.on_message):
            listener(code, text)

    async def close(self) -> None:
        """End the connection and wait until the socket is closed."""
        self._watchdog.cancel()
        if self.ib.client.conn.isConnected():
            self.lines.cancel_all()
            gone = self.ib.client.conn.disconnected
            self.ib.disconnect()
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    while self.ib.client.conn.isConnected():
                        await gone
        self.lost.set()


class IBConnectionManager:
    """Give out the process's one connection to a gateway; managers of one gateway share it.

    Args:
        settings: Address, pool of client ids, timeouts; by default from the environment.
        host, port, client_id: Override the settings.

    Example:
        manager = IBConnectionManager()
        connection = await manager.get_connection()
        print(connection.accounts, connection.ib.isConnected())
        await manager.close()
    """

    _shared: ClassVar[
        WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int, int], "_Shared"]]
    ] = WeakKeyDictionary()

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        client_id: int | None = None,
    ) -> None:
        settings = settings or load_settings()
        if client_id is not None and client_id < 1:
            raise SettingsError(
                f"The client id {client_id} is refused: id 0 binds the orders of TWS itself.",
                remedy="Use 1 or more.",
            )
        changes = {
            "gateway_host": host or settings.gateway_host,
            "gateway_port": port or settings.gateway_port,
            "gateway_client_id": client_id or settings.gateway_client_id,
        }
        self.settings = settings.model_copy(update=changes)

    async def get_connection(self) -> GatewayConnection:
        """Give the live connection, connecting first where there is none.

        Raises:
            GatewayRefusedError: Nothing listens there, or it hangs up at once.
            GatewayTimeoutError: It accepts and then says nothing.
            NotAGatewayError: It speaks another protocol.
            ClientIdInUseError: Every client id of the pool is taken.
        """
        shared = self._slot()
        async with shared.lock:
            shared.holders.add(self)
            if shared.connection is None or not shared.connection.is_connected:
                if shared.connection is not None and shared.connection.new_port is not None:
                    shared.port = shared.connection.new_port
                shared.connection = await connect(self.settings, port=shared.port)
            _check_trading_mode(shared.connection.accounts, self.settings)
            return shared.connection

    async def close(self) -> None:
        """Give the connection up; it ends when the last of its managers has."""
        shared = self._slot()
        async with shared.lock:
            shared.holders.discard(self)
            if not shared.holders and shared.connection is not None:
                await shared.connection.close()
                shared.connection = None

    def _slot(self) -> "_Shared":
        loop = asyncio.get_running_loop()
        slots = self._shared.setdefault(loop, {})
        key = (
            self.settings.gateway_host,
            self.settings.gateway_port,
            self.settings.gateway_client_id,
        )
        return slots.setdefault(key, _Shared())


class _Shared:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.holders: WeakSet[IBConnectionManager] = WeakSet()
        self.connection: GatewayConnection | None = None
        self.port: int | None = None


async def connect(settings: Settings, *, port: int | None = None) -> GatewayConnection:
    """Connect with the first free client id of the pool; see `get_connection` for the errors.

    Args:
        port: Where the gateway moved to, when it is not where the settings say.
    """
    logging.getLogger("ib_async").setLevel(logging.WARNING)  # it logs each position at INFO
    for noisy in ("ib_async.client", "ib_async.decoder", "eventkit"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # our errors say it better
    for client_id in settings.client_id_pool:
        with suppress(ClientIdInUseError):
            ib, offline = await _connect_as(client_id, settings, port or settings.gateway_port)
            try:
                _check_trading_mode(ib.client.getAccounts(), settings)
            except SettingsError:
                ib.disconnect()
                raise
            return GatewayConnection(
                ib, client_id=client_id, settings=settings, connectivity_lost=offline
            )
    pool = settings.client_id_pool
    raise ClientIdInUseError(
        f"The gateway at {settings.gateway_id} has each of the client ids "
        f"{pool[0]} to {pool[-1]} in use (code 326).",
        remedy="End the other program, or set POSITION_SYNC_GATEWAY_CLIENT_ID to a free one; "
        "after a dropped connection the gateway frees an id by itself within a minute or so.",
    )


def _check_trading_mode(accounts: Iterable[str], settings: Settings) -> None:
    expected = settings.trading_mode
    wrong = [a for a in accounts if expected is not None and trading_mode_of(a) is not expected]
    if wrong:
        raise SettingsError(
            f"POSITION_SYNC_TRADING_MODE is {expected}, and the gateway at {settings.gateway_id} "
            f"serves a {trading_mode_of(wrong[0])} account.",
            remedy="Point POSITION_SYNC_GATEWAY_PORT at the gateway of the other mode, or change "
            "the mode together with POSITION_SYNC_LAKE.",
        )


async def _connect_as(client_id: int, settings: Settings, port: int) -> tuple[IB, str | None]:
    """Connect once; 326 and a foreign protocol show at once instead of at the timeout.

    Gives also what the gateway says when it is itself without IB.

    ib_async's `connectAsync` fails at its timeout alone when the gateway refuses the client id
    (it sends 326 and closes); `errorEvent` hears it before.
    """
    where = f"{settings.gateway_host}:{port}"
    ib = IB()
    ib.client.MaxRequests = MAX_REQUESTS
    ib.client.RequestsInterval = REQUESTS_INTERVAL_S  # type: ignore[assignment] # any seconds do
    trouble: asyncio.Future[GatewayError] = asyncio.get_running_loop().create_future()

    def report(error: GatewayError) -> None:
        if not trouble.done():
            trouble.set_result(error)

    heard: list[int] = []
    offline: list[str] = []

    def on_error(_request: int, code: int, text: str, _contract: object) -> None:
        if code == CLIENT_ID_IN_USE:
            report(ClientIdInUseError(f"Client id {client_id}: {text}", remedy="Use another."))
        elif code in CONNECTIVITY_LOST:
            offline.append(text)

    def on_data(data: bytes) -> None:
        # The first frame is "version NUL time NUL": a length, then digits.
        too_long = int.from_bytes(data[:4], "big") > MAX_FRAME
        if not heard and (too_long or not data[4:5].isdigit()):
            report(_not_a_gateway(where))
        heard.append(len(data))

    def on_end(_message: str) -> None:
        report(
            GatewayRefusedError(
                f"The gateway at {where} closed the connection before it was ready.",
                remedy="Allow this machine under API > Settings > Trusted IPs and see whether the "
                "gateway has logged in.",
            )
        )

    ib.errorEvent += on_error
    ib.client.conn.hasData += on_data
    ib.client.conn.disconnected += on_end
    attempt = asyncio.ensure_future(
        ib.connectAsync(
            settings.gateway_host,
            port,
            clientId=client_id,
            timeout=settings.gateway_timeout_s,
            raiseSyncErrors=True,
            fetchFields=StartupFetchNONE,
        )
    )
    try:
        await asyncio.wait({attempt, trouble}, return_when=asyncio.FIRST_COMPLETED)
        timed_out = attempt.done() and isinstance(attempt.exception(), TimeoutError)
        if trouble.done() and not timed_out:
            raise trouble.result()
        await attempt
    except TimeoutError as error:
        raise GatewayTimeoutError(
            f"{where} accepted the connection and did not answer within "
            f"{settings.gateway_timeout_s:g} s.",
            remedy="See whether TWS or IB Gateway waits at a dialog, and whether the port is its "
            "API port.",
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
            raise GatewayTimeoutError(
                f"The gateway at {where} dropped the first requests: {error}.",
                remedy="Wait for it to finish its log-in; it is tried again.",
            ) from error
        raise GatewayRefusedError(
            f"Nothing listens at {where} ({error}).",
            remedy="Start TWS or IB Gateway, enable its API (Configure > API > Settings > Enable "
            "ActiveX and Socket Clients), and set POSITION_SYNC_GATEWAY_HOST and "
            "POSITION_SYNC_GATEWAY_PORT to its address (TWS 7496 live, 7497 paper; Gateway "
            "4001 live, 4002 paper).",
        ) from error
    finally:
        if not attempt.done():
            attempt.cancel()
        with suppress(BaseException):
            await asyncio.gather(attempt, return_exceptions=True)
        if not ib.isConnected() or trouble.done():
            ib.client.disconnect()
        ib.client.conn.hasData -= on_data
        ib.client.conn.disconnected -= on_end
        ib.errorEvent -= on_error
    return ib, next(iter(offline), None)


def _not_a_gateway(where: str) -> NotAGatewayError:
    return NotAGatewayError(
        f"What listens at {where} is not an IB gateway.",
        remedy="Set POSITION_SYNC_GATEWAY_PORT to the API port of TWS or IB Gateway (TWS 7496 "
        "live, 7497 paper; Gateway 4001 live, 4002 paper).",
    )
