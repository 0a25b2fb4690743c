"""The streamer: contracts of active legs get market data lines; holdings without one are queued.

`BrokerLink` connects it to the broker, opens with the positions, and reconnects. `stream` runs one
that owns its login and streams into a lake, until its end.
"""

import asyncio
import inspect
import logging
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from position_sync_dagster.domain.clock import NEVER, Clock, ClockWatch, utc_now
from position_sync_dagster.domain.gateway_session import (
    Owner,
    SessionState,
    UnusableHoldings,
)
from position_sync_dagster.domain.leg import LegStates
from position_sync_dagster.domain.position_update import (
    PositionUpdateHandler,
)
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    GatewayError,
    GatewayLostError,
    GatewayTimeoutError,
    LakeError,
    LeaseLostError,
    NewerTableError,
    TradingModeError,
)
from position_sync_dagster.gateway.codes import FARM_BROKEN, FARM_OK, OFFLINE, GatewayCode, said
from position_sync_dagster.gateway.connection import GatewayConnection, IBConnectionManager
from position_sync_dagster.lake.lake import L, Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.sessions import login_owned
from position_sync_dagster.lake.storage.object_store import absolute_path
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.lake.strategy_registry import StrategyRegistry
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.stream.delivery import Flusher, UpdatesWriter
from position_sync_dagster.sync.stream.ownership import Ownership, StreamCounts
from position_sync_dagster.sync.stream.router import Router, StreamTables
from position_sync_dagster.sync.waits import end_tasks, run_until, wait_for_first

logger = logging.getLogger(__name__)

# Delays between attempts to connect.
RECONNECT = Backoff(first_s=2.0, longest_s=10.0, jitter=(0.5, 1.0))

# A loss of IB (1100) is doubted if ticks still arrive this long after it. The restore (1102)
# that should have followed was not sent or not received, and a new log-in shows how things are.
DATA_DESPITE_LOSS_S = 60.0

# A loss of IB is doubted after this long in any case: without lines, or outside the sessions,
# no ticks show that it is over.
LONG_LOSS_S = 900.0

# Longest wait of a new stream for the present owner of its login to end.
LOGIN_WAIT_S = 60.0

# Seconds that a step has left after a stop: it may wait for an answer of the gateway. A commit
# that has begun ends in this time, so that the next owner does not read a table before it.
STEP_END_S = 3.0

# A stream run ends after so many seconds and a new one follows: its events stay few enough to
# look at.
ROTATE_AFTER_S = 21_600.0


# Polling interval of a suspended lease, in seconds.
STAND_BY_S = 0.5


