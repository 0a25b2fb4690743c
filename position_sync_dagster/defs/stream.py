"""The stream: a long-running op that owns the login and values legs with market data lines.

Its event loop runs in a thread; Dagster's main thread waits for a termination.

A materialization of the ledger makes the derived tables and its checks out of date. For that reason
the stream reports most spans as observations, which do not. It materializes when its state changes,
every 15 minutes, and after a materialization of the registry; the sensor `refresh_derived` then
updates the derived tables.

Rows need the lake and the gateway, not Dagster. If Dagster's storage cannot be reached, the stream
continues: its events wait in order, and so do its log lines, which would otherwise raise errors in
the thread that values the ticks.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg

from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.defs.assets.table_asset import (
    DATA_VERSION,
    followed_table,
    gateway_seen,
    known,
)
from position_sync_dagster.defs.checks.broker import a_stream_watches
from position_sync_dagster.defs.checks.check_results import (
    UNKNOWN,
    evaluation_of,
    newest_materialization,
)
from position_sync_dagster.defs.checks.evaluation import KEYS, TIME_LIMIT_S, evaluated
from position_sync_dagster.defs.checks.ledger import UNCONFIRMED, agrees_with_the_broker
from position_sync_dagster.defs.libraries import sql, stream_service, tables
from position_sync_dagster.defs.resources import POSITION_SYNC, PositionSyncResource
from position_sync_dagster.defs.runs import LOGINS, STREAM_JOB, dagster_failures
from position_sync_dagster.domain.clock import elapsed
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import GatewaysFileError, LakeError, PositionSyncError
from position_sync_dagster.lake.schema import tables as specs
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.owner.memory_and_threads import one_native_thread_each
from position_sync_dagster.sync.run_recorder import StreamReport

log = logging.getLogger(__name__)

PACKAGE = "position_sync_dagster"

RETRY_S = 5.0
"""Seconds between two attempts to reach Dagster's storage. Each takes up to 7 s, since Dagster
itself tries six times to connect."""

MOST_LINES = 1000
"""Maximum number of log lines kept while the storage cannot be reached; then the oldest are
dropped. All events are kept."""

Event = dg.AssetMaterialization | dg.AssetObservation
Checks = tuple[dg.AssetCheckKey, ...]


def is_storage_error(error: BaseException) -> bool:
    """Return whether Dagster's storage failed, also as the cause of an error of Dagster.

    >>> is_storage_error(ValueError("something else"))
    False
    """
    return isinstance(error, sql.exc.SQLAlchemyError) or isinstance(
        error.__cause__, sql.exc.SQLAlchemyError
    )


class PatientLog:
    """Logs the events of a stream and evaluates its checks; waits while the storage is unreachable.

    Args:
        events: Creates the events of a report.
        log_event: Stores one event; raises if the storage cannot be reached.
    """

    def __init__(self, events: "StreamEvents", log_event: Callable[[Event], None]) -> None:
        self._events = events
        self._log_event = log_event
        self._reports: deque[StreamReport] = deque()
        self._unlogged: deque[Event] = deque()
        self._evaluation_due = self._evaluation_failed = False
        self._unreadable = OutageLog(log)
        self._lines: deque[logging.LogRecord] = deque(maxlen=MOST_LINES)
        self._handlers: list[logging.Handler] = []
        self._away_until = 0.0

    @contextmanager
    def keeping_lines(self) -> Iterator[None]:
        """Keep the package's log lines of all threads for `deliver`."""
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
        """Log the events of a report after those that still wait."""
        self._reports.append(report)
        self.deliver()

    def deliver(self, *, now: bool = False) -> None:
        """Log waiting lines and events; after an error, retry after RETRY_S or with `now`."""
        if time.monotonic() < self._away_until and not now:
            return
        try:
            while self._lines:
                for handler in self._handlers:
                    handler.handle(self._lines[0])
                self._lines.popleft()
            while self._unlogged or self._reports:
                while self._unlogged:
                    self._log_event(self._unlogged[0])
                    event = self._unlogged.popleft()
                    self._evaluation_due |= isinstance(event, dg.AssetMaterialization)
                if self._reports:  # all of its events or none: an error may come at any of them
                    self._unlogged.extend(list(self._events.of(self._reports[0])))
                    self._reports.popleft()
                    self._unreadable.fault = None
            self._evaluate(at_end=now)
        except Exception as error:
            if isinstance(error, LakeError):
                text = f"The stream goes on, but its events wait for a table: {error}"
                self._unreadable.report(error.what.partition(": ")[0], text=text)
            elif not is_storage_error(error):
                raise
            self._away_until = time.monotonic() + RETRY_S

    def _evaluate(self, *, at_end: bool) -> None:
        """Evaluate the checks that are due; log an error of a check once, and go on."""
        try:
            if self._evaluation_due and (at_end or self._events.may_evaluate()):
                self._events.evaluate(at_end=at_end)
                self._evaluation_due = False
            self._events.evaluate_again()
            self._evaluation_failed = False
        except Exception as error:
            if is_storage_error(error):
                raise
            if not self._evaluation_failed:
                log.exception("The stream goes on, but its checks could not be evaluated.")
            self._evaluation_due, self._evaluation_failed = False, True


