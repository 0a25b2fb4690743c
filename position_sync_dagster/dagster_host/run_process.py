"""The entry point of a run's process, and the modules that it finds imported.

The fork server imports this module, and each run begins as a copy of the fork server. For that
reason it imports only libraries, which do not change while Dagster runs; each run loads the
definitions and the rest of the package as they are then. Nothing here may start a thread, since
threads do not survive a fork: that excludes Polars, Delta Lake and NumPy.
"""

import gc
import multiprocessing
import signal
from importlib import import_module
from multiprocessing.connection import Connection
from queue import SimpleQueue

import dagster as dg

from position_sync_dagster.dagster_host import dagster_internals

IMPORTED = (
    "alembic.command",
    "psutil",
    "pydantic_settings",
    "sqlalchemy.dialects.sqlite",
    "tenacity",
    "tomlkit",
    "upath.implementations.local",
)
"""Further modules that a run imports before its first step."""

for _name in IMPORTED:
    import_module(_name)
dagster_internals.import_for_runs()
dagster_internals.FORKED_RUNS.load()
dagster_internals.keep_engines()
dagster_internals.keep_migrations()

gc.freeze()
"""Exclude the imported objects from garbage collection, which writes to each object: a run would
then copy the memory that it shares with this process."""


def execute(arguments: str, origin: str, begin: Connection) -> None:
    """Execute a run like the process of Dagster's own launcher.

    Args:
        arguments: Dagster's `ExecuteExternalJobArgs`, serialized.
        origin: The origin of the job, serialized.
        begin: The run begins when this connection receives a message.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    begin.recv()
    internals = dagster_internals.FORKED_RUNS.load()
    job = internals.recon_job_from_origin(dg.deserialize_value(origin))
    ended = multiprocessing.Event()
    internals.start_run_in_subprocess(arguments, job, SimpleQueue(), ended)
