"""The entry point of a run's process."""

import multiprocessing
import signal
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue

import dagster as dg

from position_sync_dagster.dagster_host import dagster_internals

PRELOADED = f"{__package__}.preloaded"
"""The module that the fork server imports, and nothing else."""


def execute(arguments: str, origin: str, begin: Connection) -> None:
    """Execute a run like the process of Dagster's own launcher.

    Args:
        arguments: Dagster's `ExecuteExternalJobArgs`, serialized.
        origin: The origin of the job, serialized.
        begin: The run begins when this connection receives a message.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    begin.recv()
    preloaded = sys.modules.get(PRELOADED)
    if preloaded is not None:
        preloaded.forget_changed(preloaded.imported)
    internals = dagster_internals.FORKED_RUNS.load()
    job = internals.recon_job_from_origin(dg.deserialize_value(origin))
    ended = multiprocessing.Event()
    try:
        internals.start_run_in_subprocess(arguments, job, SimpleQueue(), ended)
    finally:
        dagster_internals.close_connections()
