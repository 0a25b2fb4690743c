"""Dagster as a child process: the supervisor with Dagster's three programs."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.ports import LOOPBACK, exchange_json
from position_sync_dagster.processes.supervisor import GRACE_S
from position_sync_dagster.sync.stream.memory_and_threads import (
    ALLOCATOR,
    VARIABLES,
    one_native_thread_each,
)


def start(
    *, env: Mapping[str, str], dagster_home: Path, ui_port: int, cwd: Path, log: Path | None
) -> ChildProcess:
    """Start Dagster on 127.0.0.1 under the supervisor, with one thread each for native libraries.

    Args:
        env: The whole environment, without DAGSTER_HOME.
        dagster_home: An absolute path.
        log: As for `ChildProcess`.
    """
    module = "position_sync_dagster.processes.supervisor"
    with one_native_thread_each():
        threads = {name: os.environ[name] for name in (*VARIABLES, ALLOCATOR)}
    return ChildProcess(
        "Dagster",
        [sys.executable, "-m", module, str(ui_port), str(os.getpid())],
        env={**env, **threads, "DAGSTER_HOME": str(dagster_home)},
        cwd=cwd,
        log=log,
        grace_s=GRACE_S + 2,
    )


def is_serving(ui_port: int) -> bool:
    """Return whether the UI answers.

    The text "Serving" in Dagster's output is no proof: it comes before an error to bind the port.
    """
    try:
        return "dagster_version" in exchange_json(ui_port, "/server_info", timeout_s=1.0)
    except (OSError, ValueError):
        return False


def url(ui_port: int) -> str:
    """Return the address of the UI."""
    return f"http://{LOOPBACK}:{ui_port}"
