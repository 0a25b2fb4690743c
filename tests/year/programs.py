"""The program in one process: Dagster's own daemon functions, and the stream over a socket.

The clock is moved by hand: Python's own clocks are replaced (time-machine), except the monotonic
one, by which waits are measured. Delta Lake reads the machine's clock: what it keeps old files by
is a span of the machine's time here (`short_retentions`). Dagster's daemon is a loop around
functions that take the time, which are called here.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import polars as pl
import sqlalchemy
import yaml
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs
from time_machine import Traveller

from ib_gateway_simulator import SimulatedGateway
from position_sync_dagster.definitions import defs
from position_sync_dagster.defs import resources
from position_sync_dagster.defs.tick import STREAMED_EVERY
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.schema import records_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.book import open_positions, read_book
from position_sync_dagster.money.stream_parts import with_money
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.stream.streamer import stream
from tests.support.migrations import keep_migrations
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE_S, eventually
from tests.year.broker import Broker, Delivery
from tests.year.gateway import book_of, executions, set_rates

# The log of a table is kept for ten minutes, and maintenance runs each four hours: what is
# older than a second of the machine was written before the maintenance before.
SHORT = "interval 1 seconds"
# A week of the tables that are kept so long lasts about this long here.
SHORT_WEEK = "interval 60 seconds"

ROOT = Path(__file__).parents[2]

# Between two ticks of a sensor.
TICK = timedelta(seconds=5)
# So many ticks are enough for any queue of the year.
MOST_TICKS = 40
# How long values may take, in seconds of the machine, before the next tick.
VALUES_WAIT_S = 1.5

# A run is carried out where it is launched, instead of by the daemon of the queue.
IN_THIS_PROCESS = {
    "run_launcher": {
        "module": "dagster._core.launcher.sync_in_memory_run_launcher",
        "class": "SyncInMemoryRunLauncher",
    },
    "run_coordinator": {
        "module": "dagster.core.run_coordinator",
        "class": "DefaultRunCoordinator",
    },
}


@dataclass(slots=True)
class MovedClock:
    """The clock of the year; it runs from where it was moved to."""

    traveller: Traveller

    def move_to(self, at: datetime) -> None:
        """Set the clock."""
        self.traveller.move_to(at.astimezone(UTC))

    def advance(self, span: timedelta) -> None:
        """Move the clock on."""
        self.move_to(utc_now() + span)


@contextmanager
def short_retentions() -> Iterator[None]:
    """Let Delta Lake, whose clock cannot be moved, keep old files for spans of its own clock."""
    short = {name: SHORT if "Duration" in name else text for name, text in schema.RETENTION.items()}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(schema.RETENTION, short))
        for spec in (*MoneyLake.specs, *MoneyLake.derived_specs):
            if spec.kept is not None:
                before = spec.kept
                object.__setattr__(spec, "kept", SHORT_WEEK)
                stack.callback(object.__setattr__, spec, "kept", before)
        yield


@contextmanager
def kept_engines() -> Iterator[None]:
    """Keep SQLAlchemy's engine of each file of Dagster, which makes a new one for each event.

    An engine that is kept has its statements compiled: a run takes half of the time.
    """
    engines: dict[str, Any] = {}

    def engine_of(address: str, **options: Any) -> Any:
        if address not in engines:
            engines[address] = sqlalchemy.create_engine(address, **options)
        return engines[address]

    with ExitStack() as stack:
        for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            stack.enter_context(mock.patch.object(module, "create_engine", engine_of))
        yield


def _environment(home: Path, port: int, first: date, calendar: str) -> dict[str, str]:
    return {
        "DAGSTER_HOME": str(home / "dagster"),
        "POSITION_SYNC_LAKE": str(home / "lake"),
        "POSITION_SYNC_FLEX_FOLDER": str(home / "flex"),
        "POSITION_SYNC_GATEWAY_PORT": str(port),
        "POSITION_SYNC_DAILY_START": first.isoformat(),
        "POSITION_SYNC_CALENDAR": calendar,
        "POSITION_SYNC_FSYNC": "false",
        # Fewer lines than active legs: the others are in the queue.
        "POSITION_SYNC_MAX_LINES": "50",
        # The clock jumps while the stream runs, by less than this.
        "POSITION_SYNC_SESSION_LEASE_S": "3600",
    }


@contextmanager
def open_program(home: Path, first: date, clock: MovedClock) -> Iterator["Program"]:
    """Create a home with empty tables, and Dagster's instance and code location in this process."""
    for name in ("dagster", "flex"):
        (home / name).mkdir(parents=True)

    config = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    (home / "dagster" / "dagster.yaml").write_text(yaml.safe_dump(config | IN_THIS_PROCESS))
    keep_migrations()

    environment = _environment(home, free_port(), first, "XNYS")
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(short_retentions())
        stack.enter_context(kept_engines())
        forget_definitions()
        stack.callback(forget_definitions)

        instance = stack.enter_context(dg.DagsterInstance.get())
        target = LoadableTargetOrigin(
            executable_path="python",
            module_name="position_sync_dagster.definitions",
            attribute="defs",
        )
        origin = InProcessCodeLocationOrigin(target, location_name="position_sync_dagster")
        workspace = stack.enter_context(
            create_test_daemon_workspace_context(InProcessWorkspaceLoadTarget([origin]), instance)
        )
        settings = load_settings()
        program = Program(
            home=home, settings=settings, lake=MoneyLake.of(settings), instance=instance,
            workspace=workspace, clock=clock,
        )  # fmt: skip
        program.lake.initialize_sync()
        yield program