class _Keeper(logging.Handler):
    """Keeps log records with their messages already formatted."""

    def __init__(self, kept: "deque[logging.LogRecord]") -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(TypeError, ValueError):  # as in any handler, a bad format must not raise
            record.msg, record.args = record.getMessage(), None
        self._kept.append(record)


MATERIALIZE_EVERY = timedelta(minutes=15)
"""Interval of the stream's materializations while its state does not change."""

AGAIN_FOR = timedelta(minutes=1)
"""How long failed checks are evaluated again after an outage: until the account is downloaded, they
may fail."""

AGAIN_EVERY = timedelta(seconds=2)
"""Minimum time between two such evaluations."""

AGAIN_REST = 9
"""Pause after an evaluation, as a multiple of its duration, for each login: the streams of all
logins evaluate the same checks of the lake, together for a tenth of the time."""

LEDGER = dg.AssetKey(specs.POSITION_UPDATES.name)
AGREES = agrees_with_the_broker.check_key

AGREE_EVERY = timedelta(seconds=5)
"""Minimum time between two looks at an open difference between the ledger and the broker, over all
streams together: the more logins there are, the less often each stream looks."""

AGREE_SELDOM = timedelta(minutes=1)
"""Maximum time between two such looks of a stream: with one login, it is reached when a difference
has lasted ten minutes."""

OTHERS_FOLLOW = timedelta(seconds=0.5)
"""Pause between a materialization and the evaluation of the checks, for each other login: where
many streams start at once, or the registry changes, only the last one to materialize evaluates."""

LONGEST_PAUSE = timedelta(seconds=15)

FOLLOWED_TABLES = (
    specs.BROKER_POSITIONS,
    specs.CONTRACTS,
    specs.GATEWAY_SESSIONS,
    specs.ACCOUNT_VALUES,
    specs.POSITION_CHANGES,
)
"""The tables that the stream writes beside the queue and the ledger."""

SETTLED = (SessionState.LIVE, SessionState.BLIND)
"""The states that lead to a materialization. A stream that ended is followed by another, which
materializes; one that a user stopped does not change the tables."""


