"""Hosts of a deployment: the programs of `deploy/programs.yaml`, each host with its own home.

The commands are those of the file, with other ports. A loop starts each program again when it ends,
as the file's `restart` does.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.support.demo_program import kill_all, processes_of, query_ui, started, wait_for
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
AGAIN = 'while :; do "$@"; sleep 0.5; done'


def command_of(service: str, *, code_port: int, ui_port: int) -> list[str]:
    """Return the command of a service, as it runs here."""
    services = yaml.safe_load((DEPLOY / "programs.yaml").read_text())["services"]
    scripts = Path(sys.executable).parent
    here = {
        "4000": str(code_port),
        "3000": str(ui_port),
        "0.0.0.0": "127.0.0.1",  # noqa: S104
        "/app/deploy/workspace.yaml": str(DEPLOY / "workspace.yaml"),
        "python": sys.executable,
        "dagster": str(scripts / "dagster"),
        "dagster-daemon": str(scripts / "dagster-daemon"),
    }
    return [here.get(word, word) for word in services[service]["command"]]


class Host:
    """One host: its home, its ports and its programs."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.code_port = free_port()
        self.ui_port = free_port()
        home = folder / "dagster_home"
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())
        code = {"DAGSTER_CODE_HOST": "127.0.0.1", "DAGSTER_CODE_PORT": str(self.code_port)}
        self.environment = environment | code | {"DAGSTER_HOME": str(home)}
        self.commands: list[str] = []
        self._loops: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *services: str) -> None:
        """Start services, each in a process group of its own."""
        for service in services:
            words = command_of(service, code_port=self.code_port, ui_port=self.ui_port)
            loop = ("-c", AGAIN, str(self.folder), *words)
            files = {"cwd": self.folder, "output": self.folder / f"{service}.log"}
            self._loops[service] = started(*loop, program="/bin/sh", env=self.environment, **files)

    def logs(self) -> str:
        """Return all that its programs have written."""
        return "\n".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.folder)

    def note_commands(self) -> None:
        """Note the command lines of its processes, which each account of a machine can read."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                self.commands.append(" ".join(process.cmdline()))

    def stop(self) -> None:
        """End everything as Docker does with `TINI_KILL_PROCESS_GROUP`, and wait."""
        self._signal(signal.SIGTERM)

        def running_commands() -> list[str]:
            return [" ".join(process.cmdline()) for process in self._running()]

        wait_for("the programs of the host end", lambda: not self._running(), told=running_commands)
        self._reap()

    def kill(self) -> None:
        """Kill everything, as a loss of power does."""
        self._signal(signal.SIGKILL)
        kill_all(self.folder)
        wait_for("no process of the host is left", lambda: not self._running())
        self._reap()

    def _reap(self) -> None:
        for loop in self._loops.values():
            loop.wait()

    def _signal(self, sig: signal.Signals) -> None:
        for loop in self._loops.values():
            with suppress(ProcessLookupError):
                os.killpg(loop.pid, sig)

    def _running(self) -> list[psutil.Process]:
        for loop in self._loops.values():
            loop.poll()
        return self.processes()

    def answers(self) -> bool:
        """Return whether its webserver has loaded the definitions."""
        with suppress(httpx.HTTPError):
            answer = self.graphql("{ repositoriesOrError { __typename } }")
            return bool(answer["repositoriesOrError"]["__typename"] == "RepositoryConnection")
        return False

    def graphql(self, query: str, **variables: Any) -> Any:
        """Query the webserver of this host."""
        return query_ui(self.ui_port, query, **variables)
