"""`dagster dev` as a child process."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.home import workspace_file
from position_sync_dagster.processes.local_http import get_json
from position_sync_dagster.processes.ports import LOOPBACK

GRACE_S = 3.0
"""Interrupted, the stream ends its session and `dagster dev` itself ends within 2 s; its code
servers stay for as long as they have a run's process, and only they are killed."""


def start(
    *,
    env: Mapping[str, str],
    dagster_home: Path,
    ui_port: int,
    cwd: Path,
    log: Path | None,
    inherited_fds: Sequence[int],
) -> ChildProcess:
    """Start `dagster dev` on 127.0.0.1 with the project's workspace.

    Args:
        env: The whole environment, but for DAGSTER_HOME.
        dagster_home: An absolute path.
        log, inherited_fds: As for `ChildProcess`.
    """
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(workspace_file())]
    command += ["--host", LOOPBACK, "--port", str(ui_port)]
    return ChildProcess(
        "dagster dev",
        command,
        env={**env, "DAGSTER_HOME": str(dagster_home)},
        cwd=cwd,
        log=log,
        grace_s=GRACE_S,
        inherited_fds=inherited_fds,
    )


def is_serving(ui_port: int, *, timeout_s: float = 1.0) -> bool:
    """Tell whether the UI answers; "Serving" in its output comes before a bind error."""
    try:
        return "dagster_version" in get_json(ui_port, "/server_info", timeout_s=timeout_s)
    except (OSError, ValueError):
        return False


def url(ui_port: int) -> str:
    """Give the UI's address."""
    return f"http://{LOOPBACK}:{ui_port}"
