"""The private symbols of Dagster that this package uses, with the reason and the fallback.

Any release of Dagster may move or remove such a symbol. Each `Internal` names those for one
purpose. They are imported at the first use: a run and the command line need few of them. If one is
missing, a process logs once what it does instead.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from importlib import import_module
from threading import Lock
from types import SimpleNamespace
from typing import Any

import dagster as dg

logger = logging.getLogger(__name__)

ENGINES_KEPT = 8
"""Maximum number of engines that a process keeps: Dagster has three databases, and one per run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Internal:
    """Private symbols of Dagster that serve one purpose.

    Attributes:
        purpose: Their use, as the subject of a sentence.
        without: The fallback if one of them is missing.
        symbols: Symbol name → module.
    """

    purpose: str
    without: str
    symbols: Mapping[str, str] = field(hash=False)

    def load(self) -> Any:
        """Return an object with the symbols as attributes; None if one is missing."""
        return _load(self)


@cache
def _load(internal: Internal) -> Any:
    found = {}
    for name, module in internal.symbols.items():
        try:
            found[name] = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            logger.warning(
                "This version of Dagster has no %s.%s. %s: %s.",
                module,
                name,
                internal.purpose,
                internal.without,
            )
            return None
    return SimpleNamespace(**found)


FORKED_RUNS = Internal(
    purpose="Forking a run from a process that has imported Dagster",
    without="Dagster's own launcher starts each run, a second later",
    symbols={
        "ExecuteExternalJobArgs": "dagster._grpc.types",
        "core_execute_run": "dagster._grpc.impl",
        "get_run_crash_explanation": "dagster._utils",
        "recon_job_from_origin": "dagster._utils.hosted_user_process",
        "start_run_in_subprocess": "dagster._grpc.impl",
    },
)


RUNS_OF_CODE_SERVER = Internal(
    purpose="Forking the runs of a code server",
    without="each run imports Dagster anew, which takes two seconds of a processor",
    symbols={"DagsterApiServer": "dagster._grpc.server", "api_cli": "dagster._cli.api"},
)


def start_runs_with(processes: Any) -> None:
    """Make the code servers of this process start their runs by another method than spawn.

    Args:
        processes: Has `Queue`, `Event` and `Process`, like a context of `multiprocessing`.
    """
    server = RUNS_OF_CODE_SERVER.load().DagsterApiServer
    begin = server.__init__

    @wraps(begin)
    def begin_with(self: Any, *args: Any, **named: Any) -> None:
        begin(self, *args, **named)
        self._mp_ctx = processes

    server.__init__ = begin_with


def leave_out_canceled_runs() -> None:
    """Do not execute a run that is terminated while its process, which is this one, begins.

    Dagster would take the process for a second one of the run, and report the run as failed.
    """
    execute_run = FORKED_RUNS.load().core_execute_run

    @wraps(execute_run)
    def unless_canceled(job: Any, run: dg.DagsterRun, *args: Any, **more: Any) -> Any:
        canceled = run.status is dg.DagsterRunStatus.CANCELING
        return iter(()) if canceled else execute_run(job, run, *args, **more)

    import_module(FORKED_RUNS.symbols["core_execute_run"]).core_execute_run = unless_canceled  # type: ignore[attr-defined]


DAEMON = Internal(
    purpose="Running Dagster's daemon in a program of ours, which waits for the code server",
    without="`dagster dev` runs all programs, and nothing restarts one that hangs",
    symbols={
        "WorkspaceFileTarget": "dagster._core.workspace.load_target",
        "capture_interrupts": "dagster._utils.interrupts",
        "configure_loggers": "dagster._utils.log",
        "daemon_controller_from_instance": "dagster._daemon.controller",
        "get_instance_for_cli": "dagster._cli.utils",
        "setup_interrupt_handlers": "dagster._utils.interrupts",
    },
)

