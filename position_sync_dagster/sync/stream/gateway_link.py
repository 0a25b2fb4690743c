"""The stream's connection to the broker: connect, open with the positions, reconnect."""

import asyncio
import logging
import math
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime
from gc import collect
from random import Random
from typing import Any

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import NEVER, Backoff
from position_sync_dagster.domain.gateway_session import GatewayRun, SessionState
from position_sync_dagster.gateway.codes import FARM_BROKEN, FARM_OK, OFFLINE, GatewayCode, said
from position_sync_dagster.gateway.connection import GatewayConnection, IBConnectionManager
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.sync.stream.delivery import Flusher
from position_sync_dagster.sync.stream.lines import LineManager
from position_sync_dagster.sync.stream.ownership import OwnerContext, end_tasks
from position_sync_dagster.sync.stream.router import Router

logger = logging.getLogger(__name__)

# Delays between attempts to connect.
RECONNECT = Backoff(first_s=2.0, longest_s=10.0, jitter=(0.5, 1.0))

# After a connection that lasted this long, the first attempt to reconnect has no delay.
SETTLED_S = 60.0


# A loss of IB (1100) is doubted if ticks still arrive this long after it. The restore (1102) that
# should have followed was not sent or not received, and a new log-in shows how things are.
DATA_DESPITE_LOSS_S = 60.0

# A loss of IB is doubted after this long in any case: without lines, or outside the sessions, no
# ticks show that it is over.
LONG_LOSS_S = 900.0

NOT_SINCE_LOST = "the line has not ticked since connectivity was lost"
# Texts of the column `note`: why the broker's value is used.
NOT_SINCE_BROKEN = "the line has not ticked since a data farm broke"

# Polling interval of a suspended lease, in seconds.
STAND_BY_S = 0.5

# Delay from a new connection to a garbage collection, which frees the holdings of the previous
# connection; the watchdog of that one has ended by then.
COLLECT_AFTER_S = 10.0