@dataclass(eq=False, repr=False)
class BrokerLink:
    """Connects to the gateway, opens the connection with its positions, and follows its messages.

    A connection is attached, so that the stream receives its events, from its log-in on. It is open
    from the time when the positions of a snapshot are published and routed until the socket or the
    data are lost.

    Attributes:
        state: STARTING, LIVE, BLIND (no gateway, or one without IB) or ENDED.
        live_since: When the newest list of positions came, or IB came back: what is confirmed since
            then is current.
        outage: Why the stream is BLIND.
    """

    ownership: Ownership
    manager: IBConnectionManager
    router: Router
    flusher: Flusher

    def __post_init__(self) -> None:
        self.state = SessionState.STARTING
        self.live_since: datetime | None = None
        self.outage = OutageLog(logger)
        self._connection_ended = f"The connection to {self.ownership.settings.gateway_id} ended."
        self._attached: GatewayConnection | None = None  # the connection whose events are received
        self._is_open = False  # that connection, until it or its data are lost
        # What IB said of another port (code 1300), for people, until the next log-in.
        self._new_port_text: str | None = None
        self._restored_at = NEVER  # when the gateway had IB again, with its data
        self._blind_since_s = math.inf  # since when it is BLIND, in seconds of the owner's clock
        self._attempts = 0  # to connect, in a row; they set the delay
        self._random = Random()  # noqa: S311 - jitter of a delay

    @property
    def connection(self) -> GatewayConnection | None:
        """The open connection; None while there is none."""
        attached = self._attached
        is_there = self._is_open and attached is not None and attached.is_connected
        return attached if is_there else None

    def problems(self) -> list[str]:
        """Return a new port that IB announced, broken farms, accounts without current values."""
        connection = self.connection
        if connection is None:
            return []
        farms = sorted(connection.connectivity.broken_farms)
        return [
            *filter(None, [self._new_port_text]),
            *(f"data farm {farm} is broken" for farm in farms),
            *connection.feed.values.problems,
        ]

    def live_connection(self) -> GatewayConnection | None:
        """Return the open connection; None while the stream is not LIVE."""
        return self.connection if self.state is SessionState.LIVE else None

    async def open(self) -> None:
        """Connect, request the positions, and make the first step with them.

        Raises:
            GatewayError: The gateway cannot be used.
            TradingModeError: The lake holds data of another trading mode.
            LakeError: A table cannot be used.
        """
        self._is_open = False
        connection = await self.manager.get_connection()
        await offload(self.ownership.sessions.claim_mode, connection.trading_mode)

        await self.router.reset()
        if connection is not self._attached:
            await self._attach(connection)

        connection.connectivity.require_ib()  # IB may be lost during each wait
        await connection.feed.snapshot()
        connection.connectivity.require_ib()
        await self.router.step(connection, first=True)
        connection.connectivity.require_ib()

        listed_at = connection.feed.states.listed_at
        if listed_at is None:
            raise BrokerUnavailableError(
                f"{connection.gateway_id} dropped every subscription.",
                remedy="Everything is requested again.",
            )
        self._is_open = True
        # Not since now: values of the accounts that arrived during the step are current, too.
        self._become_live(since=max(listed_at, self._restored_at))

    async def reconnect(self, stop: asyncio.Event) -> None:
        """Wait for a delay that grows until a connection is open, then try once to connect.

        A failed attempt leaves the stream BLIND with its reason; its next turn tries again.

        Raises:
            LeaseLostError: The login belongs to another process now.
            TradingModeError: The lake holds data of another trading mode.
            NewerTableError: A later release has migrated a table.
        """
        if self._is_open:
            self.go_blind(self._connection_ended)
            self._is_open = False

        await self.pause(RECONNECT.delay_s(self._attempts, self._random), stop)
        if stop.is_set():
            return

        self._attempts += 1
        try:
            await run_until(self.open(), stop, self.ownership.lost)
            self._attempts = 1  # if this connection ends, the next attempt waits a moment too

        except BrokerUnavailableError as error:
            # The gateway is there, without IB: its next word may end that. Try again each flush
            # interval, without a delay that grows; if its last word is doubtful, by a new log-in.
            self._attempts = 0
            self.go_blind(error.what)
            self.end_doubtful_loss()
            await self.pause(self.ownership.settings.flush_interval_s, stop)

        except (LeaseLostError, TradingModeError, NewerTableError):
            raise
        except (GatewayError, ConnectionError, LakeError) as error:
            # What was not answered in time is asked for on a new connection.
            if isinstance(error, GatewayTimeoutError) and self._attached is not None:
                self._attached.drop(str(error))
            self.go_blind(str(error))

    async def stand_by(self, stop: asyncio.Event) -> None:
        """Leave the gateway while the lease is suspended: another process may own the login."""
        connection = self.connection
        if connection is not None:
            reason = "the lease ran out, and is not renewed yet"
            self.go_blind(f"{reason}.")
            connection.drop(reason)
        await self.pause(STAND_BY_S, stop)

    async def pause(self, seconds: float, *until: asyncio.Event) -> None:
        """Wait; return early at one of the events, or when the socket or the lease is lost."""
        lost = [] if self.connection is None else [self.connection.lost]
        await wait_for_first([*until, self.ownership.lost, *lost], timeout_s=seconds)

    def go_blind(self, reason: str) -> None:
        """Set the state BLIND, with the reason; earlier quotes no longer count.

        A reason that was reported already changes nothing: the quotes are interrupted by then.
        """
        if self._new_port_text is not None:  # the port that IB announced may be the whole reason
            reason = f"{self._new_port_text}. {reason}"
        new = self.outage.report(
            reason, text=f"the stream is BLIND: {reason}", level=logging.WARNING
        )
        if self.state is not SessionState.BLIND:
            self._blind_since_s = self.ownership.monotonic()
        self.state = SessionState.BLIND
        self.ownership.renew_now()
        if new:
            self.router.lines.interrupted("connectivity was lost")

    def end_doubtful_loss(self) -> None:
        """End the connection if data arrive although the gateway lost IB, or the loss is long.

        Its restore (1102) may not have been sent, or received: a new log-in shows how things are.
        """
        connection = self._attached
        if connection is None:
            return
        now = self.ownership.monotonic()
        if connection.lines.heard_at_s >= self._blind_since_s + DATA_DESPITE_LOSS_S:
            connection.drop("the gateway reported that it lost IB, and its data still arrive")
        elif now >= self._blind_since_s + LONG_LOSS_S:
            # Else a next connection without IB would end at once; it has no ticks yet.
            self._blind_since_s = now
            connection.drop(f"the gateway has not had IB for {LONG_LOSS_S:g} s, by its last word")

    async def close(self) -> None:
        """Close the connection, and release everything that the stream holds on it."""
        if self._attached is not None:
            self.router.detach(self._attached)
            self.flusher.unwatch(self._attached)
            self._attached.on_message.remove(self._on_message)
            self._attached.ib.disconnectedEvent -= self._on_lost
            self._attached = None
            self._is_open = False
        await self.manager.close()

    async def _attach(self, connection: GatewayConnection) -> None:
        """Subscribe to the events of a new connection; continue from the known holdings.

        The port that the gateway announced before (code 1300) is forgotten: this connection found
        the right one.
        """
        before = self._attached
        await self.router.attach(connection, before)
        self.flusher.watch(connection)
        connection.on_message.append(self._on_message)
        connection.ib.disconnectedEvent += self._on_lost
        self.ownership.counts.reconnects += before is not None
        self._attached = connection
        self._new_port_text = None

    def _become_live(self, since: datetime) -> None:
        """Set the state LIVE: what the broker confirmed since then is current."""
        self.state = SessionState.LIVE
        self.live_since = since
        self.outage.fault = None
        self.ownership.renew_now()

    def _on_lost(self) -> None:
        """Make the stream BLIND at once, also while a step waits for a table."""
        if self.state is SessionState.LIVE and self.connection is None:
            self.go_blind(self._connection_ended)

    def _on_message(self, code: int, text: str) -> None:
        """Follow what the gateway says of IB, of its subscriptions, its port and its farms."""
        text = said(code, text)
        if code in OFFLINE:
            self.go_blind(text)
        elif code == GatewayCode.RESTORED_DATA_KEPT:
            self._restored()
        elif code == GatewayCode.RESTORED_DATA_LOST:
            # The connection has requested its lines again; positions come first, as after every
            # interruption.
            self.go_blind(text)
            self._is_open = False
            self.router.account_refresh.interrupt()
        elif code == GatewayCode.PORT_CHANGED:
            self._new_port_text = f"{text}: set POSITION_SYNC_GATEWAY_PORT to the new port"
        elif code in FARM_BROKEN | FARM_OK:
            self._farm_changed(code)

    def _restored(self) -> None:
        """Go on after a loss of IB that kept the data: ticks that came without IB are old."""
        self.router.lines.interrupted("connectivity was lost")
        self._restored_at = self.ownership.clock()
        if self._is_open:
            self._become_live(since=self._restored_at)

        self.router.lines.restored()
        self.router.definitions_restored()

    def _farm_changed(self, code: int) -> None:
        """Follow a data farm that broke or works again; the session's detail names the broken.

        Nothing is requested: each line has to tick soon, and what the farm refused may come again.
        """
        if code == GatewayCode.MARKET_DATA_FARM_BROKEN:
            self.router.lines.interrupted("a data farm broke")
        elif code == GatewayCode.MARKET_DATA_FARM_OK:
            self.router.lines.restored()
        elif code == GatewayCode.SECURITY_DEFINITION_FARM_OK:
            self.router.definitions_restored()
        self.ownership.renew_now()


