"""What `dagster dev` starts, with the guarded webserver, and started again when it stops.

`dagster dev` starts a code server, the webserver and the daemon, has no place for a middleware, and
ends when one of them does. This program starts the same three and patches nothing. It asks each
every two seconds whether it works, kills one that hangs, and starts it again; one that cannot be
kept running ends everything, with the reason. A stream is no child of these: it outlives them.

The code server is Dagster's proxy, with which the UI can reload the code, and the server of the
definitions behind it. The proxy does not start that one again; here both are.

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

import grpc
import yaml
from dotenv import dotenv_values

from position_sync_dagster import last_work
from position_sync_dagster.processes.local_http import get_json
from position_sync_dagster.web.outage_alerts import OutageAlerts
from position_sync_dagster.web.storage_files import StorageFiles
from position_sync_dagster.web.supervised_program import (
    ASK_S,
    HANG_S,
    START_S,
    Answer,
    CannotRunError,
    Program,
)

LOOK_S = 0.5
TICK_S = 90.0
"""A daemon whose sensors ticked and do not any more hangs after this time."""

GRACE_S = 5.0
"""Seconds that the daemon has to end before it is killed."""

ALREADY_S = 1.0
"""Who asks this program to end has asked the daemon too, as a rule: a second signal is noise."""

OWN = "position_sync_dagster.web"
DEVELOPMENT = {"DAGSTER_IS_DEV_CLI": "1", "DAGSTER_verbose": ""}
"""Dagster's own mark of a local deployment, which all its processes inherit."""

logger = logging.getLogger("position_sync_dagster.supervisor")


def ask_code_server(socket: Path) -> Answer:
    """Ask through the proxy whether the server of the definitions answers."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        ping = channel.unary_unary("/api.DagsterApi/Ping")  # an empty message is a good request
        try:
            ping(b"", timeout=ASK_S)
        except grpc.RpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return Answer.NONE if late else Answer.ERROR
    last_work.note(last_work.CODE_SERVER)
    return Answer.YES


def ask_webserver(port: int) -> Answer:
    """Ask the webserver for its version."""
    try:
        get_json(port, "/server_info", timeout_s=ASK_S)
    except (OSError, ValueError):
        return Answer.NONE
    last_work.note(last_work.WEBSERVER)
    return Answer.YES


class DaemonSigns:
    """What shows that the daemon works: its own file changes, and that of the sensors."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: what was written until now is of an earlier daemon."""
        self._sign = last_work.changed_at(last_work.DAEMON)
        self._tick = last_work.changed_at(last_work.SENSORS)
        self._ticked: float | None = None

    def ask(self) -> Answer:
        """Return whether it has given a sign since the last question."""
        tick = last_work.changed_at(last_work.SENSORS)
        if tick != self._tick:
            self._tick, self._ticked = tick, time.monotonic()
        sign = last_work.changed_at(last_work.DAEMON)
        if sign == self._sign:
            return Answer.NONE
        self._sign = sign
        if self._ticked is not None and time.monotonic() - self._ticked > TICK_S:
            self._ticked = None  # judged once: a sensor that is switched off does not tick either
            return Answer.ERROR
        return Answer.YES


