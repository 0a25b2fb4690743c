"""One shared connection to the gateway per process and client id."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from random import Random
from typing import ClassVar
from weakref import WeakKeyDictionary, WeakSet

from ib_async import IB

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.domain.update import TradingMode, trading_mode_of
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    ClientIdInUseError,
    GatewayError,
    GatewayRefusedError,
    GatewayTimeoutError,
    NotAGatewayError,
    SettingsError,
)
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.codes import OFFLINE, GatewayCode
from position_sync_dagster.gateway.contract_details import fetch_details
from position_sync_dagster.gateway.ib_async_internals import MessageReader
from position_sync_dagster.gateway.login import MAX_FRAME, log_in
from position_sync_dagster.gateway.market_data_lines import MarketDataLines
from position_sync_dagster.gateway.pnl import PnlSubscriptions
from position_sync_dagster.settings import Settings, load_settings

logger = logging.getLogger(__name__)

_NEW_PORT = re.compile(r"new port\D*(\d{2,5})")
SILENCE_S = 10.0
"""After this long without a message that could be read the gateway is asked for the time, with as
long to answer. Half a message that is not completed for so long ends the connection."""

NEXT_CLIENT_ID = Backoff(first_s=0.5, longest_s=5.0, jitter=(1.0, 1.5))
"""Pauses between two client ids that are in use."""

PAUSES_S = 5.0
"""Bound of all pauses of one attempt together."""


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
        self._reader = MessageReader(ib, settings.gateway_id)
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
        """Drop a connection on which no message arrives any more, not even an answer.

        A hung gateway, or one that a broken network hides, keeps its socket open for hours; and
        one that sends what is no message, or half of one, is no better, however many bytes come.
        """
        loop = asyncio.get_running_loop()
        seen, seen_at = -1, loop.time()
        while self.is_connected:
            if self._reader.understood != seen:
                seen, seen_at = self._reader.understood, loop.time()
            await asyncio.sleep(SILENCE_S / 2)
            if self._reader.understood != seen or loop.time() - seen_at < SILENCE_S:
                continue
            if self.ib.client._data:
                self.drop(f"half a message has been waiting for its rest for {SILENCE_S:g} s")
                return
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
        if code in OFFLINE:
            self.connectivity_lost = text
        elif code in (GatewayCode.RESTORED_DATA_LOST, GatewayCode.RESTORED_DATA_KEPT):
            self.connectivity_lost = None
        if code == GatewayCode.RESTORED_DATA_LOST:
            # Every subscription is gone; whoever listens asks for positions and values anew.
            self.feed.invalidate()
            self.lines.resubscribe()
            self.pnl.resubscribe()
        elif code == GatewayCode.PORT_CHANGED:
            self.new_port = new_port_of(text)
            logger.warning(
                "%s moves (%s): this process follows; set POSITION_SYNC_GATEWAY_PORT for others",
                self.gateway_id,
                text,
            )
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


def refuse_offline(connection: GatewayConnection) -> None:
    """Refuse a gateway that has lost IB: what it says is no news.

    Raises:
        BrokerUnavailableError: With what the gateway said.
    """
    if connection.connectivity_lost is not None:
        raise BrokerUnavailableError(
            connection.connectivity_lost, remedy="It comes back by itself."
        )


def new_port_of(text: str) -> int | None:
    """Read the new port out of message 1300; None where it names none.

    >>> new_port_of("Please reconnect on the new port - 4003")
    4003
    >>> new_port_of("the new port - 99999")
    """
    found = _NEW_PORT.search(text)
    return int(found[1]) if found and 0 < int(found[1]) < 1 << 16 else None


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
                shared.connection = await self._connect(shared)
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

    async def _connect(self, shared: "_Shared") -> GatewayConnection:
        """Connect where the gateway was last or said it would be, or else where it should be."""
        configured = self.settings.gateway_port
        errors: list[GatewayError] = []
        for port in dict.fromkeys((shared.port or configured, configured)):
            try:
                connection = await connect(self.settings, port=port)
            except (GatewayRefusedError, GatewayTimeoutError, NotAGatewayError) as error:
                errors.append(error)
            else:
                shared.port = port
                return connection
        raise errors[0]

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


async def connect(
    settings: Settings,
    *,
    port: int | None = None,
    random: Random | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> GatewayConnection:
    """Connect with the first free client id of the pool; see `get_connection` for the errors.

    A gateway that has an id in use (326) is given a moment before it is asked for the next.

    Args:
        port: Where the gateway moved to, when it is not where the settings say.
    """
    logging.getLogger("ib_async").setLevel(logging.WARNING)  # it logs each position at INFO
    for noisy in ("ib_async.client", "ib_async.Decoder", "eventkit"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # our errors say it better
    pauses = client_id_pauses(random or Random())  # noqa: S311 - jitter of a delay
    for client_id in settings.client_id_pool:
        if client_id != settings.client_id_pool[0]:
            await sleep(next(pauses))
        with suppress(ClientIdInUseError):
            ib, offline = await log_in(client_id, settings, port or settings.gateway_port)
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


def client_id_pauses(random: Random) -> Iterator[float]:
    """Give the pauses between the ids of the pool: growing and jittered, bounded in all."""
    left_s = PAUSES_S
    for taken in count(1):
        pause_s = min(left_s, NEXT_CLIENT_ID.delay_s(taken, random))
        left_s -= pause_s
        yield pause_s


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