# Fills that arrive within this time, in seconds, are handled in one step: an order may have
# several legs, or be filled in many executions.
FILLS_S = 0.2


class IBPositionStreamer:
    """Streams the contracts of active legs, one line each, and queues holdings without a line.

    Each holding of a conid is its own row, and one line serves them all. Each registered handler
    gets the newest value of each streamed position once per flush. Changes of the registry by
    any process take effect within seconds, position events of the broker at once.

    Args:
        registry: Which legs are active; by default the registry at its default path.
        queue: Takes the positions that are not streamed; by default the queue at its default path.
        manager: Whose connection it shares, at its address; it stays open while others use it.
        tables: The other tables to write, and the lease. Without a lease, it takes one beside the
            table of the queue, and no lines for underlyings unless `underlying_lines` is set.

    Attributes:
        counts: What it did so far.

    Example:
        streamer = IBPositionStreamer(registry, queue)
        streamer.register_handler(DeltaLakePositionWriter())
        await streamer.start()
        ...
        await streamer.stop()
    """

    def __init__(
        self,
        registry: StrategyRegistry | None = None,
        queue: PositionQueue | None = None,
        *,
        manager: IBConnectionManager | None = None,
        settings: Settings | None = None,
        tables: StreamTables | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.settings = settings or (manager.settings if manager else load_settings())
        self.registry = registry or StrategyRegistry()
        self.queue = queue or PositionQueue()
        self._tables = tables or StreamTables()
        if self._tables.ownership is None and self.settings.underlying_lines is None:
            # A program of its own has lines for legs alone, unless the setting asks for others.
            self.settings = self.settings.model_copy(update={"underlying_lines": 0})
        self._ownership = self._tables.ownership or self._own_lease(clock)
        self._ownership.status = self.status
        self.counts = self._ownership.counts

        self._router = Router(self._ownership, self.registry, self.queue, self._tables)
        self._flusher = Flusher(
            self._ownership,
            self._router.pricer,
            self._router.submitted,
            self._tables.account_values,
        )
        # Managers of an address share a connection, which ends with the last of them: to close
        # this one never closes that of `manager`.
        shared = IBConnectionManager(
            manager.settings if manager else self.settings, listeners=self._tables.listeners
        )
        self._link = BrokerLink(self._ownership, shared, self._router, self._flusher)

        self._task: asyncio.Task[None] | None = None  # the stream, from `start` to `stop`
        self._stop = asyncio.Event()  # set to end it
        self._early_step_at_s = float("-inf")  # when a fill last ended a pause; see `_pause`
        self._table_outage = OutageLog(logger)

    def _own_lease(self, clock: Clock) -> Ownership:
        """Return a lease of the streamer's own, which it holds from its start to its end."""
        sessions = Lake(folder_of(self.queue.table), clock=clock).open_sessions()
        return Ownership(sessions, self.settings, owner=Owner.LIBRARY, clock=clock)

    @property
    def state(self) -> SessionState:
        """STARTING, LIVE, BLIND (no gateway, or one without IB) or ENDED."""
        return self._link.state

    @property
    def detail(self) -> str | None:
        """Why it is BLIND; while LIVE, what is wrong with farms, accounts, legs and lines."""
        if self.state is not SessionState.LIVE:
            return self._link.outage.fault
        problems = [
            *self._link.problems(),
            *self._unusable_holdings().texts,
            *self._router.problems(),
            *self._router.lines.problems(),
        ]
        return "; ".join(problems) or None

    def _unusable_holdings(self) -> UnusableHoldings:
        """What of the broker's holdings is unknown or cannot be used; empty while not LIVE."""
        connection = self._link.live_connection()
        if connection is None:
            return UnusableHoldings()
        return connection.feed.unusable_holdings(self._router.pricer.set_aside)

    @property
    def lines_in_use(self) -> int:
        """The number of market data lines held."""
        return len(self._router.lines.held)

    @property
    def underlying_lines(self) -> int:
        """How many of the lines in use are held for underlyings alone."""
        return self.lines_in_use - len(self._router.lines.of_legs)

    @property
    def greeks(self) -> str | None:
        """How many options without greeks of IB have computed ones, and why others have none."""
        greeks = self._router.greeks
        return None if greeks is None else greeks.summary()

    @property
    def routes(self) -> LegStates:
        """(account, conid) → STREAMED, OVERFLOW, MONITORED or CLOSED."""
        return dict(self._router.routes.states)

    def status(self) -> dict[str, Any]:
        """Return the columns of the session that change with the stream."""
        return {
            "state": self.state,
            "live_since": self._link.live_since,
            "lines_in_use": self.lines_in_use,
            "line_limit": self._router.lines.login.limit.lines,
            "underlying_lines": self.underlying_lines,
            "detail": self.detail,
            "greeks": self.greeks,
            **self._unusable_holdings().as_columns(),
        }

    def register_handler(self, handler: PositionUpdateHandler, *, immediate: bool = False) -> None:
        """Deliver streamed updates to a handler; a failing handler does not affect the others.

        A handler that is registered again still gets each update once.

        Args:
            handler: It gets the newest value of each position with every flush.
            immediate: It gets the value of each tick at once instead, in the order of the ticks; of
                ticks that come while it is busy, the newest of each position.

        Raises:
            TypeError: The object has no method `async def on_position_update`.
        """
        name = type(handler).__name__
        if not isinstance(handler, PositionUpdateHandler):
            raise TypeError(f"{name} is no handler: it has no method on_position_update.")

        whole_flush = getattr(handler, "on_position_updates", None)
        for method in filter(None, (handler.on_position_update, whole_flush)):
            if not inspect.iscoroutinefunction(method):
                raise TypeError(
                    f"{name}.{method.__name__} is no coroutine: write it with `async def`."
                )
        self._flusher.add_handler(handler, immediate=immediate)

    async def start(self) -> None:
        """Connect, request the positions and the lines, and then stream in the background.

        Raises:
            LoginOwnedError: This or another process streams from the login; the error names it.
            GatewayError: The gateway cannot be used; nothing was started.
        """
        if self._task is not None:
            return
        self._stop.clear()
        await self._initialize()
        try:
            await self._link.open()
        except BaseException:
            await self._leave()
            raise
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write the last updates, free the lines, and end the connection."""
        self._stop.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def run(self, stop: asyncio.Event) -> None:
        """Stream until `stop` is set; while there is no gateway, try again to connect.

        Raises:
            LoginOwnedError: This or another process streams from the login; the error names it.
            ClockSetBackError: The clock was set back; the next stream begins with the right time.
            LeaseLostError: The login belongs to another process now.
            LakeError: The tables cannot be used at the start, or one refuses the rows for good, as
                NewerTableError, TradingModeError, ForeignTableError.
        """
        await self._initialize()
        self._stop = stop
        await self._run()

    async def _initialize(self) -> None:
        """Read registry and contracts; create the tables and take a lease, if none was given.

        With a lease (`StreamTables.ownership`) the tables are those of an initialized lake.
        """
        tables = self._tables
        if tables.ownership is None:
            await self.registry.initialize()
            await self.queue.initialize()
            for written in (tables.broker_positions, tables.contracts, tables.account_values):
                if written is not None:
                    await offload(written.table.initialize)
        await self.registry.refresh()
        await self._router.contracts.load(self.registry.legs)
        if tables.ownership is None:
            await self._take_login()

    async def _take_login(self) -> None:
        """Acquire the lease; the lakes of the registry and of the settings may have an owner too.

        The lease lies beside the queue, which a user of the library may have put elsewhere.

        Raises:
            LoginOwnedError: One of them has one.
        """
        sessions = self._ownership.sessions
        folders = {folder_of(self.registry.table), absolute_path(self.settings.lake)}
        for folder in folders - {folder_of(sessions.table)}:
            others = Lake(folder).sessions
            if await offload(others.table.exists):
                owner = await offload(others.current, self.settings.gateway_id)
                if owner is not None and owner.is_alive(self._ownership.clock()):
                    raise login_owned(owner)

        await offload(sessions.table.initialize)
        await self._ownership.begin()

    async def _run(self) -> None:
        """Make step after step, and flush beside them, until the stop or an error that ends it."""
        live = self._link.live_connection
        tasks = [asyncio.create_task(self._flusher.run(live))]
        if self._router.greeks is not None:
            tasks.append(asyncio.create_task(self._router.greeks.run(live)))
        clock = ClockWatch(self._ownership.clock)
        try:
            while not self._stop.is_set():
                clock.check()  # it raises after the clock was set back
                if self._ownership.suspended:  # the lease ran out: another may own the login
                    await self._link.stand_by(self._stop)
                    continue

                if self._ownership.lost.is_set():  # a lease that only ran out may still be renewed
                    self._ownership.check()
                for task in tasks:
                    if task.done():
                        task.result()  # raises the error that ended it
                await self._go_on()

        finally:
            await end_tasks(*tasks)
            await self._close()

    async def _go_on(self) -> None:
        """Make a step with the open connection, or try to open one."""
        connection = self._link.connection
        if connection is None:
            await self._link.reconnect(self._stop)
            return

        # BLIND with an open connection: the gateway has lost IB, and reports nothing new.
        if self.state is SessionState.BLIND:
            self._link.end_doubtful_loss()
        else:
            lost = self._ownership.lost
            await run_until(self._step(connection), self._stop, lost, grace_s=STEP_END_S)
        await self._pause()

    async def _step(self, connection: GatewayConnection) -> None:
        """Make a step; after an error that may pass, the next one tries the same again."""
        try:
            await self._router.step(connection)
            self._table_outage.fault = None
        except NewerTableError:
            raise  # the stream of a later release may own the login then
        except LakeError as error:
            self._table_outage.report(str(error))
        except (GatewayLostError, ConnectionError) as error:
            self._link.go_blind(str(error))
        except GatewayError as error:
            logger.warning("%s", error)

    async def _pause(self) -> None:
        """Wait for a flush interval; return early once for a fill."""
        interval_s = self.settings.flush_interval_s
        fill = self._router.urgent
        # After an early step the next one comes an interval later, however many fills there are.
        is_pausing = self._ownership.monotonic() - self._early_step_at_s < interval_s
        if is_pausing or self.state is not SessionState.LIVE:
            await self._link.pause(interval_s, self._stop)
            return

        await self._link.pause(interval_s, self._stop, fill)
        if fill.is_set():  # more fills may come at once: one step for all
            await self._link.pause(FILLS_S, self._stop)
            self._early_step_at_s = self._ownership.monotonic()

    async def _close(self) -> None:
        """End the routes, then the deliveries, and the connection last."""
        self._link.state = SessionState.ENDED
        await self._router.close()
        await self._flusher.close()
        await self._leave()

    async def _leave(self) -> None:
        """End the connection, and the lease if it is the streamer's own."""
        await self._link.close()
        if self._tables.ownership is None:
            await self._ownership.end()


def folder_of(table: Table) -> str:
    """Return the folder or URI in which a table lies."""
    return table.path.rpartition("/")[0]


# Returns the tables of a stream with what an extension adds.
Complete = Callable[[StreamTables, L, Settings, Ownership], StreamTables]


async def stream(
    lake: L,
    settings: Settings,
    *,
    run_id: str | None = None,
    stop: asyncio.Event,
    complete: Complete[L] | None = None,
) -> StreamCounts:
    """Stream until `stop` is set, and return what was written.

    It is set here when the run's time is up.

    While there is no gateway, the stream tries again to connect, and its session is BLIND.

    Args:
        complete: Adds what an extension has; None: the stream is that of the core alone.

    Raises:
        LoginOwnedError: Another process owns the login and did not end.
        LeaseLostError: The login was taken over; nothing was written afterwards.
        TradingModeError: The lake holds data of another trading mode.
    """
    await lake.initialize()
    sessions = lake.open_sessions()
    async with Ownership(
        sessions,
        settings,
        owner=Owner.STREAM,
        run_id=run_id,
        wait_s=LOGIN_WAIT_S,
        stop=stop,
    ) as own:
        # From now on both tables refuse the rows of an earlier owner.
        token = own.session.fencing_token
        await asyncio.gather(
            offload(lake.updates.table.fence, settings.gateway_id, token),
            offload(lake.account_values.table.fence, settings.gateway_id, token),
        )
        tables = StreamTables(
            broker_positions=lake.broker_positions,
            updates=lake.updates,
            contracts=lake.contracts,
            account_values=lake.account_values,
            position_changes=lake.position_changes,
            ownership=own,
        )
        if complete is not None:
            tables = complete(tables, lake, settings, own)
        streamer = IBPositionStreamer(lake.registry, lake.queue, settings=settings, tables=tables)
        streamer.register_handler(UpdatesWriter(lake.updates, own))
        rotation = asyncio.get_running_loop().call_later(ROTATE_AFTER_S, stop.set)
        try:
            async with AsyncExitStack() as beside:
                for part in tables.beside:
                    await beside.enter_async_context(part)
                await streamer.run(stop)
        finally:
            rotation.cancel()

        return streamer.counts
