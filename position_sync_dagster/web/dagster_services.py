"""What `dagster dev` starts, with the guarded webserver instead of Dagster's own.

`dagster dev` starts a code server, the webserver and the daemon, and has no place for a middleware.
This program starts the same three in the same way, and patches nothing.

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
from pathlib import Path

from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._cli.utils import get_instance_for_cli
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.interrupts import setup_interrupt_handlers
from dagster._utils.log import configure_loggers

POLL_S = 0.5
GRACE_S = 5.0
"""Seconds that a service has to end before it is killed."""

DEVELOPMENT = {"DAGSTER_IS_DEV_CLI": "1", "DAGSTER_verbose": ""}
"""Dagster's own mark of a local deployment, which all its processes inherit."""

logger = logging.getLogger("dagster")


def run(*, port: int, workspace: str) -> int:
    """Run the services until an interrupt, or until one of them ends; return the exit code."""
    os.environ |= DEVELOPMENT
    with (
        get_instance_for_cli() as instance,
        ProxyServerManager(instance, WorkspaceFileTarget([workspace]), "warning") as code_servers,
        tempfile.TemporaryDirectory() as folder,
    ):
        served = Path(folder) / "workspace.yaml"  # JSON is YAML
        served.write_text(json.dumps({"load_from": code_servers.get_code_server_specs()}))
        module = [sys.executable, "-m"]
        webserver = ["position_sync_dagster.web.webserver", "--port", str(port)]
        daemon = ["dagster._daemon", "run", "--log-level", "info", "--log-format", "colored"]
        services = {
            name: subprocess.Popen([*module, *words, "--workspace", str(served)])  # noqa: S603
            for name, words in (("webserver", webserver), ("daemon", daemon))
        }
        try:
            return watch(services)
        except KeyboardInterrupt:
            return 0
        finally:
            end(services)


def watch(services: dict[str, "subprocess.Popen[bytes]"]) -> int:
    """Wait until a service ends, and return 1."""
    while True:
        for name, process in services.items():
            if process.poll() is not None:
                logger.error("Dagster's %s has ended with code %s.", name, process.returncode)
                return 1
        time.sleep(POLL_S)


def end(services: dict[str, "subprocess.Popen[bytes]"]) -> None:
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
    configure_loggers(formatter="colored", log_level="INFO")
    setup_interrupt_handlers()
    return run(port=options.port, workspace=options.workspace)


if __name__ == "__main__":
    sys.exit(main())
