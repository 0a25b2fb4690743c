"""Dagster as a child process: the supervisor in `dagster_host` with Dagster's three programs."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from position_sync_dagster import last_work, places
from position_sync_dagster.processes.child_process import ChildProcess
from position_sync_dagster.processes.ports import LOOPBACK, exchange_json

GRACE_S = 3.0
"""Seconds between the interrupt and the kill.

After the interrupt the stream closes its gateway session, and Dagster itself ends, within 2 s. Its
daemon waits for the processes of its runs.
"""

PATIENCE = (f"multiprocessing.{'forkserver' if sys.platform == 'linux' else 'spawn'}", 15.0)
"""A part of the command line of a run's process, and the seconds that it has to end on a busy
machine. A run that is killed stays STARTED, and its last rows are in no event."""

LAUNCH_S = 60.0
"""The time limit of the launch of a run, in seconds: right after a start Dagster is busy."""


def start(
    *,
    env: Mapping[str, str],
    dagster_home: Path,
    ui_port: int,
    cwd: Path,
    log: Path | None,
    inherited_fds: Sequence[int],
) -> ChildProcess:
    """Start Dagster on 127.0.0.1 with the project's workspace, under the supervisor.

    Args:
        env: The whole environment, without DAGSTER_HOME.
        dagster_home: An absolute path.
        log: As for `ChildProcess`.
        inherited_fds: As for `ChildProcess`.
    """
    command = [sys.executable, "-m", "position_sync_dagster.dagster_host.services"]
    command += ["--port", str(ui_port), "--workspace", str(places.workspace_file())]
    return ChildProcess(
        "Dagster",
        command,
        env={**env, "DAGSTER_HOME": str(dagster_home)},
        cwd=cwd,
        log=log,
        reason=last_work.file_of(last_work.ENDED, dagster_home),
        grace_s=GRACE_S,
        patience=PATIENCE,
        inherited_fds=inherited_fds,
    )


def is_serving(ui_port: int) -> bool:
    """Return whether the UI answers.

    The text "Serving" in Dagster's output is no proof: it comes before an error to bind the port.
    """
    try:
        return "dagster_version" in exchange_json(ui_port, "/server_info", timeout_s=1.0)
    except (OSError, ValueError):
        return False


def launch(ui_port: int, job: str, tags: Mapping[str, str]) -> None:
    """Launch a job of the project through the UI's GraphQL.

    Raises:
        OSError, ValueError: The UI does not answer, or it refuses; the message says why.
    """
    selector = {
        "repositoryLocationName": "position_sync_dagster",
        "repositoryName": "__repository__",
        "jobName": job,
    }
    params = {
        "selector": selector,
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
    }
    request = {"query": _LAUNCH, "variables": {"params": params}}
    answer = exchange_json(ui_port, "/graphql", request, timeout_s=LAUNCH_S)
    result = (answer.get("data") or {}).get("launchRun") or {}
    if result.get("__typename") != "LaunchRunSuccess":
        raise ValueError(f"{job} was not launched: {result.get('message') or answer}")


_LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on Error { message } }
}
"""


def url(ui_port: int) -> str:
    """Return the address of the UI."""
    return f"http://{LOOPBACK}:{ui_port}"
