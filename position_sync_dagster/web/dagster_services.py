"""What `dagster dev` starts, with the guarded webserver instead of Dagster's own.

`dagster dev` starts a code server, then the webserver and the daemon, and has no place for a
middleware. This program starts the same three, and patches nothing. It starts the daemon first:
that imports Dagster for two seconds, and waits for the workspace then.

Run as `python -m position_sync_dagster.web.dagster_services --port N --workspace FILE`, with
DAGSTER_HOME.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dotenv import dotenv_values

POLL_S = 0.5
GRACE_S = 5.0
"""Seconds that a service has to end before it is killed."""

DEVELOPMENT = {"DAGSTER_IS_DEV_CLI": "1", "DAGSTER_verbose": ""}
"""Dagster's own mark of a local deployment, which all its processes inherit."""

logger = logging.getLogger("dagster")

Service = subprocess.Popen[str]


def run(*, port: int, workspace: str) -> int:
    """Run the services until an interrupt, or until one of them ends; return the exit code."""
    os.environ |= DEVELOPMENT | variables_of_the_folder()
    services = {"daemon": start("position_sync_dagster.web.daemon", stdin=subprocess.PIPE)}
    try:
        # Late: the daemon has begun to import it too.
        from dagster import DagsterInstance
        from dagster._cli.proxy_server_manager import ProxyServerManager
        from dagster._core.workspace.load_target import WorkspaceFileTarget
        from dagster._utils.log import configure_loggers

        configure_loggers(formatter="colored", log_level="INFO")
        target = WorkspaceFileTarget([workspace])
        with (
            DagsterInstance.get() as instance,
            ProxyServerManager(instance, target, "warning") as code_servers,
            tempfile.TemporaryDirectory() as folder,
        ):
            served = Path(folder) / "workspace.yaml"  # JSON is YAML
            served.write_text(json.dumps({"load_from": code_servers.get_code_server_specs()}))
            try:
                announce(served, services["daemon"])
                webserver = ["position_sync_dagster.web.webserver", "--port", str(port)]
                services["webserver"] = start(*webserver, "--workspace", str(served))
                return watch(services)
            finally:
                end(services)  # before the code servers, which they use
    except KeyboardInterrupt:
        return 0
    finally:
        end(services)


def variables_of_the_folder() -> dict[str, str]:
    """Return what the file `.env` of the working directory sets, as Dagster's programs read it."""
    return {name: value for name, value in dotenv_values(".env").items() if value is not None}


def start(*module: str, stdin: int | None = None) -> Service:
    """Start a module with its arguments."""
    return subprocess.Popen([sys.executable, "-m", *module], stdin=stdin, text=True)  # noqa: S603


def announce(workspace: Path, daemon: Service) -> None:
    """Write the path of the workspace file to the daemon; `watch` notices one that has ended."""
    if daemon.stdin is not None:
        with suppress(BrokenPipeError), daemon.stdin as to:
            to.write(f"{workspace}\n")


def watch(services: dict[str, Service]) -> int:
    """Wait until a service ends, and return 1."""
    while True:
        for name, process in services.items():
            if process.poll() is not None:
                logger.error("Dagster's %s has ended with code %s.", name, process.returncode)
                return 1
        time.sleep(POLL_S)


def end(services: dict[str, Service]) -> None:
    """Interrupt each service once, and kill what has not ended after the grace time."""
    for process in services.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in services.values():
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the services."""
    parser = argparse.ArgumentParser(
        prog="dagster_services", description="Run Dagster's code server, webserver and daemon."
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workspace", required=True)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    return run(port=options.port, workspace=options.workspace)


if __name__ == "__main__":
    sys.exit(main())
