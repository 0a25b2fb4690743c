"""Dagster's daemon and its code server on one machine, in processes that the supervisor forks.

The code server is that of `dagster api grpc`, which cannot reload the code. Dagster's remedy is a
proxy before it, a further process through which each call passes.
"""

import logging
import os
import re
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from position_sync_dagster import dagster_host, last_work
from position_sync_dagster.dagster_host import dagster_internals
from position_sync_dagster.dagster_host.launcher import ForkedRunLauncher
from position_sync_dagster.sync.owner.memory_and_threads import one_native_thread_each

SIGN_S = 2.0
RELOAD_LOOK_S = 0.1
THREADS = "dagster-daemon-"
"""Prefix of the names of Dagster's worker threads."""


UNREACHABLE = "DagsterUserCodeUnreachableError"
"""Dagster's error if there is no code server."""


def run(workspace: str, internals: Any) -> None:
    """Run the daemon until an interrupt."""
    with (
        internals.get_instance_for_cli() as instance,
        internals.capture_interrupts(),
        ExitStack() as stack,
    ):
        # Before its threads begin: a run that one of them launches has no process yet.
        if isinstance(instance.run_launcher, ForkedRunLauncher):
            instance.run_launcher.adopt_runs()
        controller = stack.enter_context(
            internals.daemon_controller_from_instance(
                instance, workspace_load_target=internals.WorkspaceFileTarget([workspace])
            )
        )
        for handler in logging.getLogger("dagster").handlers:
            handler.addFilter(is_worth_logging)
        threading.Thread(target=give_signs, daemon=True).start()
        controller.check_daemon_loop()


def give_signs() -> None:
    """Record every few seconds that this process works, until one of Dagster's threads has ended.

    The main thread checks for that every 5 s, and then ends the process.
    """
    works = [thread for thread in threading.enumerate() if thread.name.startswith(THREADS)]
    while all(thread.is_alive() for thread in works):
        last_work.note(last_work.DAEMON)
        time.sleep(SIGN_S)


ROUTINE = re.compile(
    r"Checking for new runs for |Sensor \w+ skipped: |Collected \d+ runs for monitoring"
    r"|Checking run |Priority sorting and checking tag concurrency limits"
)
"""The lines that Dagster logs every few seconds although nothing happens."""


def is_worth_logging(record: logging.LogRecord) -> bool:
    """Return whether to log a line: False for routine, and for a missing code server.

    Dagster logs a hundred lines about that at each tick of each sensor.
    """
    error = record.exc_info[0] if record.exc_info else None
    named = error is not None and error.__name__ == UNREACHABLE
    text = record.getMessage()
    return not named and UNREACHABLE not in text and ROUTINE.match(text) is None


def main(workspace: str) -> None:
    """Run the daemon until an interrupt.

    Raises:
        SystemExit: Dagster lacks a private symbol.
    """
    internals = dagster_internals.DAEMON.load()
    if internals is None:
        sys.exit(dagster_host.LACKING)
    dagster_internals.keep_engines(connected=True)
    dagster_internals.pass_over_empty_queue()
    internals.configure_loggers(formatter="colored", log_level="INFO")
    internals.setup_interrupt_handlers()
    try:
        run(workspace, internals)
    except KeyboardInterrupt:
        for sig in (signal.SIGINT, signal.SIGTERM):  # it is already ending, and waits for its runs
            signal.signal(sig, signal.SIG_IGN)


@one_native_thread_each()
def serve_definitions(path: str, module: str, location: str, anew: bool) -> None:
    """Serve the definitions of a module until an interrupt, or until another server replaces this.

    Args:
        path: The path of the socket.
        module: The module with the definitions; one that cannot be loaded is shown in the UI.
        location: The name of the code location.
        anew: Whether to import the package anew, as a reload in the UI does.

    Raises:
        SystemExit: Dagster lacks a private symbol.
    """
    internals = dagster_internals.CODE_SERVER.load()
    if internals is None:
        sys.exit(dagster_host.LACKING)
    preloaded = sys.modules.get(dagster_host.PRELOADED)
    if anew and preloaded is not None:
        preloaded.forget(preloaded.imported)
    internals.setup_interrupt_handlers()
    internals.configure_loggers(formatter="colored", log_level="WARNING")
    logger = logging.getLogger("dagster.code_server")
    ended, workers = threading.Event(), internals.FuturesAwareThreadPoolExecutor()
    servicer = internals.DagsterApiServer(
        server_termination_event=ended,
        logger=logger,
        server_threadpool_executor=workers,
        loadable_target_origin=internals.LoadableTargetOrigin(
            module_name=module, working_directory=os.getcwd(), executable_path=sys.executable
        ),
        lazy_load_user_code=True,
        inject_env_vars_from_instance=True,
        location_name=location,
    )

    def reload_code(request: Any, context: Any) -> Any:
        """Return when another server has taken the place of this one, and end this one.

        Raises:
            RuntimeError: No other could be started; this one stays.
        """
        asked = dagster_host.reload_request(Path(path))
        asked.touch()
        while asked.exists():
            if refusal := asked.read_text(encoding="utf-8"):
                asked.unlink()
                raise RuntimeError(refusal)
            time.sleep(RELOAD_LOOK_S)
        servicer.ShutdownServer(request, context)
        return internals.dagster_api_pb2.ReloadCodeReply()

    servicer.ReloadCode = reload_code
    server = internals.DagsterGrpcServer(
        server_termination_event=ended,
        dagster_api_servicer=servicer,
        logger=logger,
        threadpool_executor=workers,
        socket=path,
    )
    with suppress(KeyboardInterrupt):
        server.serve()