@dataclass(eq=False, repr=False)
class BrokerLink:
    """Connects to the gateway, opens the connection with its positions, and follows its messages.

    A connection is attached, so that the stream receives its events, from its log-in on. It is open
    from the time when the positions of a snapshot are published and routed until the socket or the
    data are lost.

    Attributes:
        state: STARTING, LIVE, BLIND (no gateway) or ENDED.
        live_since: When the newest connection opened; values confirmed since then are current.
        gateway_run: What the connections have shown of the gateway's process.
    """

    context: OwnerContext
    manager: IBConnectionManager
    router: Router
    flusher: Flusher
    lines: LineManager

    def __post_init__(self) -> None:
        self.state = SessionState.STARTING
        self.live_since: datetime | None = None
        self._restored_at = NEVER
        self._settings = self.context.settings
        self._lease = self.context.lease
        self._outage = OutageLog(logger)
        self._random = Random()  # noqa: S311 - jitter of a delay
        self._attempts = 0
        self._connected_at = -math.inf
        self._blind_at = math.inf
        self._attached: GatewayConnection | None = None
        self._opened: GatewayConnection | None = None
        session = self.context.lease.session
        self.gateway_run = GatewayRun() if session is None else session.gateway_run
        self._ended_at = None if session is None else session.state_since

    @property
    def connection(self) -> GatewayConnection | None:
        """The open connection; None while there is none."""
        opened = self._opened
        return opened if opened is not None and opened.is_connected else None

    def problems(self) -> list[str]:
        """Return the broken data farms, and the problems of accounts and positions."""
        connection = self.connection
        if connection is None:
            return []
        farms = [
            f"data farm {farm} is broken" for farm in sorted(connection.connectivity.broken_farms)
        ]
        return farms + connection.feed.problems

    @property
    def fault(self) -> str | None:
        """Why the stream is BLIND."""
        return self._outage.fault

    def live_connection(self) -> GatewayConnection | None:
        """Return the open connection; None while the stream is not LIVE."""
        return self.connection if self.state is SessionState.LIVE else None

    @property
    def _connection_ended(self) -> str:
        return f"The connection to {self._settings.gateway_id} ended."

    async def open(self) -> None:
        """Connect, request the positions, and make the first step with them.

        Raises:
            GatewayError: The gateway cannot be used.
            TradingModeError: The lake holds data of another trading mode.
            LakeError: A table cannot be used.
        """
        self._opened = None
        try:
            connection = await self.manager.get_connection()
        except errors.GatewayRefusedError as error:
            # A machine or a name that cannot be reached says nothing of the gateway.
            if not isinstance(error.__cause__, OSError) or isinstance(
                error.__cause__, ConnectionRefusedError
            ):
                self.gateway_run = self.gateway_run.after_refusal()
            raise
        if connection is not self._attached:
            now = self.context.clock()
            self.gateway_run = self.gateway_run.after_connection(now, self._ended_at or now)
        self._ended_at = None
        await self._lease.claim_mode(connection.trading_mode)
        await self.router.reset()
        replaces_another = self._attached not in (None, connection)
        if connection is not self._attached:
            await self._attach(connection)
        connection.require_online()
        await connection.feed.snapshot()
        connection.require_online()
        await self.router.step(connection, first=True)
        connection.require_online()
        listed_at = connection.feed.snapshot_at
        if listed_at is None:
            raise errors.BrokerUnavailableError(
                f"{self._settings.gateway_id} dropped every subscription.",
                remedy="Everything is requested again.",
            )
        self._opened = connection
        # The step may have taken long, and the accounts' values may have arrived meanwhile.
        self._become_live(since=max(listed_at, self._restored_at))
        if replaces_another:
            asyncio.get_running_loop().call_later(COLLECT_AFTER_S, collect)

    async def reconnect(self, stop: asyncio.Event) -> None:
        """Wait for a delay that grows until a connection lasts, then try once to connect.

        Raises:
            LeaseLostError: The login belongs to another process now.
            TradingModeError: The lake holds data of another trading mode.
            NewerTableError: A later release has migrated a table.
        """
        if self._opened is not None:
            self.go_blind(self._connection_ended)
            self._opened = None
        if self._ended_at is None and self._attached and not self._attached.is_connected:
            self._ended_at = self.context.clock()
        if self.context.monotonic() - self._connected_at >= SETTLED_S:
            self._attempts = 0
        delay_s = RECONNECT.delay_s(self._attempts, self._random) if self._attempts else 0.0
        await self.pause(delay_s, stop)
        if stop.is_set():
            return
        self._attempts += 1
        self._connected_at = math.inf  # an attempt that fails does not last
        try:
            await run_until(self.open(), stop, self._lease.lost)
            self._connected_at = self.context.monotonic()
        except errors.BrokerUnavailableError as error:
            self._attempts = 0
            self.go_blind(error.what)
            if self._attached is not None:
                self.end_doubtful_loss(self._attached)
            await self.pause(self._settings.flush_interval_s, stop)
        except (errors.LeaseLostError, errors.TradingModeError, errors.NewerTableError):
            raise
        except (errors.GatewayError, ConnectionError, errors.LakeError) as error:
            if isinstance(error, errors.GatewayTimeoutError) and self._attached is not None:
                self._attached.drop(str(error))
            self.go_blind(str(error))

    async def stand_by(self, stop: asyncio.Event) -> None:
        """Leave the gateway while the lease is suspended: another process may own the login."""
        if (connection := self.connection) is not None:
            reason = "the lease ran out while the store could not be used"
            self.go_blind(f"{reason}.")
            connection.drop(reason)
        await self.pause(STAND_BY_S, stop)

    async def pause(self, seconds: float, *until: asyncio.Event) -> None:
        """Wait; return early at one of the events, or when the socket or the lease is lost."""
        events = [*until, self._lease.lost]
        if (connection := self.connection) is not None:
            events.append(connection.lost)
        waits = [asyncio.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def go_blind(self, reason: str) -> None:
        """Set the state BLIND, with the reason; earlier quotes no longer count."""
        text = f"the stream is BLIND: {reason}"
        new = self._outage.report(reason, text=text, level=logging.WARNING)
        if self.state is not SessionState.BLIND:
            self._blind_at = self.context.monotonic()
        self.state = SessionState.BLIND
        self._lease.renew_now()
        if new:
            self.lines.interrupted(NOT_SINCE_LOST)

    def end_doubtful_loss(self, connection: GatewayConnection) -> None:
        """End the connection if data arrive although the gateway lost IB, or the loss is long."""
        now = self.context.monotonic()
        if connection.lines.heard_at >= self._blind_at + DATA_DESPITE_LOSS_S:
            connection.drop(
                f"the gateway reported {DATA_DESPITE_LOSS_S:g} s ago that it lost IB, and its data "
                "still arrive"
            )
        elif now >= self._blind_at + LONG_LOSS_S:
            self._blind_at = now  # of the next connection, too, a loss is doubted that late
            connection.drop(f"the gateway has not had IB for {LONG_LOSS_S:g} s, by its last word")

    def ended(self) -> None:
        """Record the end of the stream."""
        self.state = SessionState.ENDED

    async def close(self) -> None:
        """Close the connection, and release everything that the stream holds on it."""
        if self._attached is not None:
            self.router.detach(self._attached)
            self._attached.on_message.remove(self._on_message)
            self._attached.on_lost.remove(self._on_lost)
            self._attached = self._opened = None
        await self.manager.close()

    async def _attach(self, connection: GatewayConnection) -> None:
        """Subscribe to the events of a new connection; continue from the known holdings."""
        before = self._attached
        await self.router.attach(connection, before)
        self.flusher.watch(connection)
        connection.on_message.append(self._on_message)
        connection.on_lost.append(self._on_lost)
        self.context.counts.reconnects += before is not None
        self._attached = connection

    def _become_live(self, since: datetime) -> None:
        self.state, self.live_since = SessionState.LIVE, since
        self._outage.fault = None
        self._lease.renew_now()

    def _on_lost(self) -> None:
        """Make the stream BLIND at once, also while a step waits for a table."""
        if self.state is SessionState.LIVE and self.connection is None:
            self.go_blind(self._connection_ended)

    def _on_message(self, code: int, text: str) -> None:
        text = said(code, text)
        if code in OFFLINE:
            self.go_blind(text)
        elif code == GatewayCode.RESTORED_DATA_KEPT:
            self.lines.interrupted(NOT_SINCE_LOST)  # ticks that came without IB are old
            self._restored_at = self.context.clock()
            if self._opened is not None:
                self._become_live(since=self._restored_at)
            self.lines.restored()
            self.router.definitions_restored()
        elif code == GatewayCode.RESTORED_DATA_LOST:
            # The connection has requested its lines again; positions come first, as after every
            # interruption.
            self.go_blind(text)
            self._opened = None
            self.router.interrupt()
        elif code in FARM_BROKEN | FARM_OK:
            if code == GatewayCode.MARKET_DATA_FARM_BROKEN:
                self.lines.interrupted(NOT_SINCE_BROKEN)
            elif code == GatewayCode.MARKET_DATA_FARM_OK:
                self.lines.restored()
            elif code == GatewayCode.SECURITY_DEFINITION_FARM_OK:
                self.router.definitions_restored()
            self._lease.renew_now()


async def run_until(
    work: Coroutine[Any, Any, None], *until: asyncio.Event, grace_s: float = 0.0
) -> None:
    """Run a coroutine, and cancel it after an event is set: it may wait for the gateway.

    Args:
        grace_s: The time that it has left then to end by itself, in seconds.
    """
    task = asyncio.create_task(work)
    waits = [asyncio.create_task(event.wait()) for event in until]
    try:
        await asyncio.wait({task, *waits}, return_when=asyncio.FIRST_COMPLETED)
        if grace_s and not task.done():
            await asyncio.wait({task}, timeout=grace_s)
        if task.done():
            task.result()
    finally:
        await end_tasks(task, *waits)
