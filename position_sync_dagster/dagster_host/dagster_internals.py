"""The private symbols of Dagster that this package uses, with the reason and the fallback.

Any release of Dagster may move or remove such a symbol. Each `Internal` names those for one
purpose. They are imported at the first use: a run and the command line need few of them. If one is
missing, a process logs once what it does instead.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from functools import cache, partial
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
