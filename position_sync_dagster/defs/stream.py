"""The stream: one long-running op that owns the login and values legs with market data lines.

Its event loop runs in a thread, outside Dagster's main thread, which waits for a termination.

A materialization of the ledger makes everything derived from it old, and its checks as well. For
that reason a span of the stream is an observation, which leaves both as they are. The stream
materializes when its state changes, each quarter of an hour, and when the registry was materialized
after it; the sensor `refresh_derived` then brings up to date what derives from it.

The rows need the lake and the gateway, not Dagster. A stream goes on when Dagster's storage cannot
be reached: its events wait in order, and so do the lines of its log, which would otherwise be
written by the thread that values the ticks, and raise there.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta

import dagster as dg

from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.defs.assets.table_asset import DATA_VERSION, GATEWAY, observe_table
from position_sync_dagster.defs.checks.evaluation import CHECKS, TIME_LIMIT_S, evaluated
from position_sync_dagster.defs.libraries import sql, stream_service, tables
from position_sync_dagster.defs.resources import POSITION_SYNC, PositionSyncResource
from position_sync_dagster.defs.runs import LOGINS, STREAM_JOB, dagster_failures
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import GatewaysFileError, PositionSyncError
from position_sync_dagster.lake.schema.tables import (
    ACCOUNT_VALUES,
    BROKER_POSITIONS,
    CONTRACTS,
    GATEWAY_SESSIONS,
    POSITION_QUEUE,
    POSITION_UPDATES,
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.process import one_native_thread_each
from position_sync_dagster.sync.run_recorder import StreamReport

PACKAGE = "position_sync_dagster"

RETRY_S = 5.0
"""Seconds between two tries to reach Dagster's storage. Each takes up to 7 s, since Dagster itself
tries six times to connect."""

MOST_LINES = 1000
"""Lines of the log that are kept while the storage is away; then the oldest are lost. Events are
all kept."""

Event = dg.AssetMaterialization | dg.AssetObservation


def is_storage_error(error: BaseException) -> bool:
    """Return whether Dagster's storage failed; its Postgres names the cause behind its own error.

    >>> is_storage_error(ValueError("something else"))
    False
    """
    return isinstance(error, sql.exc.SQLAlchemyError) or isinstance(
        error.__cause__, sql.exc.SQLAlchemyError
    )


class PatientLog:
    """Logs the events of a stream and evaluates its checks, later where that is not possible now.

    Args:
        events: Makes the events of a report.
        log_event: Stores one event, and raises when the storage is away.
        run_id: The run of the stream.
    """

    def __init__(
        self, events: "StreamEvents", log_event: Callable[[Event], None], run_id: str
    ) -> None:
        self._events = events
        self._log_event = log_event
        self._run_id = run_id
        self._reports: deque[StreamReport] = deque()
        self._unlogged: deque[Event] = deque()
        self._evaluation_due = False
        self._lines: deque[logging.LogRecord] = deque(maxlen=MOST_LINES)
        self._handlers: list[logging.Handler] = []
        self._away_until = 0.0

    @contextmanager
    def keeping_lines(self) -> Iterator[None]:
        """Keep the package's log lines for `deliver`, whatever thread they come from."""
        package = logging.getLogger(PACKAGE)
        self._handlers = package.handlers
        package.handlers = [_Keeper(self._lines)]
        try:
            yield
        finally:
            package.handlers = self._handlers
            with suppress(PositionSyncError):
                self.deliver(now=True)

    def add(self, report: "StreamReport") -> None:
        """Log the events of a report after all that still wait."""
        self._reports.append(report)
        self.deliver()

    def deliver(self, *, now: bool = False) -> None:
        """Log what waits; return at once while the storage is away, unless it is `now` or never."""
        if time.monotonic() < self._away_until and not now:
            return
        with self._until_it_is_back():
            while self._lines:
                for handler in self._handlers:
                    handler.handle(self._lines[0])
                self._lines.popleft()
            while self._unlogged or self._reports:
                while self._unlogged:
                    self._log_event(self._unlogged[0])
                    event = self._unlogged.popleft()
                    self._evaluation_due |= isinstance(event, dg.AssetMaterialization)
                if self._reports:
                    self._unlogged.extend(self._events.of(self._reports[0]))
                    self._reports.popleft()
            if self._evaluation_due:
                self._events.evaluate(self._run_id)
                self._evaluation_due = False
            self._events.evaluate_again(self._run_id)

    @contextmanager
    def _until_it_is_back(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_storage_error(error):
                raise
            self._away_until = time.monotonic() + RETRY_S


class _Keeper(logging.Handler):
    """Keeps the records of a log, as they read now."""

    def __init__(self, kept: "deque[logging.LogRecord]") -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(
            TypeError, ValueError
        ):  # as for any handler, a bad format is no reason to end
            record.msg, record.args = record.getMessage(), None
        self._kept.append(record)


MATERIALIZE_EVERY = timedelta(minutes=15)
"""How often the stream materializes what it writes while its state stays the same."""

AGAIN_FOR = timedelta(minutes=1)
"""After an outage the account is downloaded anew: until then checks may fail."""

AGAIN_EVERY = timedelta(seconds=2)
"""The shortest time between two such evaluations."""

AGAIN_REST = 9
"""After an evaluation the stream waits for this many times its duration. Where tables are slow, the
streams of several logins would otherwise keep each other and the drain waiting."""

SETTLED = (SessionState.LIVE, SessionState.BLIND)
"""The states that are worth a materialization. A stream that ended is followed by another, which
materializes; one that a person stopped leaves the tables as they are."""


class StreamEvents:
    """Turns the reports of a stream run into events; each row is counted in exactly one of them."""

    def __init__(
        self, lake: "tables.Lake", settings: Settings, instance: dg.DagsterInstance
    ) -> None:
        self._lake = lake
        self._settings = settings
        self._instance = instance
        self._state: str = SessionState.STARTING
        self._materialized_at: datetime | None = None
        self._failed: tuple[tuple[str, str], ...] = ()
        self._again_at = self._again_until = datetime.min.replace(tzinfo=UTC)

    def of(self, report: StreamReport) -> "Iterator[dg.AssetMaterialization | dg.AssetObservation]":
        """Return the events of a report, those of the sources first."""
        changed = report.state != self._state and report.state in SETTLED
        due = changed or self._is_due(report.until)
        if changed and report.state == SessionState.LIVE:
            now = datetime.now(UTC)
            self._again_at, self._again_until = now + AGAIN_EVERY, now + AGAIN_FOR
        self._state = report.state
        if due:
            yield self._gateway(report)
            for spec in (BROKER_POSITIONS, CONTRACTS, GATEWAY_SESSIONS, ACCOUNT_VALUES):
                yield observe_table(self._lake, spec)
            yield self._materialization(POSITION_QUEUE.name, queue_numbers(report), report)
            yield self._materialization(POSITION_UPDATES.name, ledger_numbers(report), report)
            self._materialized_at = report.until
            return
        if report.enqueued:
            yield dg.AssetObservation(
                POSITION_QUEUE.name,
                description="Enqueued by the stream",
                metadata=queue_numbers(report),
            )
        if report.rows or report.reconnects:
            yield dg.AssetObservation(
                POSITION_UPDATES.name,
                description=f"Streamed: {report.state.lower()}",
                metadata=ledger_numbers(report),
            )

    def evaluate(self, run_id: str) -> None:
        """Evaluate the checks now, right after a materialization or at the end.

        These events belong to no run: Dagster stores one evaluation of a check for each run, at the
        place of the first, so that a later one would be taken for older than those of other runs.
        """
        watches = ((POSITION_UPDATES.name, "a_stream_watches"),)
        checks = CHECKS if self._state in SETTLED else watches
        self._failed = self._logged(run_id, checks)

    def evaluate_again(self, run_id: str) -> None:
        """After the stream became LIVE, evaluate what failed, and log what passes by now."""
        now = datetime.now(UTC)
        if self._failed and self._again_at <= now < self._again_until:
            self._failed = self._logged(run_id, self._failed, only_passed=True)
            ended = datetime.now(UTC)
            self._again_at = ended + max(AGAIN_EVERY, AGAIN_REST * (ended - now))

    def _logged(
        self, run_id: str, checks: tuple[tuple[str, str], ...], *, only_passed: bool = False
    ) -> tuple[tuple[str, str], ...]:
        """Evaluate checks, log their results, and return those that do not pass."""
        failed = []
        for event in evaluated(
            self._lake,
            self._settings,
            self._instance,
            run_id=run_id,
            checks=checks,
            time_limit_s=TIME_LIMIT_S,
        ):
            if event.passed or not only_passed:
                self._instance.report_runless_asset_event(event)
            if not event.passed:
                failed.append((event.asset_key.to_user_string(), event.check_name))
        return tuple(failed)

    def _is_due(self, now: datetime) -> bool:
        if self._materialized_at is None or self._state not in SETTLED:
            return False
        if now - self._materialized_at >= MATERIALIZE_EVERY:
            return True
        registry = self._instance.get_latest_materialization_event(dg.AssetKey("active_strategies"))
        return registry is not None and registry.timestamp > self._materialized_at.timestamp()

    def _materialization(
        self, name: str, numbers: "dict[str, float | str]", report: StreamReport
    ) -> dg.AssetMaterialization:
        """Return a materialization with the table's Delta version.

        Without it, Dagster would show downstream assets as stale, or not, by chance.
        """
        version = numbers.setdefault("delta_version", self._version(name))
        return dg.AssetMaterialization(
            name,
            description=f"Streamed: {report.state.lower()}",
            metadata=numbers,
            tags={DATA_VERSION: str(version)},
        )

    def _version(self, name: str) -> int:
        return next(table for table in self._lake.tables if table.spec.name == name).version()

    def _gateway(self, report: StreamReport) -> dg.AssetObservation:
        return dg.AssetObservation(
            GATEWAY,
            description=f"The stream is {report.state.lower()}",
            metadata=known(
                state=str(report.state),
                gateway=self._settings.gateway_id,
                lines_in_use=report.lines_in_use,
                line_limit=report.line_limit,
                reconnects=report.reconnects,
                note=report.detail,
            ),
        )


def ledger_numbers(report: StreamReport) -> "dict[str, float | str]":
    """Return what a report says of `position_updates`; drains have other names.

    What seldom happens is left out when it did not, so that no plot is always zero.
    """
    numbers = known(
        rows=report.rows,
        commits=report.commits,
        lines_in_use=report.lines_in_use,
        legs_streamed=report.legs_streamed,
        tick_to_table_p50_s=report.tick_to_table_p50_s,
        tick_to_table_p95_s=report.tick_to_table_p95_s,
        reconnects=report.reconnects or None,
        promotions=report.promotions or None,
        demotions=report.demotions or None,
    )
    return {f"stream/{name}": value for name, value in numbers.items()} | known(
        event=f"Streamed: {report.rows} rows in {report.commits} commits",
        delta_version=report.version_to,
        delta_version_from=report.version_from,
        first_batch_id=report.first_batch_id,
        last_batch_id=report.last_batch_id,
        line_limit=str(report.line_limit),
        state=str(report.state),
        note=report.detail,
    )


def queue_numbers(report: StreamReport) -> "dict[str, float | str]":
    """Return what a report says of `position_queue`."""
    return known(enqueued=report.enqueued, delta_version=report.queue_version)


def known(**values: float | str | None) -> "dict[str, float | str]":
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


POLL_S = 0.5
"""How often the main thread wakes: an interrupt is raised between two waits."""


class StreamThread:
    """Runs the stream in a thread with its own event loop.

    Dagster ends a run by raising in its main thread. Inside an event loop that exception would be
    lost in whichever task happens to run. So the loop runs here, and the main thread only waits.

    Example:
        thread = StreamThread(lake, settings, run_id=None)
        with thread.running(grace_s=15):
            for report in thread.reports():
                print(report.rows)
    """

    def __init__(self, lake: "tables.Lake", settings: Settings, *, run_id: str | None) -> None:
        self._lake = lake
        self._settings = settings
        self._run_id = run_id
        self._reports: queue.SimpleQueue[StreamReport] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._total: StreamReport | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="stream", daemon=True)

    @contextmanager
    def running(self, *, grace_s: float) -> Iterator[None]:
        """Start the thread; at the end of the block, however it ends, stop the stream and wait.

        Args:
            grace_s: How long to wait for the thread to end, in seconds.
        """
        self._thread.start()
        self._ready.wait()
        try:
            yield
        finally:
            self._request_stop()
            self._thread.join(grace_s)

    def reports(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        between: Callable[[], None] = lambda: None,
        grace_s: float = 10.0,
    ) -> Iterator[StreamReport]:
        """Return each report when it arrives, until the stream has ended.

        Args:
            stop: Asked between two waits; once it is True, the stream is requested to end, and
                its last reports still arrive.
            between: Called between two waits, until the stream is requested to end.
            grace_s: How long to wait for that end, in seconds.
        """
        deadline: float | None = None
        while True:
            if deadline is None and stop():
                deadline = time.monotonic() + grace_s
                self._request_stop()
            if deadline is None:
                between()
            ended = not self._thread.is_alive()
            try:
                yield self._reports.get(timeout=0 if ended else POLL_S)
            except queue.Empty:
                if ended or (deadline is not None and time.monotonic() > deadline):
                    return

    def result(self) -> StreamReport:
        """Return the totals of the ended stream, or raise the error that ended it.

        Raises:
            TimeoutError: The stream did not end within its grace.
        """
        if self._error is not None:
            raise self._error
        if self._total is None:
            raise TimeoutError("The stream did not end in time.")
        return self._total

    def _work(self) -> None:
        try:
            self._total = asyncio.run(self._stream())
        except BaseException as error:  # noqa: BLE001 - carried to the main thread by result()
            self._error = error
        finally:
            self._ready.set()

    async def _stream(self) -> StreamReport:

        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        return await stream_service.stream(
            self._lake,
            self._settings,
            run_id=self._run_id,
            stop=self._stop,
            report=self._reports.put,
        )

    def _request_stop(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:
                return  # the loop closed between the check and the call: the stream has ended


CLEAN_END_S = 10.0
"""A stream that was asked to stop has this long to free its lines and its lease."""

LOOK_S = 2.0
"""How often a stream looks whether the gateways file still has its login, and Dagster its run."""


@dg.op(tags={"domain": "positions"})
@dagster_failures
@one_native_thread_each()
def stream_legs(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Own a login: stream active legs, write `broker_positions`, enqueue everything else.

    The op runs until it is interrupted, its rotation is due, the gateways file no longer has its
    login as it was, or Dagster no longer has its run; the supervisor starts another one. Its events
    are those of `StreamEvents`, which evaluates the ledger's checks after each materialization.

    An interrupt ends it cleanly: the last rows are logged and the run succeeds. A person's
    termination in the UI ends it in the same way, as a canceled run: that pauses the stream.
    """
    lake, instance = position_sync.lake, context.instance
    name = context.partition_key if context.has_partition_key else None
    settings = position_sync.settings.for_login(name)
    login = LoginWatch(settings)
    own_run = RunWatch(instance, context.run_id)
    events = StreamEvents(lake, settings, instance)
    log = PatientLog(events, context.log_event, context.run_id)
    thread = StreamThread(lake, settings, run_id=context.run_id)
    interrupts = dagster_internals.INTERRUPTS.load()
    capture = interrupts.capture_interrupts if interrupts else nullcontext
    is_interrupted = interrupts.check_captured_interrupt if interrupts else bool
    watched = False
    try:
        with log.keeping_lines(), capture(), thread.running(grace_s=CLEAN_END_S):
            for report in thread.reports(
                stop=lambda: is_interrupted() or login.is_gone() or own_run.is_gone(),
                between=log.deliver,
                grace_s=CLEAN_END_S,
            ):
                log.add(report)
            if login.gone:
                context.log.info(f"{settings.gateways_file} no longer has {name} as it was.")
            run = instance.get_run_by_id(context.run_id)
            if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
                raise dg.DagsterExecutionInterruptedError
            total = thread.result()
            watched = True
    finally:
        if not watched:
            with suppress(PositionSyncError):
                events.evaluate(context.run_id)
    context.log.info(
        f"The stream ended: {total.rows} rows in {total.commits} commits, "
        f"{total.enqueued} requests enqueued, {total.reconnects} reconnects."
    )


class LoginWatch:
    """Looks now and then whether the gateways file still has a login as it was."""

    def __init__(self, login: Settings) -> None:
        self._login = login
        self._next_look = 0.0
        self.gone = False

    def is_gone(self) -> bool:
        """Return whether the login was removed or changed; a file that cannot be read says no."""
        if self._login.gateways_file is None or time.monotonic() < self._next_look:
            return self.gone
        self._next_look = time.monotonic() + LOOK_S
        with suppress(GatewaysFileError):
            self.gone = self._login not in self._login.logins
        return self.gone


class RunWatch:
    """Looks now and then whether Dagster still has a run: one that it has not cannot be ended."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance = instance
        self._run_id = run_id
        self._next_look = time.monotonic() + LOOK_S

    def is_gone(self) -> bool:
        """Return whether the run was deleted; a storage that cannot be read says no."""
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK_S
        try:
            return not self._instance.has_run(self._run_id)
        except Exception as error:
            if is_storage_error(error):
                return False
            raise


def stream_job(partitions: dg.PartitionsDefinition | None = None) -> dg.JobDefinition:
    """Return the job that streams: of the one login, or with a partition for each of several."""

    @dg.job(
        name=STREAM_JOB,
        executor_def=dg.in_process_executor,
        # Of runs that wait together the stream's is launched first.
        tags={"dagster/max_retries": "0", "dagster/priority": "1", "domain": "positions"},
        partitions_def=partitions,
    )
    def stream() -> None:
        """Stream the legs of active strategies; a login's lease allows one stream at a time."""
        stream_legs()

    return stream


stream_positions = stream_job()


@dg.definitions
def stream_definitions() -> dg.Definitions:
    """Define the job, with partitions if a gateways file is configured."""
    several = POSITION_SYNC.read_settings().gateways_file is not None
    return dg.Definitions(jobs=[stream_job(LOGINS) if several else stream_positions])
