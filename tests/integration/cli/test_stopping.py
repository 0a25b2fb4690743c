"""A signal at any moment of `position-sync demo` and `dev` ends them with the same exit code.

Dagster is replaced by a package that only sleeps, so that one run takes a second or two.
"""

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes.home import find_marked
from tests.support.demo_program import LIMIT_S, kill_all, started, wait_for
from tests.support.extent import EVERYTHING
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

DELAYS_S = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5)[:: 1 if EVERYTHING else 3]


class Run:
    """One start of a command in a folder of its own."""

    def __init__(self, folder: Path, command: str, *options: str) -> None:
        package = folder / "python" / "dagster"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("import time\ntime.sleep(600)\n")
        self.home = folder / "home"
        self.dagster_home = self.home
        if command == "demo":
            self.dagster_home = self.home / "dagster_home"

        # A port of its own: demos that start at once would find the same one free.
        port = str(free_port())
        if command == "demo":
            options += ("--gateway-port", port)
        else:
            MoneyLake(str(self.home / "lake")).initialize_sync()
            (self.home / ".env").write_text(f"POSITION_SYNC_GATEWAY_PORT={port}\n")

        self.output = folder / "output.txt"
        options += ("--ui-port", str(free_port()))
        if command == "demo":
            options += ("--home", str(self.home))
        env = {"PYTHONPATH": str(package.parent), "DAGSTER_HOME": str(self.home)}
        self.process = started(command, *options, cwd=folder, output=self.output, env=env)

    def reads_signals(self) -> bool:
        """Whether the process blocks SIGINT, to read it itself."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        blocked = int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16)
        return bool(blocked & 1 << signal.SIGINT - 1) or self.process.poll() is not None

    def exit_code(self) -> int:
        """Wait for the end, and check that no process is left."""
        code = self.process.wait(LIMIT_S)
        assert not find_marked(self.dagster_home)
        return code

    def close(self) -> None:
        """End all processes, in whatever state they are."""
        kill_all(self.home)
        self.process.wait()


@pytest.fixture
def start(tmp_path_factory) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(command: str, *options: str) -> Run:
        run = Run(tmp_path_factory.mktemp(command), command, *options)
        runs.append(run)
        wait_for("it reads signals", run.reads_signals, poll_s=0.001)
        return run

    yield begin
    for run in runs:
        run.close()


@pytest.mark.parametrize(("command", "delays_s"), [("demo", DELAYS_S), ("dev", DELAYS_S[::2])])
def test_an_interrupt_at_any_moment_ends_with_0(start, command, delays_s):
    def interrupted_after(delay_s: float) -> int:
        run = start(command)
        time.sleep(delay_s)  # the moment is what is tested
        run.process.send_signal(signal.SIGINT)
        return run.exit_code()

    with ThreadPoolExecutor(4) as pool:
        codes = dict(zip(delays_s, pool.map(interrupted_after, delays_s), strict=True))
    assert codes == dict.fromkeys(delays_s, 0)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP])
def test_signals_without_a_pause_until_the_end_change_nothing(start, sig):
    run = start("demo", "--json")
    wait_for("it runs", lambda: "started" in run.output.read_text())
    while run.process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(run.process.pid).send_signal(sig)
            psutil.Process(run.process.pid).send_signal(signal.SIGINT)
    assert run.exit_code() == 0


def test_a_timed_demo_that_is_stopped_has_the_code_of_the_signal(start):
    run = start("demo", "--for", "600")
    run.process.send_signal(signal.SIGTERM)
    assert run.exit_code() == 128 + signal.SIGTERM