class Supervisor:
    """Keeps the code server, the daemon and the webserver running."""

    def __init__(self, *, port: int, workspace: str, folder: Path) -> None:
        socket = folder / "code"
        self._workspace = folder / "workspace.yaml"  # JSON is YAML
        module, location = only_location(workspace)
        served = {"location_name": location, "socket": str(socket), "host": "localhost"}
        self._workspace.write_text(json.dumps({"load_from": [{"grpc_server": served}]}))
        self.code_server = Program(
            last_work.CODE_SERVER,
            *("dagster", "code-server", "start", "--socket", str(socket)),
            *("--module-name", module, "--location-name", location, "--log-level", "warning"),
            *("--inject-env-vars-from-instance", "--startup-timeout", f"{START_S:.0f}"),
            ask=lambda: ask_code_server(socket),
            lost="has lost the server of the definitions",
        )
        self._signs = DaemonSigns()
        self.daemon = Program(
            last_work.DAEMON,
            f"{OWN}.daemon",
            ask=self._signs.ask,
            lost=f"has let no sensor tick for {TICK_S:.0f} s",
            whole=False,
        )
        self.webserver = Program(
            last_work.WEBSERVER,
            *(f"{OWN}.webserver", "--port", str(port), "--workspace", str(self._workspace)),
            ask=lambda: ask_webserver(port),
        )
        self.programs = (self.daemon, self.code_server, self.webserver)
        self.alerts = OutageAlerts()
        self._storage = StorageFiles()

    def run(self) -> None:
        """Start the programs, and keep them running until an interrupt.

        Raises:
            CannotRunError: One of them cannot be kept running.
        """
        self._storage.make()
        self.alerts.start()
        looked = time.monotonic()
        while True:
            if time.monotonic() - looked > HANG_S / 2:  # this process, or the machine, stood still
                for program in self.programs:
                    program.forgive()
            looked = time.monotonic()
            self.look()
            last_work.note(last_work.SUPERVISOR)
            time.sleep(LOOK_S)

    def look(self) -> None:
        """Look once at everything, and start what has to be started.

        Raises:
            CannotRunError: A program cannot be kept running.
        """
        self._look_at_storage()
        self.code_server.look()
        if self.daemon.look():
            self._signs.forget()
        if self.code_server.works:
            self.daemon.say(str(self._workspace))
        if self.webserver.process is not None or self.code_server.works or self.webserver.trouble:
            self.webserver.look()
        self.alerts.states = {program.name: program.trouble for program in self.programs}

    def _look_at_storage(self) -> None:
        lost = self._storage.lost()
        if not lost:
            return
        logger.error(
            "Files of Dagster's storage were deleted or replaced (%s). Dagster is started again "
            "on what is there now; runs and events that were in them are gone, rows are not.",
            ", ".join(lost),
        )
        for program in self.programs:
            program.end_at_once()
        self._storage.make()

    def end(self, reason: str) -> None:
        """End the daemon in order, which waits for its runs, and the others at once."""
        if reason:
            self.alerts.end(reason)
        self.webserver.end_at_once()
        self.code_server.end_at_once()
        process = self.daemon.process
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(ALREADY_S)
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        self.daemon.end_at_once()


def only_location(workspace: str) -> tuple[str, str]:
    """Return the module and the name of the one code location in a workspace file."""
    try:
        (entry,) = yaml.safe_load(Path(workspace).read_text(encoding="utf-8"))["load_from"]
        module = entry["python_module"]
        return module["module_name"], module["location_name"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise CannotRunError(
            f"{workspace} does not name one python_module with module_name and location_name "
            f"({type(error).__name__}). Use `dagster dev -w {workspace}` for other workspaces."
        ) from error


def run(*, port: int, workspace: str) -> int:
    """Run the programs until an interrupt, or until one cannot run; return the exit code."""
    os.environ |= DEVELOPMENT | variables_of_the_folder()
    last_work.clear()
    supervisor = None
    reason = ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            supervisor = Supervisor(port=port, workspace=workspace, folder=Path(folder))
            supervisor.run()
        except KeyboardInterrupt:
            pass
        except CannotRunError as error:
            reason = str(error)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if supervisor is not None:
                supervisor.end(reason)
    last_work.clear()
    if reason:
        last_work.note(last_work.ENDED, reason)
        logger.error("Everything ends. %s", reason)
    else:
        logger.info("Everything has ended, as was asked.")
    return int(bool(reason))


def variables_of_the_folder() -> dict[str, str]:
    """Return what the file `.env` of the working directory sets, as Dagster's programs read it."""
    return {name: value for name, value in dotenv_values(".env").items() if value is not None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the programs."""
    parser = argparse.ArgumentParser(
        prog="dagster_services", description="Run Dagster's code server, webserver and daemon."
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workspace", required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s supervisor: %(message)s",
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    return run(port=options.port, workspace=options.workspace)


if __name__ == "__main__":
    sys.exit(main())
