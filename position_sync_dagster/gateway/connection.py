"""One live connection to the gateway: its account feed, market data lines, requests and watchdog.

The requests are those that are answered once: contract details, and the executions of the day.
An answer is whole if every message that may belong to it was read. `IBConnectionManager` shares the
connection with the other managers of an event loop.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, time
from operator import attrgetter
from time import monotonic
from typing import Any, ClassVar, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet
from zoneinfo import ZoneInfo

from ib_async import IB, CommissionReport, Contract, Fill
from ib_async import ContractDetails as IBContractDetails

from position_sync_dagster.domain.clock import SKEW, utc_now
from position_sync_dagster.domain.exchange_time import UnknownZoneError
from position_sync_dagster.domain.execution import FROM_GATEWAY, Execution, Side
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.instrument import CONIDS, ContractDetails, DetailsByConid, digits
from position_sync_dagster.domain.leg import UnresolvedLeg
from position_sync_dagster.domain.position_update import TradingMode, trading_mode_of
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.gateway import codes, ib_async_internals, market_data, subscriptions
from position_sync_dagster.gateway.account_feed import AccountFeed
from position_sync_dagster.gateway.codes import (
    ALGO_VENUE,
    OFFLINE,
    RESTORED,
    GatewayCode,
    Listener,
    MessageType,
)
from position_sync_dagster.gateway.login import Login, log_in
from position_sync_dagster.gateway.translate import UNSET, details_of, instrument_of, known
from position_sync_dagster.outage_log import LimitedLog
from position_sync_dagster.settings import Settings, load_settings

logger = logging.getLogger(__name__)

# Seconds without a readable message after which the gateway is asked for its time, and has as
# long to answer. A message that stays incomplete for this time ends the connection.
SILENCE_S = 10.0


Answer = TypeVar("Answer")

# A gateway's day begins at midnight in one of these zones; it does not say in which.
_DAY_ZONES = ("America/New_York", "Europe/London", "Asia/Hong_Kong")


class DayExecutions(NamedTuple):
    """What a gateway answered.

    Attributes:
        executions: In the order of the answer.
        begin, end: It names every execution of its accounts between these times. If one of the
            answer cannot be read, or it may have come after midnight, `begin` is not before `end`,
            so that the absence of others proves nothing.
    """

    executions: Sequence[Execution]
    begin: datetime
    end: datetime


def day_begin(now: datetime) -> datetime:
    """Return since when an answer names every execution.

    The gateway's day begins at midnight in one of the zones of `_DAY_ZONES`, and it does not say in
    which: that is the latest of their last midnights.

    >>> day_begin(datetime(2026, 3, 20, 15, 30, tzinfo=UTC)).isoformat()
    '2026-03-20T04:00:00+00:00'
    """
    times = [now.astimezone(ZoneInfo(name)) for name in _DAY_ZONES]
    midnights = [datetime.combine(local.date(), time(), local.tzinfo) for local in times]
    return max(midnights).astimezone(UTC)


def execution_of(fill: Fill, report: CommissionReport, asked_at: datetime) -> Execution:
    """Return a fill as an execution.

    Raises:
        ValueError: Its contract, id, account, quantity or side cannot be read.
    """
    done = fill.execution
    instrument = instrument_of(fill.contract)
    is_named = done.execId and done.acctNumber and instrument.conid in CONIDS
    if not is_named or known(done.shares) is None:
        raise ValueError("the id, account, conid or quantity of an execution")
    if done.side not in ("BOT", "SLD"):
        raise ValueError(f"the side {done.side!r} of an execution")

    if report.execId != done.execId:  # until its commission comes, ib_async has an empty report
        report = CommissionReport(commission=UNSET)
    written = {
        name: value
        for name, value in sorted(vars(done).items())
        if value and isinstance(value, int | float | str)
    }
    return Execution(
        **instrument.terms,
        execution_id=done.execId,
        account=done.acctNumber,
        time=done.time.astimezone(UTC),
        side=Side.BUY if done.side == "BOT" else Side.SELL,
        quantity=abs(done.shares),
        price=known(done.price),
        commission=known(report.commission),
        commission_currency=report.currency or None,
        realized_pnl=known(report.realizedPNL) or None,  # ib_async turns an unknown profit into 0
        source=FROM_GATEWAY,
        statement="",
        order_id=str(done.permId) if done.permId else None,
        attributes=json.dumps(written, ensure_ascii=False),
        stated_at=asked_at,
    )


# Maximum number of requests that wait at once: the gateway answers them one after the other.
CONCURRENT_REQUESTS = 20


def _details_in(listings: Sequence[IBContractDetails]) -> ContractDetails | None:
    """Read the details of a contract from the messages about it; None where they cannot be read.

    The gateway answers with one message for each venue; that of a future's algo venue may be the
    first, and counts only if there is no other. Source: see `ALGO_VENUE`.
    """
    of_exchanges = (
        listing
        for listing in listings
        if listing.contract and not listing.contract.exchange.startswith(ALGO_VENUE)
    )
    try:
        return details_of(next(of_exchanges, listings[0]), seen_at=utc_now())
    except ValueError:
        return None


def _pattern(leg: UnresolvedLeg) -> Contract:
    """Return the contract to ask for: what a leg says, and what is left out fits any value."""
    kind = leg.sec_type or ("OPT" if leg.right else "FUT" if leg.expiry else "STK")
    day = ""  # of an option on a share or an index its month: see `GatewayConnection.candidates`
    if leg.expiry is not None:
        day = f"{leg.expiry:%Y%m%d}" if kind in ("FUT", "FOP") else f"{leg.expiry:%Y%m}"
    return Contract(
        symbol=leg.symbol,
        secType=kind,
        lastTradeDateOrContractMonth=day,
        strike=leg.strike or 0.0,
        right=leg.right[0] if leg.right else "",
        multiplier=digits(leg.multiplier) if leg.multiplier else "",
        exchange=leg.exchange or "",
        currency=leg.currency or "",
        tradingClass=leg.trading_class or "",
    )


# Seconds between two log lines for one kind of bad message, which may come hundreds a second.
GARBAGE_LOG_S = 60.0

# The messages of which lists of positions consist.
_POSITION, _POSITION_END = str(MessageType.POSITION), str(MessageType.POSITION_END)

_ERROR_TYPE = str(MessageType.ERROR)

# The messages of which the answers to `_ask` consist.
_IN_ANSWERS = frozenset(
    map(str, (MessageType.CONTRACT_DETAILS, MessageType.BOND_DETAILS, MessageType.EXECUTION))
)


class MessageReader:
    """Counts the messages of a connection that were understood, and logs the others sparingly.

    ib_async logs a trace for each message that it cannot read.

    After a position that could not be read, or a message that may have been one, no list of
    positions ends on this connection: the holding that the list lacks would count as closed. The
    request for the list times out, which ends the connection. A later end message proves nothing:
    the gateway may send the end of one list twice.

    Args:
        ib: The connection.
        gateway_id: Its gateway.

    Attributes:
        understood_at_s: When the newest message came that was understood, in monotonic seconds.
        missed: The number of messages that could not be read and may have been part of an answer.
    """

    def __init__(self, ib: IB, gateway_id: str) -> None:
        self.understood_at_s = monotonic()
        self.missed = 0
        self._gateway_id = gateway_id
        self._list_may_lack_a_position = False  # from then on, no list ends
        self._log = LimitedLog(logger, every_s=GARBAGE_LOG_S)
        # ib_async's own function, to which `_read` passes what it leaves to it.
        self._interpret = ib_async_internals.intercept_messages(ib, self._read)
        # Times that ib_async would take for another zone, or not at all, are corrected before.
        ib_async_internals.rewrite_times(ib)

    def _read(self, fields: list[str]) -> None:
        """Read a message by ib_async, and record whether it was understood.

        The end of a list is not passed on if the list may lack a position.
        """
        message_type = fields[0] if fields else ""
        if message_type == _ERROR_TYPE:
            fields = [codes.readable(field) for field in fields]
        if self._list_may_lack_a_position and message_type == _POSITION_END:
            return
        try:
            self._interpret(fields)
        except Exception as error:  # noqa: BLE001 - one message must not end the others
            self._on_unreadable(message_type, error)
        else:
            self.understood_at_s = monotonic()

    def _on_unreadable(self, message_type: str, error: Exception) -> None:
        """Record that a message is not understood, and log it without its values.

        One whose type cannot be read may have been of any type. `_IN_ANSWERS` are the types of the
        answers to `_ask`.
        """
        may_be_any = not message_type.isdecimal()
        # No list of this connection ends any more: it times out, and the next connection asks anew.
        self._list_may_lack_a_position |= message_type == _POSITION or may_be_any
        self.missed += message_type in _IN_ANSWERS or may_be_any

        kind = "unreadable message"
        text = "a message that cannot be read"
        if isinstance(error, UnknownZoneError):
            kind = str(error)
            text = (
                f"a time that cannot be read, since {error}. Choose another time zone at the "
                "log-in of TWS or IB Gateway, or UTC for the times that it sends to clients "
                "(API settings)"
            )
        cause = f"(type {message_type[:12]!a}, {type(error).__name__}); it is left out"
        self._log.report(kind, f"{self._gateway_id} sent {text} {cause}")


# Maximum seconds to wait until a socket is closed.
CLOSE_S = 2.0


class GatewayConnection:
    """A live connection: ib_async's `ib`, the account feed and the market data lines on it.

    It ends with the socket: after that `is_connected` stays False, and the manager makes a new
    one. It has no order path.

    Attributes:
        accounts: The accounts of the login.
        connectivity: Whether the gateway has IB, and its data farms.
        on_message: Listeners, called with (code, text) for each message of type 4.
        lost: Set when the socket is gone.
        feed: The holdings and their values.
        lines: The market data lines.
        pnl: The values of single holdings without a line.
        summaries: The net liquidation and the profit and loss of each account.
        unknown: The conids of which the gateway last said that it knows no such contract (200).
    """

    def __init__(self, login: Login) -> None:
        ib = login.ib
        settings = login.settings
        self.ib = ib
        self.client_id = login.client_id
        self.gateway_id = settings.gateway_id
        self.connectivity = login.connectivity
        self.accounts = login.accounts
        self.unknown: set[int] = set()
        self.lost = asyncio.Event()
        ib.disconnectedEvent += self.lost.set

        self.feed = AccountFeed(login, give_up=self.drop)
        self.lines = market_data.MarketDataRequests(ib, settings=settings)
        self.pnl = subscriptions.PnlSubscriptions(ib, self.feed.book)
        self.summaries = subscriptions.AccountSummaries(login)

        self.on_message: list[Callable[[int, str], None]] = []
        self._timeout_s = login.timeout_s
        ib.errorEvent += self._on_error
        self._reader = MessageReader(ib, settings.gateway_id)
        self._watchdog = asyncio.create_task(self._watch())  # drops a connection that is silent

    @property
    def is_connected(self) -> bool:
        """Return whether the gateway is there and has sent its accounts."""
        return bool(self.ib.isConnected())

    @property
    def trading_mode(self) -> TradingMode:
        """Return live, paper or simulated, by the account ids."""
        return trading_mode_of(self.accounts[0])

    def require_login_of(self, settings: Settings) -> None:
        """Check the trading mode and the accounts that settings and gateways file name, if any.

        Raises:
            SettingsError: An account is of another mode, or the gateway serves other accounts.
        """
        mode = settings.trading_mode
        expected = settings.accounts
        for served in set(map(trading_mode_of, self.accounts)):
            if mode is not None and served is not mode:
                raise SettingsError(
                    f"POSITION_SYNC_TRADING_MODE is {mode}, and the gateway at "
                    f"{settings.gateway_id} serves a {served} account.",
                    remedy="Point POSITION_SYNC_GATEWAY_PORT at the gateway of the other mode, or "
                    "change the mode together with POSITION_SYNC_LAKE.",
                )
        if expected is not None and sorted(expected) != sorted(self.accounts):
            raise SettingsError(
                f"The gateway of {settings.gateway_id} at {settings.gateway_address} serves "
                f"{', '.join(sorted(self.accounts))}, and {settings.gateways_file} names "
                f"{', '.join(sorted(expected))}.",
                remedy="Correct the accounts or the address of this gateway in that file.",
            )

    @property
    def sees_ib(self) -> bool:
        """Whether the gateway has IB: only then an empty answer counts."""
        return self.connectivity.lost is None and self.is_connected

    @property
    def _knows_contracts(self) -> bool:
        """Whether code 200 says that there is no such contract: the farm of definitions works."""
        return self.connectivity.knows_contracts and self.is_connected

    async def details(self, conids: Iterable[int]) -> DetailsByConid:
        """Request contract details; a conid without an answer that can be read is left out.

        The gateway answers an unknown conid by code 200 and no end message (recorded: ibkr-go
        contract_details_not_found.txt): `unknown` has it then, until it is requested again. While
        the farm of definitions or IB is away, that code comes for every contract, and does not
        count (`_knows_contracts`). A request that it refuses by 321 never ends in ib_async: hence
        the bound of each answer.
        """
        gate = asyncio.Semaphore(CONCURRENT_REQUESTS)

        async def request(conid: int) -> ContractDetails | None:
            """Return the details of one contract, and renew `unknown` about it.

            None: no answer that can be read came.
            """
            contract = Contract(conId=conid)
            async with gate:
                listings, refused_with, _ = await self._ask(
                    self.ib.reqContractDetailsAsync, contract
                )

            self.unknown.discard(conid)
            # Without IB or its farm of definitions each contract gets this code.
            if self._knows_contracts and GatewayCode.NO_CONTRACT in refused_with:
                self.unknown.add(conid)
            return _details_in(listings) if listings else None

        answers = await asyncio.gather(*(request(conid) for conid in conids))
        return {details.conid: details for details in answers if details is not None}

    async def executions(self) -> DayExecutions | None:
        """Request the executions of all clients since midnight; None if there is no sure answer.

        Source: IB, "Executions and Commissions" (interactivebrokers.github.io/tws-api/
        executions_commissions.html): those since midnight. ib_async takes an error for the end of
        an empty answer, so any error that arrives meanwhile and names no contract makes the answer
        worthless. If the answer is not whole, its `begin` is its `end`: that others are absent
        proves nothing. Commissions follow the executions; a later answer has them.
        """
        if not self.sees_ib:
            return None
        asked_at = utc_now()
        fills, refused_with, whole = await self._ask(self.ib.reqExecutionsAsync, None)
        if fills is None or refused_with or not self.sees_ib:
            return None

        # ib_async adds the commission to the fill of the first answer alone (2.1.0, wrapper.py).
        reports = {fill.execution.execId: fill.commissionReport for fill in self.ib.fills()}
        executions = list[Execution]()
        # The day of the answer; it has begun if the gateway's clock is ahead of ours.
        begin = day_begin(utc_now() + SKEW) if whole else asked_at
        for fill in fills:
            if fill.contract.secType == "BAG" or not fill.execution.shares:
                continue  # of a combo the legs are named too; a quantity of 0 changes no position
            try:
                executions.append(execution_of(fill, reports[fill.execution.execId], asked_at))
            except ValueError:
                begin = asked_at  # one is not known: that others are absent proves nothing
        return DayExecutions(executions, begin, asked_at)

    async def candidates(self, leg: UnresolvedLeg) -> list[ContractDetails] | None:
        """Request the contracts that a leg describes: each conid once, in the gateway's order.

        A description that fits several contracts is answered with all of them. Source: IB,
        "Requesting Contract Details" (interactivebrokers.github.io/tws-api/contract_details.html).
        For options, the whole month of the expiry is requested: an index option that is settled
        at the open may be listed by the day of its last trade or by the day after, and both must be
        seen to be told apart. Futures are requested by day, since their month is that of delivery.

        Returns:
            The contracts; an empty list if the gateway knows none (code 200). None without a sure
            answer, which says nothing about the leg: none came, it is not whole, another error
            came, or IB or its farm of definitions is away (`_knows_contracts`).
        """
        if not self.sees_ib:
            return None
        pattern = _pattern(leg)
        answer, refused_with, whole = await self._ask(self.ib.reqContractDetailsAsync, pattern)
        if answer is None or not whole or self.connectivity.lost is not None:
            return None
        if refused_with and not self._knows_contracts:
            return None  # each description gets code 200 then
        if refused_with != ([] if answer else [GatewayCode.NO_CONTRACT]):
            return None  # ib_async ends an answer at any error

        candidates = []
        for listings in grouped(attrgetter("contract.conId"), answer).values():
            candidate = _details_in(listings)
            if candidate is None:
                return None  # it may be the one that the leg describes
            candidates.append(candidate)
        return candidates

    async def _ask(
        self, request: Callable[[Any], Awaitable[Answer]], about: Contract | None
    ) -> tuple[Answer | None, list[int], bool]:
        """Send a request of ib_async, and wait for its answer.

        ib_async leaves a message that it cannot read out of the answer.

        Args:
            request: The function of ib_async, which gets `about`.
            about: The contract; None for a request that names none.

        Returns:
            The answer, None if none came in time; the codes of errors that arrived meanwhile about
            this contract, or without a contract if `about` is None; and whether the answer is
            whole.
        """
        refused_with: list[int] = []
        missed = self._reader.missed

        def note(request_id: int, code: int, _text: str, contract: Contract | None) -> None:
            """Record an error about the same contract, or about none; a notice has no id."""
            if request_id > 0 and contract is about:
                refused_with.append(code)

        self.ib.errorEvent += note
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await request(about)
            return answer, refused_with, self._reader.missed == missed
        except (TimeoutError, ConnectionError):
            return None, refused_with, False
        finally:
            self.ib.errorEvent -= note

    async def _watch(self) -> None:
        """End a connection on which no message is understood any more, not even an answer.

        The socket of a hung gateway, or one behind a broken network, stays open for hours. Bytes
        that are no message, or only half of one, do not count as an answer.
        """
        while self.is_connected:
            await asyncio.sleep(SILENCE_S / 2)
            if monotonic() - self._reader.understood_at_s < SILENCE_S:
                continue

            if ib_async_internals.unread_bytes(self.ib):
                self.drop(f"a message has been incomplete for {SILENCE_S:g} s")
                return
            try:
                async with asyncio.timeout(SILENCE_S):
                    await self.ib.reqCurrentTimeAsync()
            except TimeoutError:
                self.drop(f"it has not answered for {2 * SILENCE_S:g} s")
            except ConnectionError:
                return

    def drop(self, why: str) -> None:
        """End the connection without waiting; the manager makes a new one on demand."""
        if self.lost.is_set():
            return
        logger.warning("the connection to %s is given up: %s", self.gateway_id, why)
        self._watchdog.cancel()
        self.ib.disconnect()
        self.lost.set()

    async def close(self) -> None:
        """Free the lines, end the connection and wait until the socket is closed.

        Its manager does so when nobody holds it any more; one that is lost or given up is not
        closed, since it has no socket (`drop`).
        """
        self._watchdog.cancel()
        if ib_async_internals.has_socket(self.ib):
            self.lines.cancel_all()
            closed = ib_async_internals.socket_closed(self.ib)
            self.ib.disconnect()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    while ib_async_internals.has_socket(self.ib):
                        await closed
        self.lost.set()

    def _on_error(self, _request: int, code: int, text: str, _contract: object) -> None:
        """Take an error or notice: first for the connection and its parts, then for listeners."""
        self.connectivity.take(code, text)
        if code in OFFLINE:
            self.feed.interrupted()
        elif code in RESTORED:
            self.feed.restored()

        if code == GatewayCode.RESTORED_DATA_LOST:
            # Every subscription is gone; the listeners request positions and values again.
            self.feed.invalidate()
            self.lines.resubscribe()
            self.pnl.dropped()
            self.summaries.dropped()
        elif code == GatewayCode.RESTORED_DATA_KEPT:
            self.pnl.restored()
            self.summaries.restored()

        for listener in list(self.on_message):
            listener(code, text)


async def connect(
    settings: Settings,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    timeout_s: float | None = None,
    listeners: Iterable[Listener] = (),
) -> GatewayConnection:
    """Open a connection with the first free client id of the pool.

    Args:
        settings: The address, the client ids, the trading mode.
        sleep: Waits for the pauses between client ids.
        timeout_s: Longest wait for one answer of the gateway; by default `login.TIMEOUT_S`.
        listeners: Each gets every message, from the log-in on.

    Raises:
        GatewayError: The log-in failed; each of its subclasses names the cause (`log_in`).
        SettingsError: The login is of another trading mode, or has other accounts.
    """
    login = await log_in(settings, sleep=sleep, timeout_s=timeout_s, listeners=listeners)
    connection = GatewayConnection(login)
    try:
        connection.require_login_of(settings)
    except SettingsError:
        await connection.close()
        raise
    return connection


class IBConnectionManager:
    """Shares the process's one connection to a gateway with the other managers of that gateway.

    Args:
        settings: Address, pool of client ids, timeouts; by default from the environment.
        host: Overrides that of the settings.
        port: Overrides that of the settings.
        client_id: Overrides the pool of the settings.
        listeners: Each gets every message that a connection of this manager sends or receives.

    Example:
        manager = IBConnectionManager()
        connection = await manager.get_connection()
        print(connection.accounts, connection.ib.isConnected())
        await manager.close()
    """

    # By event loop, then by the address and client id of the settings.
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
        listeners: Iterable[Listener] = (),
    ) -> None:
        self._listeners = listeners
        settings = settings or load_settings()
        if client_id is not None and client_id < 1:
            raise SettingsError(
                f"The client id {client_id} is refused: id 0 binds the orders of TWS itself.",
                remedy="Use 1 or more.",
            )
        changes = {"gateway_host": host, "gateway_port": port, "gateway_client_id": client_id}
        given = {name: value for name, value in changes.items() if value}
        self.settings = settings.model_copy(update=given)

    async def get_connection(self) -> GatewayConnection:
        """Return the live connection; connect first where there is none.

        Raises:
            GatewayRefusedError: Nothing listens there, or it hangs up at once.
            GatewayTimeoutError: It accepts the connection and then sends nothing.
            NotAGatewayError: It speaks another protocol.
            ClientIdInUseError: Every client id of the pool is in use.
            SettingsError: The login is of another trading mode.
        """
        shared = self._slot()
        async with shared.lock:
            shared.holders.add(self)
            if shared.connection is None or not shared.connection.is_connected:
                shared.connection = await connect(self.settings, listeners=self._listeners)
            # Another manager may have connected, with other settings of the same address.
            shared.connection.require_login_of(self.settings)
            return shared.connection

    async def close(self) -> None:
        """Release the connection; it ends when no manager holds it any more."""
        shared = self._slot()
        async with shared.lock:
            shared.holders.discard(self)
            if not shared.holders and shared.connection is not None:
                await shared.connection.close()
                shared.connection = None

    def _slot(self) -> "_Shared":
        """Return what the managers of this gateway and client id share in this event loop.

        `_ADDRESS` reads these from the settings.
        """
        slots = self._shared.setdefault(asyncio.get_running_loop(), {})
        return slots.setdefault(_ADDRESS(self.settings), _Shared())


_ADDRESS = attrgetter("gateway_host", "gateway_port", "gateway_client_id")


class _Shared:
    """One connection, and the managers that hold it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()  # one manager connects or closes at a time
        self.holders: WeakSet[IBConnectionManager] = WeakSet()
        self.connection: GatewayConnection | None = None