CODE_SERVER = Internal(
    purpose="Serving the definitions by a process that the supervisor forks",
    without="`dagster dev` runs all programs, each of which imports Dagster",
    symbols={
        "DagsterApiServer": "dagster._grpc.server",
        "DagsterGrpcServer": "dagster._grpc.server",
        "FuturesAwareThreadPoolExecutor": "dagster._core.utils",
        "LoadableTargetOrigin": "dagster._core.types.loadable_target_origin",
        "configure_loggers": "dagster._utils.log",
        "dagster_api_pb2": "dagster._grpc.__generated__",
        "setup_interrupt_handlers": "dagster._utils.interrupts",
    },
)

WEBSERVER = Internal(
    purpose="Running Dagster's webserver behind the loopback guard",
    without="`dagster dev` runs all programs, and its web page has no guard",
    symbols={
        "WorkspaceFileTarget": "dagster._core.workspace.load_target",
        "WorkspaceProcessContext": "dagster._core.workspace.context",
        "configure_loggers": "dagster._utils.log",
        "get_instance_for_cli": "dagster._cli.utils",
        "setup_interrupt_handlers": "dagster._utils.interrupts",
    },
)

INTERRUPTS = Internal(
    purpose="Ending a stream or a drain cleanly when its run is interrupted",
    without="Dagster raises in the step: `audit verify --repair` must name the last rows",
    symbols={
        "capture_interrupts": "dagster._utils.interrupts",
        "check_captured_interrupt": "dagster._utils.interrupts",
    },
)


@contextmanager
def captured_interrupts() -> Iterator[Callable[[], bool]]:
    """Keep interrupts from a block of a step; yield a function that returns whether one came."""
    internals = INTERRUPTS.load()
    if internals is None:
        yield bool
        return
    with internals.capture_interrupts():
        yield internals.check_captured_interrupt


EVENT_TABLES = Internal(
    purpose="Deleting old results of checks, events without a run, and files of deleted runs",
    without="they stay, and Dagster's storage grows by megabytes a day",
    symbols={
        "AssetCheckExecutionsTable": "dagster._core.storage.event_log.schema",
        "AssetEventTagsTable": "dagster._core.storage.event_log.schema",
        "RUNLESS_RUN_ID": "dagster._core.instance",
        "RunTagsTable": "dagster._core.storage.runs.schema",
        "RunsTable": "dagster._core.storage.runs.schema",
        "SqlEventLogStorage": "dagster._core.storage.event_log",
        "SqlEventLogStorageTable": "dagster._core.storage.event_log.schema",
        "SqlRunStorage": "dagster._core.storage.runs",
        "SqliteEventLogStorage": "dagster._core.storage.event_log",
    },
)

TICKS = Internal(
    purpose="Deleting old ticks of sensors",
    without="they stay, and Dagster's storage grows by megabytes a day",
    symbols={"TickStatus": "dagster._core.scheduler.instigation"},
)

CHECKED_EVENT = Internal(
    purpose="Naming the materialization that a check has judged",
    without="Dagster may show a check that ran within the same second as old",
    symbols={
        "AssetCheckEvaluationTargetMaterializationData": (
            "dagster._core.definitions.asset_checks.asset_check_evaluation"
        )
    },
)

LOADING = Internal(
    purpose="Passing the exchange's trading days to the runs of a code location",
    without="each run looks the holidays up again, which takes a third of its start",
    symbols={
        "DefinitionsLoadContext": "dagster._core.definitions.definitions_load_context",
        "DefinitionsLoadType": "dagster._core.definitions.definitions_load_context",
    },
)

SQLITE_STORAGES = (
    "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
)
"""The modules that call `create_engine` for each connection to SQLite."""

CAPTURED_OUTPUT = "dagster._core.execution.compute_logs"
"""The module that shows the captured output of a run."""


def show_output_by_tail_alone() -> None:
    """Make each `tail` that shows a run's output in the log end itself with the run's process.

    Dagster starts an interpreter beside each `tail`, of which a run has two. The interpreter waits
    for the end of the run's process and kills the `tail`; it takes as much memory as a run needs
    for its rows. Without this symbol, Dagster still does so. GNU's `tail` knows the option `--pid`;
    one that does not shows nothing, and the UI has the output.
    """
    with suppress(ImportError):
        module: Any = import_module(CAPTURED_OUTPUT)
        if sys.platform == "linux" and hasattr(module, "execute_posix_tail"):
            module.execute_posix_tail = _tail