@dataclass(eq=False, repr=False)
class StreamEvents:
    """Converts reports of a stream run to events; each row is counted in exactly one event.

    Args:
        run_id: The run of the stream.
        logins: The number of logins: each has a stream that evaluates the same checks.
    """

    lake: "tables.Lake"
    settings: Settings
    instance: dg.DagsterInstance
    _: KW_ONLY
    run_id: str
    logins: int = 1

    def __post_init__(self) -> None:
        self._state: str = SessionState.STARTING
        self._materialized_at: datetime | None = None
        self._registry_seen = self._registry_told = 0.0
        self._failed: Checks = ()
        self._again_at = self._again_until = timedelta()
        self._evaluate_at = self._agree_at = timedelta()

    def of(self, report: StreamReport) -> "Iterator[dg.AssetMaterialization | dg.AssetObservation]":
        """Return the events of a report, those of the sources first.

        If a table cannot be read, nothing has changed: the report can be converted again.
        """
        changed = report.state != self._state and report.state in SETTLED
        if changed or self._is_due(report.until):
            yield self._gateway(report)
            for spec in FOLLOWED_TABLES:
                yield followed_table(self.lake, spec)
            yield self._materialization(specs.POSITION_QUEUE.name, queue_numbers(report), report)
            yield self._materialization(specs.POSITION_UPDATES.name, ledger_numbers(report), report)
            if changed and report.state == SessionState.LIVE:
                now = _monotonic()
                self._again_at, self._again_until = now + AGAIN_EVERY, now + AGAIN_FOR
            self._state, self._materialized_at = report.state, report.until
            self._registry_told = self._registry_seen
            pause = min((self.logins - 1) * OTHERS_FOLLOW, LONGEST_PAUSE)
            self._evaluate_at = _monotonic() + pause
            return
        self._state = report.state
        if report.enqueued:
            yield dg.AssetObservation(
                specs.POSITION_QUEUE.name,
                description="Enqueued by the stream",
                metadata=queue_numbers(report),
            )
        if report.rows or report.reconnects:
            yield dg.AssetObservation(
                specs.POSITION_UPDATES.name,
                description=f"Streamed: {report.state.lower()}",
                metadata=ledger_numbers(report),
            )

    def may_evaluate(self) -> bool:
        """Return whether the streams of other logins had time to materialize after this one."""
        return _monotonic() >= self._evaluate_at

    def evaluate(self, *, at_end: bool = False) -> None:
        """Evaluate the checks now, after a materialization or at the end.

        If another run has materialized the ledger since, that run evaluates them instead: they are
        checks of the whole lake. At the end this stream evaluates them in any case, since the other
        run did not see it end.

        These events belong to no run: Dagster stores one evaluation of a check per run, at the
        position of the first, so that a later one would seem older than those of other runs.
        """
        checks = KEYS if self._state in SETTLED else (a_stream_watches.check_key,)
        if not at_end and checks is KEYS and self.logins > 1:
            newest = newest_materialization(self.instance, LEDGER)
            if newest is not None and newest.run_id != self.run_id:
                self._failed = ()
                return
        self._failed = self._logged(checks)

    def evaluate_again(self) -> None:
        """Evaluate failed checks again after the stream became LIVE; log those that now pass."""
        now = _monotonic()
        if self._failed and self._again_at <= now < self._again_until:
            self._failed = self._logged(self._failed, only_passed=True)
            ended = _monotonic()
            self._again_at = ended + self.logins * max(AGAIN_EVERY, AGAIN_REST * (ended - now))

        if now >= self._agree_at:
            self._agree_again(now)

    def _agree_again(self, now: timedelta) -> None:
        """Evaluate `agrees_with_the_broker` again while a difference is open; log a new outcome.

        The newest result may be that of a drain in the middle of a fill, which no other event
        would correct for minutes.
        """
        self._agree_at = now + min(self.logins * AGREE_EVERY, AGREE_SELDOM)
        storage = self.instance.event_log_storage
        record = storage.get_latest_asset_check_execution_by_key([AGREES]).get(AGREES)
        before = evaluation_of(record)
        if record is None or before is None or UNKNOWN in before.metadata:
            return
        if before.passed and UNCONFIRMED not in before.metadata:
            return
        for event in self._evaluated((AGREES,)):
            if (event.passed, event.description) != (before.passed, before.description):
                self.instance.report_runless_asset_event(event)
        ended = _monotonic()
        lasts = datetime.now(UTC) - datetime.fromtimestamp(record.create_timestamp, UTC)
        rest = max(self.logins * max(AGREE_EVERY, AGAIN_REST * (ended - now)), lasts / 10)
        self._agree_at = ended + min(rest, AGREE_SELDOM)

    def _evaluated(self, checks: Checks) -> Iterator[dg.AssetCheckEvaluation]:
        return evaluated(
            self.lake,
            self.settings,
            self.instance,
            run_id=self.run_id,
            checks=checks,
            time_limit_s=TIME_LIMIT_S,
        )

    def _logged(self, checks: Checks, *, only_passed: bool = False) -> Checks:
        """Evaluate checks, log their results, and return those that do not pass."""
        failed = []
        for event in self._evaluated(checks):
            if event.passed or not only_passed:
                self.instance.report_runless_asset_event(event)
            if not event.passed:
                failed.append(event.asset_check_key)
        return tuple(failed)

    def _is_due(self, now: datetime) -> bool:
        if self._materialized_at is None or self._state not in SETTLED:
            return False
        if elapsed(self._materialized_at, now) >= MATERIALIZE_EVERY:
            return True
        registry = self.instance.get_latest_materialization_event(dg.AssetKey("active_strategies"))
        self._registry_seen = 0.0 if registry is None else registry.timestamp
        return self._materialized_at.timestamp() < self._registry_seen != self._registry_told

    def _materialization(
        self, name: str, numbers: "dict[str, float | str]", report: StreamReport
    ) -> dg.AssetMaterialization:
        """Return a materialization with the table's Delta version.

        Without the version, Dagster would show downstream assets as stale at random.
        """
        version = numbers.setdefault("delta_version", self._version(name))
        return dg.AssetMaterialization(
            name,
            description=f"Streamed: {report.state.lower()}",
            metadata=numbers,
            tags={DATA_VERSION: str(version)},
        )

    def _version(self, name: str) -> int:
        return next(table for table in self.lake.tables if table.spec.name == name).version()

    def _gateway(self, report: StreamReport) -> dg.AssetMaterialization:
        return gateway_seen(
            f"The stream is {report.state.lower()}",
            known(
                state=str(report.state),
                gateway=self.settings.gateway_id,
                lines_in_use=report.lines_in_use,
                line_limit=report.line_limit,
                reconnects=report.reconnects,
                note=report.detail,
            ),
        )


