"""What a run's process executes, and what it finds imported.

The fork server imports this module, and each run begins as a copy of it. So it imports libraries
only: they do not change while Dagster runs. The definitions and all else of the package are loaded
by each run for itself, as they are then. Nothing here may start a thread, since a copy has none of
them: that excludes Polars, Delta Lake and NumPy.
"""

import gc
import multiprocessing
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
"""What a run imports besides, before its first step."""

for _name in IMPORTED:
    import_module(_name)
dagster_internals.import_for_runs()
dagster_internals.FORKED_RUNS.load()
dagster_internals.keep_engines()

gc.freeze()
"""Python's garbage collector writes to each object that it looks at. A run would then copy the
memory that it shares with this process."""


def execute(arguments: str, origin: str, begin: Connection) -> None:
    """Execute a run as the process of Dagster's own launcher does.

    Args:
        arguments: Dagster's `ExecuteExternalJobArgs`, serialized.
        origin: Where the job is defined, serialized.
        begin: The run begins when something comes from it.
    """
    begin.recv()
    internals = dagster_internals.FORKED_RUNS.load()
    job = internals.recon_job_from_origin(dg.deserialize_value(origin))
    ended = multiprocessing.Event()
    internals.start_run_in_subprocess(arguments, job, SimpleQueue(), ended)