@contextmanager
def _tail(path: str, stream: Any) -> Iterator[tuple[int, None]]:
    command = ["tail", "-F", "-c", "+0", f"--pid={os.getpid()}", path]
    with subprocess.Popen(command, stdout=stream) as tail:  # noqa: S603 - our own command, no shell
        try:
            yield tail.pid, None
        finally:
            tail.terminate()


WATCH_S = 3
"""Seconds between two checks whether the code server was replaced, by the daemon and the webserver.
After a reload in the UI the webserver does not wait for the check."""


def watch_seldom() -> None:
    """Make this process check that every `WATCH_S` seconds; Dagster checks every second."""
    with suppress(ImportError):
        module: Any = import_module("dagster._grpc.server_watcher")
        module.WATCH_INTERVAL = WATCH_S


RUN_QUEUE = "dagster._daemon.run_coordinator.queued_run_coordinator_daemon"
"""The module of the daemon that takes runs from the queue."""


def pass_over_empty_queue() -> None:
    """Read the limits and the runs in progress only when a run waits in the queue.

    Dagster reads them at each look, twice a second here: a sixth of what an idle daemon does.
    """
    with suppress(ImportError, AttributeError):
        daemon: Any = import_module(RUN_QUEUE).QueuedRunCoordinatorDaemon
        iterate = daemon.run_iteration
        waiting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])

        @wraps(iterate)
        def unless_empty(self: Any, context: Any, *args: Any, **more: Any) -> Iterator[Any]:
            if context.instance.get_run_ids(waiting, limit=1):
                yield from iterate(self, context, *args, **more)

        daemon.run_iteration = unless_empty


MIGRATIONS = "dagster:_core/storage/alembic"
"""Where alembic finds the migrations of Dagster's storage."""

IMPORTED_BY_RUNS = (
    *SQLITE_STORAGES,
    "dagster._core.run_coordinator",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
)
"""Modules that a run imports before its first step."""


def import_for_runs(*, postgres: bool) -> None:
    """Import the modules that each run needs, so that forked processes share them.

    Args:
        postgres: Whether the storages are on Postgres.
    """
    for name in (*IMPORTED_BY_RUNS, *(POSTGRES_STORAGES if postgres else ())):
        with suppress(ImportError):
            import_module(name)


def keep_engines(*, connected: bool = False) -> None:
    """Make Dagster's storages on SQLite keep their SQLAlchemy engine between two connections.

    Dagster makes a new engine for each connection, and each engine compiles every statement again.
    That takes half of the processor time of an idle daemon. Without these symbols Dagster's
    behaviour is the same, and slower.

    Args:
        connected: Whether connections are used again for `CONNECTED_S`, and stay open until
            `close_connections`. Else each use opens one: its first statement reads the schema of
            the database, and when the last connection is closed, SQLite copies the write-ahead
            log into the database and deletes it. That is done for each event that a run logs.
    """
    _replace("create_engine", SQLITE_STORAGES, partial(_keeping, connected=connected))


