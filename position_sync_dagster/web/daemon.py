"""Dagster's daemon on one machine, which is ready when the code server is.

It imports Dagster while the code server starts, and so does the process from which runs are forked.

Run as `python -m position_sync_dagster.web.daemon`, with DAGSTER_HOME and the path of a workspace
file on the standard input.
"""

import os
import sys

from dagster._cli.utils import get_instance_for_cli
from dagster._core.instance.ref import InstanceRef
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.controller import daemon_controller_from_instance
from dagster._utils.interrupts import capture_interrupts, setup_interrupt_handlers
from dagster._utils.log import configure_loggers

from position_sync_dagster.launcher.forked_run_launcher import ForkedRunLauncher, prepare_processes


def run(workspace: str) -> None:
    """Run the daemon until an interrupt."""
    with (
        get_instance_for_cli() as instance,
        capture_interrupts(),
        daemon_controller_from_instance(
            instance, workspace_load_target=WorkspaceFileTarget([workspace])
        ) as controller,
    ):
        controller.check_daemon_loop()


def forks_runs() -> bool:
    """Return whether `dagster.yaml` names our launcher; the storages are not opened for it."""
    home = os.environ.get("DAGSTER_HOME")
    launcher = InstanceRef.from_dir(home).run_launcher_data if home else None
    return launcher is not None and launcher.class_name == ForkedRunLauncher.__name__


def main() -> None:
    """Run the daemon as soon as the workspace is known.

    Raises:
        SystemExit: The standard input ended without a path.
    """
    configure_loggers(formatter="colored", log_level="INFO")
    setup_interrupt_handlers()
    try:
        if forks_runs():
            prepare_processes()
        workspace = sys.stdin.readline().strip()
        if not workspace:
            sys.exit("The daemon needs the path of a workspace file on the standard input.")
        run(workspace)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