def _monotonic() -> timedelta:
    """Return the present moment by a clock that is never set back."""
    return timedelta(seconds=time.monotonic())


def ledger_numbers(report: StreamReport) -> "dict[str, float | str]":
    """Return the numbers of a report about `position_updates`; drains use other names.

    Counts of rare events are left out if they are zero, so that no plot is always zero.
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
    """Return the numbers of a report about `position_queue`."""
    return known(enqueued=report.enqueued, delta_version=report.queue_version)


POLL_S = 0.5
"""Seconds of each wait of the main thread: an interrupt is raised between two waits."""


class StreamThread:
    """Runs the stream in a thread with its own event loop.

    Dagster ends a run by an exception in the main thread. If the event loop ran there, the
    exception would be lost in the current task. For that reason the loop has its own thread, and
    the main thread only waits.

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
        self._request_stop: Callable[[], object] = lambda: None
        self._ready = threading.Event()
        self._ended: Future[StreamReport] = Future()
        self._thread = threading.Thread(target=self._work, name="stream", daemon=True)

    @contextmanager
    def running(self, *, grace_s: float) -> Iterator[None]:
        """Start the thread; at any end of the block, stop the stream and wait.

        Args:
            grace_s: Maximum wait for the thread to end, in seconds.
        """
        self._thread.start()
        self._ready.wait()
        try:
            yield
        finally:
            self._stop()
            self._thread.join(grace_s)

    def reports(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        between: Callable[[], None] = lambda: None,
        grace_s: float = 10.0,
    ) -> Iterator[StreamReport]:
        """Yield each report when it arrives, until the stream has ended.

        Args:
            stop: Called between two waits. When it returns True, the stream is requested to end;
                its last reports still arrive.
            between: Called between two waits, until the stream is requested to end.
            grace_s: Maximum wait for that end, in seconds.
        """
        deadline: float | None = None
        while True:
            if deadline is None and stop():
                deadline = time.monotonic() + grace_s
                self._stop()
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
        if not self._ended.done():
            raise TimeoutError("The stream did not end in time.")
        return self._ended.result()

    def _work(self) -> None:
        try:
            self._ended.set_result(asyncio.run(self._stream()))
        except BaseException as error:  # noqa: BLE001 - carried to the main thread by result()
            self._ended.set_exception(error)
        finally:
            self._ready.set()

    async def _stream(self) -> StreamReport:
        stop = asyncio.Event()
        self._request_stop = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        self._ready.set()
        return await stream_service.stream(
            self._lake,
            self._settings,
            run_id=self._run_id,
            stop=stop,
            report=self._reports.put,
        )

    def _stop(self) -> None:
        with suppress(RuntimeError):  # its event loop has closed: the stream has ended
            self._request_stop()