def _replace(
    function: str, modules: Iterable[str], by: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Replace a function of some modules by one that is made of it; once in a process."""
    for name in modules:
        with suppress(ImportError, AttributeError):
            module = import_module(name)
            original = getattr(module, function)
            if original.__module__ != __name__:
                setattr(module, function, by(original))


POSTGRES_STORAGES = (
    "dagster_postgres.event_log.event_log",
    "dagster_postgres.run_storage.run_storage",
    "dagster_postgres.schedule_storage.schedule_storage",
)
"""The modules that call `create_pg_engine` for a storage on Postgres."""

DEAD_PEER = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Connection options: a connection to an unreachable host fails within 11 s, before another process
can get a lock that it holds."""


def keep_postgres_connections() -> None:
    """Make the storages on Postgres that this process opens from now on share a kept connection.

    Dagster opens one for each statement, which takes 11 ms of a processor in Postgres and 6 in the
    process; the statement itself takes less than one. Only its webserver keeps them. A connection
    that Postgres has ended is replaced before its next use. A process has one, and as many more as
    are used at once. Without this symbol the behaviour is the same, and slower.
    """
    _replace("create_pg_engine", POSTGRES_STORAGES, partial(_pooled, engines={}))


def _pooled(create: Callable[..., Any], engines: dict[tuple[str, str], Any]) -> Callable[..., Any]:
    """Return `create` with one pool for all storages that would not pool their connections."""

    def create_pg_engine(url: str, tokens: Any = None, **options: Any) -> Any:
        if options.pop("poolclass", None) is None:  # the webserver has a pool of its own
            return create(url, tokens, **options)
        options |= {"pool_size": 1, "max_overflow": -1, "pool_pre_ping": True}
        options["connect_args"] = DEAD_PEER | options.get("connect_args", {})
        if tokens is not None:
            return create(url, tokens, **options)
        key = (url, str(options))
        return engines.get(key) or engines.setdefault(key, create(url, **options))

    return create_pg_engine


def close_connections() -> None:
    """Close the connections that `keep_engines` has left open."""
    while _connected:
        _, dispose = _connected.popitem()
        dispose()


def keep_migrations() -> None:
    """Make alembic read the migrations of Dagster's storage once per process: now.

    Dagster compares the version of a storage with them whenever it opens one, and each run has a
    database of its own: reading 90 small files four times takes a sixteenth of a run's time.
    """
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    if not hasattr(ScriptDirectory.from_config, "__wrapped__"):
        read, kept = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()

        @wraps(read)
        def from_config(config: Config) -> ScriptDirectory:
            place = config.get_main_option("script_location")
            return kept.get(place) or kept.setdefault(place, read(config))

        ScriptDirectory.from_config = from_config  # type: ignore[method-assign]
    with suppress(CommandError):
        config = Config()
        config.set_main_option("script_location", MIGRATIONS)
        ScriptDirectory.from_config(config).as_revision_number("head")


def with_stopped_automation(definitions: dg.Definitions) -> dg.Definitions:
    """Return definitions whose sensors and schedules are stopped until a person starts them.

    Dagster has no way to copy them with another status. Without the private attribute they run as
    before.
    """

    def stopped(one: Any, status: Any) -> Any:
        found = copy(one)
        found._default_status = status
        return found

    return dg.Definitions(
        assets=definitions.assets,
        asset_checks=definitions.asset_checks,
        jobs=definitions.jobs,
        resources=definitions.resources,
        sensors=[stopped(one, dg.DefaultSensorStatus.STOPPED) for one in definitions.sensors or ()],
        schedules=[
            stopped(one, dg.DefaultScheduleStatus.STOPPED) for one in definitions.schedules or ()
        ],
        metadata=definitions.metadata,
        component_tree=definitions.component_tree,
    )


CONNECTED_S = 5
"""Seconds for which a connection is used again. If the supervisor deletes a database and creates it
again, that is noticed only after this time."""

_connected: dict[int, Callable[[], None]] = {}
"""The function that closes the connections of an engine, by the engine's id."""


def _leave_open() -> None:
    """Replace `dispose` of an engine, which the storage of events calls after each use."""


def _keeping(create: Callable[..., Any], *, connected: bool = False) -> Callable[..., Any]:
    """Return `create` with a cache of the newest engines."""
    from sqlalchemy.pool import QueuePool

    kept: dict[tuple[str, str], Any] = {}
    lock = Lock()

    def create_engine(url: str, **options: Any) -> Any:
        key = (url, str(options))
        with lock:
            if key not in kept:
                if len(kept) >= ENGINES_KEPT:
                    oldest = kept.pop(next(iter(kept)))
                    _connected.pop(id(oldest), _leave_open)()
                if connected:
                    options |= {"poolclass": QueuePool, "pool_recycle": CONNECTED_S}
                    engine = create(url, **options, max_overflow=-1)
                    _connected[id(engine)], engine.dispose = engine.dispose, _leave_open
                else:
                    engine = create(url, **options)
                kept[key] = engine
            return kept[key]

    return create_engine
