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

from dagster._core.origin import JobPythonOrigin
from dagster._grpc.impl import start_run_in_subprocess
from dagster._serdes import deserialize_value
from dagster._utils.hosted_user_process import recon_job_from_origin

IMPORTED = (
    "alembic.command",
    "dagster._core.run_coordinator",
    "dagster._core.storage.event_log.sqlite",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.storage.runs.sqlite",
    "dagster._core.storage.schedules.sqlite",
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

gc.freeze()
"""A look for cycles writes to each object, so that a run would copy what it has of this process."""


def execute(arguments: str, origin: str, begin: Connection) -> None:
    """Execute a run as the process of Dagster's own launcher does.

    Args:
        arguments: Dagster's `ExecuteExternalJobArgs`, serialized.
        origin: Where the job is defined, serialized.
        begin: The run begins when something comes from it.
    """
    begin.recv()
    job = recon_job_from_origin(deserialize_value(origin, JobPythonOrigin))
    ended = multiprocessing.Event()
    start_run_in_subprocess(arguments, job, SimpleQueue(), ended)  # type: ignore[no-untyped-call]