def forget_definitions() -> None:
    """Let the definitions and the tables of the ticks be read anew, from the environment."""
    defs.load_fn.cache_clear()  # type: ignore[attr-defined]


@dataclass(slots=True, kw_only=True)
class Program:
    """The tables, Dagster and the stream.

    Attributes:
        tick_s: The processor time of each tick of all sensors.
    """

    home: Path
    settings: Settings
    lake: MoneyLake
    instance: dg.DagsterInstance
    workspace: Any
    clock: MovedClock
    tick_s: list[float] = field(default_factory=list)
    _schedule_times: dict[str, Any] = field(default_factory=dict)

    # -- Dagster ------------------------------------------------------------------------------

    def switch_off(self, *, maintenance: bool) -> None:
        """Switch off the sensor that starts the stream as a run: here it runs in this process.

        Args:
            maintenance: Whether the schedule of the maintenance is switched off as well.
        """
        (location,) = self.workspace.create_request_context().code_locations
        (repository,) = location.get_repositories().values()
        for sensor in repository.get_sensors():
            if sensor.name == "supervise_stream":
                origin = sensor.get_remote_origin_id()
                self.instance.stop_sensor(origin, sensor.selector_id, sensor)
        for schedule in repository.get_schedules():
            if maintenance and schedule.name == "maintain_every_four_hours":
                origin = schedule.get_remote_origin_id()
                self.instance.stop_schedule(origin, schedule.selector_id, schedule)

    def run_schedules(self, at: datetime) -> None:
        """Move the clock to a time, and run what the schedules have until then."""
        self.clock.move_to(at)
        for _event in launch_scheduled_runs(
            self.workspace, logging.getLogger("year.schedules"), utc_now(), self._schedule_times
        ):
            pass

    def tick(self) -> None:
        """Evaluate all sensors once, as the daemon does."""
        began = time.process_time()
        for _event in execute_sensor_iteration(
            self.workspace, logging.getLogger("year.sensors"), None, None
        ):
            pass
        self.tick_s.append(time.process_time() - began)

    def fill(self, days: list[date]) -> None:
        """Fill sessions as a person does who launches a backfill of what is missing."""
        tags = {
            "dagster/asset_partition_range_start": days[0].isoformat(),
            "dagster/asset_partition_range_end": days[-1].isoformat(),
        }
        job = defs().resolve_job_def(resources.CLOSE_JOB)
        result = job.execute_in_process(instance=self.instance, tags=tags)
        assert result.success, f"backfill of {days[0]} to {days[-1]}"

    def receive(self, files: list[Delivery]) -> None:
        """Put files into the folder of statements."""
        for file in files:
            Path(self.settings.flex_folder, file.name).write_bytes(file.content)

    # -- the stream ---------------------------------------------------------------------------

    @asynccontextmanager
    async def streaming(self, broker: Broker, at: datetime) -> AsyncIterator["Watched"]:
        """Serve the broker's holdings of a moment on a socket, and stream from it.

        It begins when the stream is live, and has published what the gateway holds.
        """
        self.clock.move_to(at)
        books = [broker.books(account, broker.session) for account in broker.closed]
        simulated = SimulatedGateway(
            book_of(broker, at), port=self.settings.gateway_port, autostep=False,
            time_zone="America/New_York", max_messages_per_s=0,
        )  # fmt: skip
        async with simulated as gateway:
            set_rates(gateway, books)
            for entry in chain.from_iterable(map(executions, books)):
                if entry.at < at:
                    gateway.list_executed(entry)

            stop = asyncio.Event()
            task = asyncio.create_task(
                stream(self.lake, self.settings, stop=stop, complete=with_money)
            )
            worth = {closed.account: float(closed.net_liquidation) for closed in books}
            watched = Watched(
                program=self, gateway=gateway, task=task, net_liquidation=worth, began=utc_now()
            )
            try:
                await watched.becomes_live()
                yield watched
            finally:
                stop.set()
                await asyncio.wait_for(task, DEADLINE_S)