CLEAN_END_S = 10.0
"""Seconds that a stream has to release its lines and its lease after a request to stop."""

LOOK_S = 2.0
"""Seconds between two checks that the gateways file has the login."""


@dg.op(tags={"domain": "positions"}, config_schema={})
@dagster_failures
@one_native_thread_each()
def stream_legs(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Own a login: stream active legs, write `broker_positions`, enqueue everything else.

    The op runs until it is interrupted, its rotation is due, its login was changed or removed in
    the gateways file, or its run was deleted from Dagster or has ended there. The supervisor then
    starts another one. `StreamEvents` makes its events, and evaluates the ledger's checks after
    each materialization.

    An interrupt ends it cleanly: the last rows are logged and the run succeeds. A termination in
    the UI ends it in the same way, but as a canceled run, which pauses the stream.
    """
    lake, instance = position_sync.lake, context.instance
    name = context.partition_key if context.has_partition_key else None
    settings = position_sync.settings.for_login(name)
    is_login_gone = at_intervals(partial(login_is_gone, settings), LOOK_S)
    is_run_gone = at_intervals(partial(run_is_gone, instance, context.run_id), RUN_LOOK_S)
    logins = len(settings.logins)
    events = StreamEvents(lake, settings, instance, run_id=context.run_id, logins=logins)
    log = PatientLog(events, context.log_event)
    thread = StreamThread(lake, settings, run_id=context.run_id)
    watched = False
    try:
        with (
            log.keeping_lines(),
            dagster_internals.captured_interrupts() as is_interrupted,
            thread.running(grace_s=CLEAN_END_S),
        ):
            for report in thread.reports(
                stop=lambda: is_interrupted() or is_login_gone() or is_run_gone(),
                between=log.deliver,
                grace_s=CLEAN_END_S,
            ):
                log.add(report)
            if is_login_gone():
                context.log.info(f"{settings.gateways_file} no longer has {name} as it was.")
            run = instance.get_run_by_id(context.run_id)
            if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
                raise dg.DagsterExecutionInterruptedError
            total = thread.result()
            watched = True
    finally:
        if not watched:
            with suppress(PositionSyncError):
                events.evaluate(at_end=True)
    context.log.info(
        f"The stream ended: {total.rows} rows in {total.commits} commits, "
        f"{total.enqueued} requests enqueued, {total.reconnects} reconnects."
    )


RUN_LOOK_S = 5.0
"""Seconds between two checks that Dagster's storage has the run of a stream. In Postgres each opens
a connection, and takes 17 ms of processors: every 2 s, forty streams would take a third of one."""


def at_intervals(look: Callable[[], bool], every_s: float) -> Callable[[], bool]:
    """Return a function that looks at most once per `every_s`, and else repeats its last answer."""
    due, answer = 0.0, False

    def ask() -> bool:
        nonlocal due, answer
        if time.monotonic() >= due:
            due, answer = time.monotonic() + every_s, look()
        return answer

    return ask


def login_is_gone(login: Settings) -> bool:
    """Return whether a login was removed or changed; False if its file cannot be read."""
    with suppress(GatewaysFileError):
        return login.gateways_file is not None and login not in login.logins
    return False


def run_is_gone(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether a run was deleted from Dagster, or has ended there: nobody can terminate it.

    The supervisor gives up a run that has no lease in time, also if a clock was set meanwhile. If
    the storage cannot be read, the answer is no.
    """
    try:
        run = instance.get_run_by_id(run_id)
        return run is None or run.is_finished
    except Exception as error:
        if is_storage_error(error):
            return False
        raise


def stream_job(partitions: dg.PartitionsDefinition | None = None) -> dg.JobDefinition:
    """Return the stream's job, with a partition per login if there are several."""

    @dg.job(
        name=STREAM_JOB,
        executor_def=dg.in_process_executor,
        # Of several queued runs, the stream's is launched first.
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
