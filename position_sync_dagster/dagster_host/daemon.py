"""Dagster's daemon on one machine, started in parallel with the code server.

It imports Dagster while the code server starts, and so does the fork server of the runs.

Run as `python -m position_sync_dagster.dagster_host.daemon`, with DAGSTER_HOME and the path of a
workspace file on the standard input.
"""

import logging
import re
import signal
import sys
import threading
import time
from typing import Any

import yaml

from position_sync_dagster import last_work, places
from position_sync_dagster.dagster_host import LACKING, dagster_internals
from position_sync_dagster.dagster_host.launcher import ForkedRunLauncher, prepare_processes

SIGN_S = 1.0
THREADS = "dagster-daemon-"
"""Prefix of the names of Dagster's worker threads."""


UNREACHABLE = "DagsterUserCodeUnreachableError"
"""Dagster's error if there is no code server."""


def run(workspace: str, internals: Any) -> None:
    """Run the daemon until an interrupt."""
    with (
        internals.get_instance_for_cli() as instance,
        internals.capture_interrupts(),
        internals.daemon_controller_from_instance(
            instance, workspace_load_target=internals.WorkspaceFileTarget([workspace])
        ) as controller,
    ):
        if isinstance(instance.run_launcher, ForkedRunLauncher):
            instance.run_launcher.adopt_runs()
        for handler in logging.getLogger("dagster").handlers:
            handler.addFilter(says_more_than_the_supervisor)
        threading.Thread(target=give_signs, daemon=True).start()
        controller.check_daemon_loop()


def give_signs() -> None:
    """Record each second that this process works, until one of Dagster's threads has ended.

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


def says_more_than_the_supervisor(record: logging.LogRecord) -> bool:
    """Return whether to log a line: False for routine, and for a missing code server.

    Dagster logs a hundred lines about that at each tick of each sensor.
    """
    error = record.exc_info[0] if record.exc_info else None
    named = error is not None and error.__name__ == UNREACHABLE
    text = record.getMessage()
    return not named and UNREACHABLE not in text and ROUTINE.match(text) is None


def forks_runs() -> bool:
    """Return whether `dagster.yaml` names our launcher, without opening the storages."""
    try:
        text = (places.dagster_home() / "dagster.yaml").read_text(encoding="utf-8")
        launcher = yaml.safe_load(text)["run_launcher"]["class"]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return False
    return bool(launcher == ForkedRunLauncher.__name__)


def main() -> None:
    """Read the path of the workspace from standard input, then run the daemon.

    Raises:
        SystemExit: The standard input ended without a path, or Dagster lacks a private symbol.
    """
    internals = dagster_internals.DAEMON.load()
    if internals is None:
        sys.exit(LACKING)
    dagster_internals.keep_engines(connected=True)
    internals.configure_loggers(formatter="colored", log_level="INFO")
    internals.setup_interrupt_handlers()
    try:
        if forks_runs():
            prepare_processes()
        workspace = sys.stdin.readline().strip()
        if not workspace:
            sys.exit("The daemon needs the path of a workspace file on the standard input.")
        run(workspace, internals)
    except KeyboardInterrupt:
        for sig in (signal.SIGINT, signal.SIGTERM):  # it is already ending, and waits for its runs
            signal.signal(sig, signal.SIG_IGN)


if __name__ == "__main__":
    main()
