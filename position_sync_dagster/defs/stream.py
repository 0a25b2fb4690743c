"""The stream: a long-running op that owns the login and values legs with market data lines.

Its event loop runs in a thread; Dagster's main thread waits for a termination. The op tells Dagster
nothing but its log: its rows need the lake and the gateway, and the ticks of `drain_queue` report
them. It goes on while Dagster's storage is away.

The supervisor is a sensor that keeps exactly one stream of each login running.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import Any, NamedTuple

import dagster as dg

from position_sync_dagster.dagster_files import LAUNCHED_BY
from position_sync_dagster.defs.composition import Composition, Extension, composition_of
from position_sync_dagster.defs.resources import (
    ENDED,
    LOGINS,
    PARTITION,
    STREAM_JOB,
    PositionSyncResource,
    dagster_failures,
    sensor,
)
from position_sync_dagster.domain.clock import is_recent, utc_now
from position_sync_dagster.domain.gateway_session import ALIVE, PAUSED, GatewaySession, Owner
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.errors import GatewaysFileError
from position_sync_dagster.lake.lake import L, Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream import streamer
from position_sync_dagster.sync.stream.ownership import StreamCounts

PACKAGE = "position_sync_dagster"


Status = dg.DagsterRunStatus

# The states of a run that a person terminates: asked to end, and forced to be over. After the code
# server was restarted Dagster cannot reach the process of the run, which sees the state alone.
TERMINATED = (Status.CANCELING, Status.CANCELED)

# The states in which the stream of a run ends.
ENDING = (*ENDED, Status.CANCELING)

# Seconds of each wait of the main thread: an interrupt is raised between two waits.
POLL_S = 0.5

# Seconds that a stream has to release its lines and its lease after a request to stop.
CLEAN_END_S = 10.0

# Seconds between two looks whether the login and the run are still there.
LOOK_S = 5.0


class StreamThread:
    """Runs the stream in a thread with its own event loop.

    Dagster ends a run by an exception in the main thread. If the event loop ran there, the
    exception would be lost in the current task.

    Example:
        thread = StreamThread(partial(stream, lake, settings, run_id=None), CLEAN_END_S)
        with thread.running():
            thread.wait(until=lambda: False)
        print(thread.result().rows)

    Args:
        stream: Streams until the event `stop` is set.
        clean_end_s: How long it has to end then.
    """

    def __init__(
        self, stream: Callable[..., Coroutine[Any, Any, StreamCounts]], clean_end_s: float
    ) -> None:
        self._clean_end_s = clean_end_s
        self._asked = asyncio.Event()  # to end: the `stop` of the stream
        self._stream = partial(stream, stop=self._asked)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._ended: Future[StreamCounts] = Future()  # gets its counts, or its error
        self._thread = threading.Thread(target=self._work, name="stream", daemon=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the thread; at any end of the block, stop the stream and wait for its clean end."""
        try:
            self._thread.start()
            yield
        finally:
            deadline = time.monotonic() + self._clean_end_s
            while not self._ended.done() and time.monotonic() < deadline:
                # Dagster may interrupt again. RuntimeError: the event loop has closed.
                with suppress(dg.DagsterExecutionInterruptedError, RuntimeError):
                    self._loop.call_soon_threadsafe(self._asked.set)
                    wait([self._ended], self._clean_end_s)

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait until the stream has ended, or `until`, called each LOOK_S, says that it should."""
        look_at = time.monotonic() + LOOK_S
        while self._thread.is_alive():
            self._thread.join(POLL_S)  # short: Dagster's interrupt is raised between two waits
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_S
                if until():
                    return

    def result(self) -> StreamCounts:
        """Return the totals of the ended stream, or raise the error that ended it.

        Raises:
            TimeoutError: The stream did not end within `clean_end_s`.
        """
        if not self._ended.done():
            raise TimeoutError("The stream did not end in time.")
        return self._ended.result()

    def _work(self) -> None:
        """Stream until the end, and keep the result or the error for the main thread."""
        try:
            with self._runner as runner:
                counts = runner.run(self._stream())
            self._ended.set_result(counts)
        except BaseException as error:  # noqa: BLE001 - carried to the main thread by result()
            self._ended.set_exception(error)


class _PatientListener(QueueListener):
    """Passes log lines on in a thread of its own; drops those that a storage cannot take now."""

    def handle(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # any error would end the thread for good
            super().handle(record)


@contextmanager
def logged_aside() -> Iterator[None]:
    """Log the package's lines from another thread: legs that gained or lost a line, outages.

    They go to Dagster, as its instance asks, and to the output of the process. A storage that does
    not answer would otherwise stop the event loop, which values the ticks.
    """
    package = logging.getLogger(PACKAGE)
    lines = SimpleQueue[logging.LogRecord]()
    output = logging.StreamHandler()
    output.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers = package.handlers
    level = package.level
    listener = _PatientListener(lines, *handlers, output)
    package.handlers = [QueueHandler(lines)]
    package.setLevel(logging.INFO)
    listener.start()

    try:
        yield
    finally:
        package.handlers = handlers
        package.setLevel(level)
        listener.stop()


def login_is_gone(login: Settings) -> bool:
    """Return whether a login was removed or changed; False if its file cannot be read."""
    with suppress(GatewaysFileError):
        return login.gateways_file is not None and login not in login.logins
    return False


def status_of(instance: dg.DagsterInstance, run_id: str) -> Status | None:
    """Return the status of a run; a run that was deleted has ended.

    Returns:
        None if Dagster's storage, of whatever kind, cannot be read: the stream goes on without it.
    """
    with suppress(Exception):
        run = instance.get_run_by_id(run_id)
        return Status.SUCCESS if run is None else run.status
    return None


def stream_job(
    extension: Extension[L], partitions: dg.PartitionsDefinition | None = None
) -> dg.JobDefinition:
    """Return the stream's job, with a partition per login if there are several."""

    @dg.op(tags={"domain": "positions"}, config_schema={})
    @dagster_failures()
    def stream_legs(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
        """Own a login: stream active legs, write `broker_positions`, enqueue everything else.

        The op runs until it is interrupted, its rotation is due, its login was changed or removed
        in the gateways file, or its run was deleted from Dagster or has ended there. The supervisor
        then starts another one. An interrupt ends it cleanly, and the run succeeds. A termination
        in the UI ends it in the same way, also one that cannot reach its process, but as a canceled
        run: the stream is paused.
        """
        lake = position_sync.lake_of(extension.lake)
        instance = context.instance
        settings = position_sync.settings.for_login(
            context.partition_key if context.has_partition_key else None
        )
        run = partial(
            streamer.stream,
            lake,
            settings,
            run_id=context.run_id,
            complete=extension.stream_parts,
        )
        thread = StreamThread(run, CLEAN_END_S)

        with logged_aside():
            try:
                with thread.running():
                    # Nobody can terminate a run that the supervisor gave up, since it had no lease
                    # in time, or that was deleted: it looks itself whether it has ended.
                    thread.wait(
                        until=lambda: (
                            login_is_gone(settings) or status_of(instance, context.run_id) in ENDING
                        )
                    )
            except dg.DagsterExecutionInterruptedError:
                # A person terminated the run; any other interrupt is a clean end.
                if status_of(instance, context.run_id) is Status.CANCELING:
                    raise
            total = thread.result()

        # A termination that did not reach this process: only the state of the run says so.
        if status_of(instance, context.run_id) in TERMINATED:
            raise dg.DagsterExecutionInterruptedError
        context.log.info(
            f"The stream ended: {total.rows} rows in {total.commits} commits, "
            f"{total.enqueued} requests enqueued, {total.reconnects} reconnects."
        )

    @dg.job(
        name=STREAM_JOB,
        executor_def=dg.in_process_executor,
        # Of several queued runs, the stream's is launched first.
        tags={"dagster/max_retries": "0", "dagster/priority": "1", "domain": "positions"},
        partitions_def=partitions,
    )
    def stream() -> None:
        """Own a login and value its holdings; runs until it is stopped, one of each login.

        Legs of active strategies are streamed by market data lines; all else goes to the queue.
        """
        stream_legs()

    return stream


# Dagster's tag with the reason why a run failed.
FAILURE_REASON = "dagster/failure_reason"

# Failure reasons caused by the run itself; interrupted or killed runs have others, or none.
OWN_FAULTS = frozenset({"STEP_FAILURE", "RUN_EXCEPTION", "JOB_INITIALIZATION_FAILURE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """A run of a job, as Dagster stores it.

    Attributes:
        since: When it began; before that, when it was created or launched.
        ended_at: None while it is in progress.
        own_fault: It failed by an error of its own; it was not interrupted, killed or given up.
        terminated_at: When a person asked for its end, whatever state it ended in; None if nobody
            did. It is read of the newest run alone.
    """

    run_id: str
    state: Status
    since: datetime
    ended_at: datetime | None = None
    own_fault: bool = False
    terminated_at: datetime | None = None


def recent_runs(instance: dg.DagsterInstance, *, login: str | None) -> Sequence[JobRun]:
    """Return the newest runs of the stream, at most `RUNS_SEEN`, newest first.

    The newest one has `terminated_at` if it is over and a person ended it: then `supervise`
    pauses. That costs a request for each run, and of older ones nobody asks.

    Args:
        instance: The Dagster instance.
        login: Only runs of the partition of this login; None without partitions.
    """
    tags = {} if login is None else {PARTITION: login}
    of_login = dg.RunsFilter(job_name=STREAM_JOB, tags=tags)
    runs = [_run_of(record) for record in instance.get_run_records(of_login, limit=RUNS_SEEN)]
    if runs and not _in_progress(runs[0]):
        newest = runs[0]
        events = instance.get_records_for_run(newest.run_id, of_type=TERMINATION, limit=1).records
        runs[0] = replace(newest, terminated_at=utc(events[0].timestamp) if events else None)
    return runs


# The events of a termination: that it was asked for, and that Dagster called the run over. An
# interrupt without such a request leaves neither.
TERMINATION = {dg.DagsterEventType.RUN_CANCELING, dg.DagsterEventType.RUN_CANCELED}


def _run_of(record: dg.RunRecord) -> JobRun:
    """Return a run as Dagster stores it."""
    run = record.dagster_run
    # One that is starting was created long before, if it had to wait in the queue of runs.
    launched = record.update_timestamp if run.status is Status.STARTING else record.create_timestamp
    return JobRun(
        run_id=run.run_id,
        state=run.status,
        since=utc(record.start_time) or launched,
        ended_at=utc(record.end_time),
        own_fault=run.tags.get(FAILURE_REASON) in OWN_FAULTS,
    )


def utc(timestamp: float | None) -> datetime | None:
    """Convert a timestamp of Dagster's storage to UTC; None stays None."""
    if timestamp is None:
        return None

    return datetime.fromtimestamp(timestamp, UTC)


# Maximum time from the start of a run to its lease. It takes 3 to 10 s, and over 30 s where other
# processes use the processors: to give such a run up would add another one to them.
START_GRACE = timedelta(seconds=60)

# Maximum time from the end of a run's lease to its own end.
END_GRACE = timedelta(seconds=30)

# Seconds before a session's end at which its successor starts: the gap is then only the hand-over
# of the lease, without the start of a run.
ROTATION_LEAD_S = 30.0

# The name of the sensor that supervises.
SUPERVISING_SENSOR = "supervise_stream"

# Delays between runs in a crash loop.
RESTART = Backoff(first_s=10.0, longest_s=120.0)

# A run that fails within this time after its start counts towards a crash loop.
SHORT_LIFE = timedelta(seconds=30)


class Supervision(NamedTuple):
    """The decision of the supervisor.

    Attributes:
        reason: Why a new run is requested, or why none is.
        start: Request a new run.
        lost: Runs to report as failed: Dagster shows them as running, but their lease has ended; or
            they were created and never submitted.
        paused: The stream was terminated by a user and not resumed since.
    """

    reason: str
    start: bool = False
    lost: tuple[str, ...] = ()
    paused: bool = False


def supervise(
    recent: Sequence[JobRun],
    session: GatewaySession | None,
    *,
    now: datetime,
    supervised_since: datetime | None,
    rotate_after_s: float,
) -> Supervision:
    """Decide whether the stream needs a new run, by its lease and never by the status of a run.

    Args:
        recent: The recent stream runs, newest first.
        session: The newest session of the gateway, alive or not.
        supervised_since: When the supervisor's sensor was last switched on, which resumes a stream
            that was terminated before; None if that is unknown.
        rotate_after_s: Length of a session; its successor starts a little before the end and
            waits for the lease.
    """
    owner = session if session is not None and session.is_alive(now) else None

    lost = tuple(run.run_id for run in recent if _is_lost(run, session, owner, now))
    in_progress = [run for run in recent if _in_progress(run) and run.run_id not in lost]
    # The owner's run alone: its successor has not been started yet.
    if owner is not None and [run.run_id for run in in_progress] == [owner.run_id]:
        due_s = (owner.started_at - now).total_seconds() + rotate_after_s
        if due_s <= min(ROTATION_LEAD_S, rotate_after_s / 2):
            reason = f"run {in_progress[0].run_id[:8]} ends in {due_s:.0f} s: its successor starts"
            return Supervision(reason, start=True, lost=lost)

    if in_progress:
        return Supervision(_describe(in_progress[0], owner, now), lost=lost)

    # None of the runs is in progress any more: an owner that is none of them is another program.
    # REFRESH, a drain of an earlier release, ends by itself, within seconds.
    are_over = {run.run_id for run in recent}
    if owner is not None and owner.owner is not Owner.REFRESH and owner.run_id not in are_over:
        reason = f"process {owner.pid} on {owner.host} streams outside Dagster"
        return Supervision(reason, lost=lost)

    if lost:
        reason = "the lease of the last stream expired, or it was never submitted"
        return Supervision(reason, start=True, lost=lost)

    if not recent:
        return Supervision("no stream has run yet", start=True)

    newest = recent[0]
    terminated_at = newest.terminated_at
    if terminated_at is not None and (supervised_since is None or terminated_at > supervised_since):
        how = f"switch the sensor {SUPERVISING_SENSOR} off and on, or launch {STREAM_JOB}"
        reason = f"{PAUSED} at {terminated_at:%Y-%m-%d %H:%M:%S} UTC: {how}, to resume"
        return Supervision(reason, paused=True)

    ended_at = newest.ended_at or now
    crashes = sum(takewhile(bool, map(_crashed, recent)))
    wait = timedelta(seconds=RESTART.delay_s(crashes - 1))  # after the first one there is none
    if crashes > 1 and is_recent(ended_at, wait, now):
        wait_s = (ended_at + wait - now).total_seconds()
        reason = f"{crashes} runs failed in a row soon after their start; next in {wait_s:.0f} s"
        return Supervision(reason)

    return Supervision(f"the last run ended as {newest.state.value.lower()}", start=True)


def _in_progress(run: JobRun) -> bool:
    return run.state not in ENDED


def _is_lost(
    run: JobRun, session: GatewaySession | None, owner: GatewaySession | None, now: datetime
) -> bool:
    """Return whether a run that has not ended is gone: it got no lease in time, or lost it.

    A lease that ran out is lost at once; one that was given up, after END_GRACE.

    Args:
        run: The run.
        session: The newest session of the login.
        owner: The same, if its lease lasts.
        now: The time.
    """
    if run.state is Status.NOT_STARTED:
        return not is_recent(run.since, START_GRACE, now)
    if run.state not in (Status.STARTING, Status.STARTED) or owner is not None:
        return False
    if session is None or session.run_id != run.run_id:
        return not is_recent(run.since, START_GRACE, now)
    # Its own session: the lease ran out (the state stayed ALIVE), or was given up long ago.
    return session.state in ALIVE or not is_recent(session.heartbeat_at, END_GRACE, now)


def _crashed(run: JobRun) -> bool:
    """Return whether a run failed by itself soon after its start."""
    if run.state is not Status.FAILURE or not run.own_fault or run.ended_at is None:
        return False
    return run.ended_at - run.since < SHORT_LIFE


def _describe(run: JobRun, owner: GatewaySession | None, now: datetime) -> str:
    """Return the state of a run in words: of the owner's, how long its lease holds."""
    if owner is None or owner.run_id != run.run_id:
        state = run.state.value.lower().replace("_", " ")
        return f"run {run.run_id[:8]} is {state}"
    left_s = (owner.expires_at - now).total_seconds()
    return f"run {run.run_id[:8]} is {owner.state.lower()}, its lease holds {left_s:.0f} s"


# Number of runs read: enough to recognize a crash loop up to its longest delay.
RUNS_SEEN = 8

# Maximum number of streams that start at one look. Each start takes some seconds of a processor: of
# forty at once, some would take longer than the supervisor waits.
STARTS_AT_ONCE = 2


# Minimum seconds between two looks at the streams: every second look of the daemon.
SUPERVISE_S = 7


def supervise_stream(
    context: dg.SensorEvaluationContext, composition: Composition[L]
) -> dg.SensorResult:
    """Request a stream run if none is alive; report a run as failed if its process is gone.

    It looks every 10 s, and starts the stream of a login when its lease has ended: after a clean
    end, a crash, a kill. Terminating its run pauses it until this sensor is switched off and on, or
    the job launched.

    The logins are those of the gateways file, if there is one; each login is a partition of runs.
    """
    settings = composition.read_settings()
    lake = composition.opened(settings).lake
    instance = composition.instance_of(context)
    logins = {login.gateway_id: login for login in settings.logins}
    stored = set(logins)  # without a gateways file nothing is added or removed
    are_partitions = settings.gateways_file is not None
    if are_partitions:
        stored = set(instance.get_dynamic_partitions(str(LOGINS.name)))

    runs = {
        name: recent_runs(instance, login=name if are_partitions else None)
        for name in sorted(logins.keys() | stored)
    }
    running = {name for name, of_login in runs.items() if any(map(_in_progress, of_login))}
    changes = changed_logins(logins.keys(), stored, running)
    # A login that waits until the stream of a removed one has ended is not supervised yet.
    supervised = stored.union(changes.new)

    sessions = lake.sessions.current_of(runs)
    now = utc_now()
    requests: list[dg.RunRequest] = []
    lines = []
    for name in (*changes.removed, *filter(supervised.__contains__, logins)):
        session = sessions.get(name)
        decision = supervise(
            runs[name],
            session,
            now=now,
            supervised_since=utc(context.last_sensor_start_time),
            rotate_after_s=streamer.ROTATE_AFTER_S,
        )
        report_lost(instance, decision.lost)
        if decision.paused and session is not None:
            lake.sessions.annotate(session, decision.reason)  # for `status`

        reason = decision.reason
        if name in changes.removed:
            reason = f"it is no longer in the gateways file: {reason}"
        elif decision.start and len(requests) == STARTS_AT_ONCE:
            reason = f"{STARTS_AT_ONCE} other streams are starting: this one follows them"
        elif decision.start:
            key = name if are_partitions else None
            tags = {**logins[name].run_tags, LAUNCHED_BY: SUPERVISING_SENSOR}
            requests.append(dg.RunRequest(partition_key=key, tags=tags))
        lines.append(f"{name}: {reason}" if are_partitions else reason)

    partitions: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if changes.new:
        partitions.append(LOGINS.build_add_request(changes.new))
    if changes.ended:
        partitions.append(LOGINS.build_delete_request(changes.ended))

    said = "; ".join(lines) or "no login"
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else said,
        dynamic_partitions_requests=partitions,
    )


class ChangedLogins(NamedTuple):
    """How the partitions of the stream differ from the gateways file; each list is sorted.

    Attributes:
        new: Logins that become partitions.
        removed: Partitions whose login is gone from the file, and whose stream still runs.
        ended: Partitions that are deleted: their login is gone, and no stream of them runs.
    """

    new: list[str]
    removed: list[str]
    ended: list[str]


def changed_logins(logins: Set[str], stored: Set[str], running: Set[str]) -> ChangedLogins:
    """Compare the logins of the file with the stored partitions; pure.

    The partition of a removed login stays while its stream runs, so that it is supervised to the
    end. A new login may be a renamed old one, and the gateway serves only one of them at a time: no
    login is new while the stream of a removed one runs.

    Args:
        logins: Those of the gateways file.
        stored: The partitions, by the names of their logins.
        running: The logins with a stream run that has not ended.

    >>> changed_logins({"a", "c"}, {"a", "b"}, {"b"})
    ChangedLogins(new=[], removed=['b'], ended=[])
    >>> changed_logins({"a", "c"}, {"a", "b"}, set())
    ChangedLogins(new=['c'], removed=[], ended=['b'])
    """
    gone = stored - logins
    removed = sorted(gone & running)
    new = [] if removed else sorted(logins - stored)
    return ChangedLogins(new, removed, sorted(gone - running))


def report_lost(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> None:
    """Report runs as failed whose process is gone."""
    for run_id in run_ids:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            continue
        why = "Its process is gone: its lease on the gateway ended and was not given up."
        if run.status is Status.NOT_STARTED:
            why = "It was created, and what created it ended before it was submitted."
        instance.report_run_failed(run, why)


@dg.definitions
def stream_definitions(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Define the job, with partitions if a gateways file is configured, and its supervisor."""
    composition = composition_of(context, Lake)
    several = composition.read_settings().gateways_file is not None
    supervisor = sensor(
        supervise_stream,
        composition,
        automation=composition.automation,
        job_name=STREAM_JOB,
        minimum_interval_s=SUPERVISE_S,
    )
    return dg.Definitions(
        jobs=[stream_job(composition.extension, LOGINS if several else None)],
        sensors=[supervisor],
    )