@dataclass(slots=True, kw_only=True)
class Watched:
    """A stream that runs beside a gateway."""

    program: Program
    gateway: SimulatedGateway
    task: "asyncio.Task[Any]"
    net_liquidation: dict[str, float]
    began: datetime
    most_lines: int = 0

    @property
    def session(self) -> GatewaySession | None:
        """The lease of the stream."""
        return self.program.lake.sessions.current(self.program.settings.gateway_id)

    async def becomes_live(self) -> None:
        """Wait until the stream is live, and has published what the gateway holds."""
        await eventually(lambda: self._is_live() or self.task.done())
        if self.task.done():
            self.task.result()
        await eventually(self._is_published, self._told)

    async def becomes_current(self) -> None:
        """Wait until what the gateway holds is published, and let ticks pass until it is valued."""
        await eventually(self._is_published, self._told)
        await eventually(self._accounts_are_told)
        for _tick in range(MOST_TICKS):
            await self.tick()
            if await self._is_valued():
                await self._becomes_derived()
                return
        overview = self.program.lake.queue.sync.overview()
        raise AssertionError(
            f"not valued after {MOST_TICKS} ticks: {overview}, without a row: {self._missing()}"
        )

    async def _becomes_derived(self) -> None:
        """Let a tick pass that reports rows of a stream, if some came after the last."""
        if self.latest() != self.held():
            await self.tick(after=STREAMED_EVERY)

    async def tick(self, *, after: timedelta = TICK) -> None:
        """Let the sensors tick, some time after the last time.

        The gateway sends profits meanwhile, as each second: a worthless option has no other value.
        """
        self.gateway._gateway.profits.send_all()
        self.gateway._gateway.flush()
        self.program.clock.advance(after)
        await asyncio.to_thread(self.program.tick)
        self.most_lines = max(self.most_lines, len(self.gateway._gateway.market_data.lines))

    async def _is_valued(self) -> bool:
        """Return whether no request waits, and each holding has a value, after a short wait."""
        if self._lacks_values():
            await asyncio.sleep(VALUES_WAIT_S)
            if self._lacks_values():
                return False
        return not self.program.lake.queue.sync.overview().claimable

    def _lacks_values(self) -> bool:
        """Return whether a holding has no value that this stream has published, or none in a row.

        A row of before may still be current; the first of a worthless option has no value, and
        the book shows what was published since.
        """
        rows = self.program.lake.broker_positions.read(self.program.settings.gateway_id)
        of_before = (
            row.market_value is None or row.received_at < self.began for row in rows if row.position
        )
        return any(of_before) or self._lacks_rows() or bool(self._missing())

    def _lacks_rows(self) -> bool:
        """Return whether the newest row of a holding in the ledger has no value."""
        newest = self.program.lake.updates.sync.latest().filter(pl.col("position") != 0)
        return newest.get_column("market_value").has_nulls()

    def _is_live(self) -> bool:
        session = self.session
        return session is not None and session.state is SessionState.LIVE

    def held(self) -> dict[tuple[str, int], float]:
        """Return what the gateway holds."""
        return {
            (row.account, row.contract.conid): row.quantity
            for row in self.gateway._gateway.ledger.holdings()
            if row.quantity
        }

    def published(self) -> dict[tuple[str, int], float]:
        """Return what the stream has published of the gateway."""
        rows = self.program.lake.broker_positions.read(self.program.settings.gateway_id)
        return {row.key: row.position for row in rows if row.position}

    def latest(self) -> dict[tuple[str, int], float]:
        """Return what `latest_positions` has."""
        table = self.program.lake.derived_table(schema.LATEST_POSITIONS)
        rows = table.rows(columns=["account", "conid", "position"]).iter_rows()
        return {(account, conid): position for account, conid, position in rows if position}

    def _is_published(self) -> bool:
        return self.published() == self.held()

    def _accounts_are_told(self) -> bool:
        """Return whether the values of each account came since the stream began, or are true."""
        accounts = {
            summary.account
            for summary in records_of(AccountSummary, self.program.lake.account_values.latest())
            if summary.timestamp >= self.began
            or summary.net_liquidation == round(self.net_liquidation[summary.account], 2)
        }
        return accounts >= self.net_liquidation.keys()

    def _told(self) -> object:
        held = self.held()
        published = self.published()
        return {
            key: (held.get(key), published.get(key))
            for key in {*held, *published}
            if held.get(key) != published.get(key)
        }

    def _missing(self) -> dict[tuple[str, int], float]:
        """Return the holdings that have another quantity in the tables, or no current value."""
        book = read_book(self.program.lake, self.program.settings, utc_now())
        rows = open_positions(book).filter(pl.col("current") & pl.col("market_value").is_not_null())
        current = {(r["account"], r["conid"]): r["position"] for r in rows.iter_rows(named=True)}
        return {key: held for key, held in self.held().items() if current.get(key) != held}
