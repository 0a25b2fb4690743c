"""The modules that the fork server imports, so that what is forked from it need not.

Only the fork server imports this module. A run executes the package as it is then: if a file has
changed since the fork server imported it, the run imports the package anew.

Threads do not survive a fork. Polars and Delta Lake start those that compute when they are first
used, so nothing that is imported here may use them: a forked process that computes then would wait
forever. The import of Polars starts one thread, which deletes files of queries that are larger than
the memory; nothing here makes such files, and Polars deletes those of an ended process when it is
imported again. Both allocators are told to start none (`memory_and_threads.ALLOCATOR`).
"""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from importlib import import_module
from pkgutil import walk_packages

import dagster as dg

from position_sync_dagster.dagster_host import dagster_internals

logger = logging.getLogger(__name__)

IMPORTED = (
    "alembic.command",
    "dagster_webserver.cli",
    "dagster_webserver.webserver",
    "holidays",
    "psutil",
    "pydantic_settings",
    "sqlalchemy.dialects.sqlite",
    "tenacity",
    "tomlkit",
    "upath.implementations.local",
)
"""Libraries that runs import before their first step, and those of the webserver."""

PACKAGE = __name__.partition(".")[0]

IN_PACKAGE = (
    "dagster_host.daemon",
    "dagster_host.launcher",
    "definitions",
    "defs",
    "gateway",
    "lake",
    "sync",
)
"""The modules of the package that a run finds imported, with what they import; a folder counts with
all that is in it."""

GARBAGE = (10_000, 20, 20)
"""The thresholds of garbage collection in forked processes. The usual collection after 700 new
objects finds next to nothing in a run of a few seconds."""

Stamp = tuple[int, int]
"""The time of a file's last change in nanoseconds, and its size."""


def import_package(package: str, names: Iterable[str]) -> dict[str, Stamp]:
    """Import modules of a package, if all of them can be imported.

    While one is being edited it may have an error, which the runs report.

    Args:
        package: The name of the package.
        names: The modules, by their names in the package.

    Returns:
        Module → state of its file, of each module of the package that is imported.
    """
    before = _modules_of(package)
    try:
        for name in names:
            module = import_module(f"{package}.{name}")
            for inner in walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
                import_module(inner.name)
        return {name: stamp_of(name) for name in _modules_of(package)}
    except Exception as error:  # noqa: BLE001 - the run that imports it reports it
        logger.warning("Each run imports the package itself: %s: %s", type(error).__name__, error)
        forget(_modules_of(package) - before)
        return {}


def _modules_of(package: str) -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] == package}


def forget_changed(imported: Mapping[str, Stamp]) -> None:
    """Discard imported modules if the file of one has changed, so that the run imports them anew.

    All are discarded, since each may have objects of the one that changed.
    """
    try:
        same = all(stamp_of(name) == stamp for name, stamp in imported.items())
    except FileNotFoundError:
        same = False
    if not same:
        forget(imported)


def forget(names: Iterable[str]) -> None:
    """Discard modules, so that the next import of each reads its file."""
    for name in names:
        sys.modules.pop(name, None)
        parent, _, own = name.rpartition(".")
        if parent in sys.modules:
            vars(sys.modules[parent]).pop(own, None)


def stamp_of(module: str) -> Stamp:
    """Return the state of the file of an imported module."""
    found = os.stat(str(sys.modules[module].__file__))
    return found.st_mtime_ns, found.st_size


def prepare() -> dict[str, Stamp]:
    """Import what runs need, and return the modules of the package as `import_package` does."""
    gc.set_threshold(*GARBAGE)
    # Only now: this module restores the thresholds that it finds when it is imported.
    from position_sync_dagster.sync.owner.memory_and_threads import one_native_thread_each

    for name in IMPORTED:
        import_module(name)
    postgres = "PGHOST" in os.environ
    dagster_internals.import_for_runs(postgres=postgres)
    for internal in (
        dagster_internals.CODE_SERVER,
        dagster_internals.DAEMON,
        dagster_internals.FORKED_RUNS,
        dagster_internals.WEBSERVER,
    ):
        internal.load()
    dagster_internals.keep_engines(connected=True)
    if postgres:
        dagster_internals.keep_postgres_connections()
    dagster_internals.keep_migrations()
    dagster_internals.show_output_by_tail_alone()
    dagster_internals.watch_seldom()
    with warnings.catch_warnings(), one_native_thread_each():
        for kind in (dg.BetaWarning, dg.PreviewWarning):
            warnings.simplefilter("ignore", kind)
        imported = import_package(PACKAGE, IN_PACKAGE)
    # Exclude the imported objects from garbage collection, which writes to each object: a run
    # would then copy the memory that it shares with this process.
    gc.freeze()
    return imported


imported = prepare()
"""The modules of the package that a run finds imported, with the state of their files."""
