"""Start `position-sync` as a person does, and observe it from outside."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pytest
from deltalake import DeltaTable

from position_sync_dagster.cli import THREAD_COUNTS
from position_sync_dagster.processes.home import Home
from tests.support.ports import NO_CERTIFICATES, free_port
from tests.support.waiting import LONGEST_PAUSE_S, Patience, pause_s

PROGRAM = str(Path(sys.executable).parent / "position-sync")
LEGS = 200
STREAMED = 20
QUEUED = 180

# The market data lines: those of the streamed legs, and one for each underlying.
LINES = STREAMED + 5
ACCOUNT = "DUSIM0001"
# After so many seconds of a quiet machine something hangs. The benchmarks measure how fast it is.
LIMIT_S = 300.0

# After this time a server that lost its parent may end by itself, which would hide an orphan.
GONE_S = 30.0


def clean_environment() -> dict[str, str]:
    """Return the environment of a person who has set nothing."""
    tests = ("POSITION_SYNC_", "DAGSTER_", *THREAD_COUNTS)
    return {k: v for k, v in os.environ.items() if not k.startswith(tests)}


def wait_for(
    what: str,
    condition: Callable[[], Any],
    *,
    within_s: float | None = None,
    poll_s: float = 0.1,
    told: Callable[[], object] = lambda: "",
) -> Any:
    """Wait until the condition holds, and return its result.

    Args:
        what: What is waited for, and `told` what there is instead: for the message of the failure.
        within_s: After these seconds it fails; without any, when something hangs.
    """
    patience = Patience()
    first = time.monotonic()
    while True:
        began = time.monotonic()
        found = condition()
        if found:
            return found
        waited_s = time.monotonic() - first
        is_late = patience.is_over(LIMIT_S) if within_s is None else waited_s >= within_s
        assert not is_late, f"did not happen within {waited_s:.0f} s: {what}; {told()}"
        time.sleep(pause_s(began, poll_s))


def started(
    *arguments: str, cwd: Path, output: Path, env: Mapping[str, str], program: str = PROGRAM
) -> subprocess.Popen[bytes]:
    """Start `position-sync`, or another program, in a session of its own without a terminal."""
    with output.open("ab") as file:
        return subprocess.Popen(
            [program, *arguments], cwd=cwd, env=clean_environment() | env,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip


def command(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `position-sync` and wait for its end."""
    process = subprocess.Popen(
        [PROGRAM, *arguments], cwd=cwd, env=clean_environment() | (env or {}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    patience = Patience()
    with process:
        while True:
            try:
                output, errors = process.communicate(timeout=LONGEST_PAUSE_S)
                break
            except subprocess.TimeoutExpired:
                if patience.is_over(LIMIT_S):
                    process.kill()
                    raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def kill_all(folder: Path) -> None:
    """Kill all processes whose command line or environment names a folder."""
    for process in processes_of(folder):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def end_all(process: subprocess.Popen[Any], folder: Path) -> None:
    """Ask a program to end, and end all that names its folder, in whatever state it is."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT_S)
    kill_all(folder)
    process.wait(LIMIT_S)


def processes_of(folder: Path) -> list[psutil.Process]:
    """List the living processes whose command line or environment names the folder."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            texts = [*process.cmdline(), *process.environ().values()]
            named = any(str(folder) in text for text in texts)
            if named and process.pid != os.getpid() and process.status() != "zombie":
                processes.append(process)
    return processes


def query_ui(ui_port: int, query: str, **variables: Any) -> Any:
    """Query a webserver of Dagster; give the data."""
    answer = httpx.post(
        f"http://127.0.0.1:{ui_port}/graphql",
        json={"query": query, "variables": variables},
        timeout=LIMIT_S,
        trust_env=False,
        verify=NO_CERTIFICATES,
    ).raise_for_status()
    result = answer.json()
    assert "errors" not in result, result["errors"]
    return result["data"]


class Demo:
    """One start of `position-sync demo` in `home`, in a process session of its own."""

    def __init__(
        self, home: Path, *arguments: str, terminal: int | None = None, calm: bool = True
    ) -> None:
        self.home = home
        self.arguments = arguments
        self.lake = home / "lake"
        self.ui_port = free_port()
        self.control_port = free_port()
        self.began = datetime.now(UTC)
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.errors = home.parent / f"{home.name}.stderr"
        self.control = httpx.Client(
            base_url=f"http://127.0.0.1:{self.control_port}",
            timeout=LIMIT_S,
            trust_env=False,
            verify=NO_CERTIFICATES,
        )
        line = [PROGRAM, "demo", "--home", str(home), *arguments, *(["--calm"] if calm else [])]
        line += ["--ui-port", str(self.ui_port), "--control-port", str(self.control_port)]

        if Home.at(home).is_new:  # afterwards it keeps its port
            line += ["--gateway-port", str(free_port())]

        self._reader: threading.Thread | None = None
        # What is private is made so by the program.
        usual: dict[str, Any] = {"cwd": home.parent, "start_new_session": True, "umask": 0}
        usual["env"] = clean_environment()
        if terminal is not None:
            adopt = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            adopt += "os.execv(sys.argv[1], sys.argv[1:])"
            usual |= dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
            self.process = subprocess.Popen([sys.executable, "-c", adopt, *line], **usual)
            return

        usual |= {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen([*line, "--json"], stderr=errors, **usual)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(ValueError, OSError):
            for line in self.process.stdout:
                self.events.put(json.loads(line))
        self.events.put(None)

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event in the demo's JSON output, which may be the last line."""
        patience = Patience()
        while not patience.is_over(LIMIT_S):
            with suppress(queue.Empty):
                found = self.events.get(timeout=LONGEST_PAUSE_S)
                if found is None:
                    self.process.wait(LIMIT_S)
                    pytest.fail(f"the demo ended without the event {name}: {self.outcome()}")
                if found["event"] == name:
                    return found
        pytest.fail(f"the event {name} did not happen")

    def check(self) -> None:
        """Fail with the demo's error if it has ended with one."""
        if self.process.poll() not in (None, 0):
            pytest.fail(f"the demo ended: {self.outcome()}")

    def outcome(self) -> str:
        """Return its exit code and its output on stderr."""
        errors = self.errors.read_text() if self.errors.exists() else ""
        return f"{self.process.returncode}, {errors}"

    def stats(self) -> dict[str, Any]:
        """Read the simulator's counts."""
        counts: dict[str, Any] = self.control.get("/stats").raise_for_status().json()
        return counts

    def positions(self) -> list[dict[str, Any]]:
        """Read what the simulator's accounts hold."""
        held: list[dict[str, Any]] = self.control.get("/positions").raise_for_status().json()
        return held

    def lines(self) -> int:
        """Return the number of lines in use, 0 while the simulator does not answer."""
        with suppress(httpx.TransportError):
            lines: int = self.stats()["lines_in_use"]
            return lines
        return 0

    def post(self, action: str, **arguments: Any) -> Any:
        """Make the simulator do something, and return its result."""
        answer = self.control.post(f"/{action}", json=arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def table(self, name: str) -> pl.DataFrame:
        """Read a whole table, as any program can."""
        return pl.read_delta(str(self.lake / name))

    def updates(self) -> pl.DataFrame:
        return self.table("position_updates")

    def latest(self, conid: int) -> dict[str, Any] | None:
        """Return the newest row of a conid, None before there is one."""
        rows = pl.scan_delta(str(self.lake / "position_updates")).filter(pl.col("conid") == conid)
        newest = rows.sort("timestamp").tail(1).collect()
        return newest.row(0, named=True) if newest.height else None

    def graphql(self, query: str, **variables: Any) -> Any:
        """Query the server of the UI."""
        return query_ui(self.ui_port, query, **variables)

    def partitions(self, asset: str) -> list[str]:
        """List the partitions that the UI offers for an asset, oldest first."""
        answer = self.graphql(
            """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
                 ... on AssetNode { partitionKeys } } }""",
            key={"path": [asset]},
        )
        keys: list[str] = answer["assetNodeOrError"]["partitionKeys"]
        return keys

    def processes(self) -> list[psutil.Process]:
        """List all living processes of this home."""
        return processes_of(self.home)

    def wait_until_gone(self) -> None:
        """Wait until no process of this home runs."""

        def gone() -> bool:
            self.process.poll()
            return not self.processes()

        wait_for("no process is left", gone, within_s=GONE_S, poll_s=0.05)

    def ended_without_a_trace(self) -> None:
        """Wait until no process is left; each table is whole then."""
        self.wait_until_gone()
        assert_tables_are_whole(self.lake)

    def close(self) -> None:
        """End all processes, in whatever state they are."""
        end_all(self.process, self.home)
        if self._reader is not None:
            self._reader.join(LIMIT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.control.close()


class SharedHome:
    """A home whose demo runs on from test to test until one of them ends it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._demo: Demo | None = None

    def running(self) -> Demo:
        """Return the demo that runs here; start one if none does."""
        if self._demo is None or self._demo.process.poll() is not None:
            return self.start()
        return self._demo

    def start(self, *arguments: str, terminal: int | None = None) -> Demo:
        """Start a demo here, which carries on from the tables of the one before."""
        self.end()
        self._demo = Demo(self.path, *arguments, terminal=terminal)
        return self._demo

    def end(self) -> None:
        """End the demo that runs here."""
        if self._demo is not None:
            self._demo.close()
            self._demo = None


class Terminal:
    """A terminal that a person watches while the demo of a home runs on it."""

    def __init__(self, home: SharedHome) -> None:
        self._home = home
        self._demo: Demo | None = None
        self._shown: list[bytes] = []
        self._keyboard: int | None = None
        self._reader: threading.Thread | None = None

    def running(self) -> Demo:
        """Return the demo that runs on it; start one if none does."""
        if self._demo is None or self._demo.process.poll() is not None:
            person, program = os.openpty()  # the side that a person sees, and the program's side
            self._demo = self._home.start(terminal=program)
            os.close(program)
            self._shown.clear()
            self._keyboard = person
            self._reader = threading.Thread(target=self._watch, args=(person,))
            self._reader.start()
        return self._demo

    def interrupt(self) -> None:
        """Type Ctrl-C."""
        assert self._keyboard is not None, "no demo was started"
        os.write(self._keyboard, b"\x03")

    def shown(self) -> bytes:
        """Return what was written to it."""
        return b"".join(self._shown)

    def close(self) -> None:
        """Wait until nothing can be written to it: the demo has ended."""
        if self._reader is not None:
            self._reader.join(LIMIT_S)

    def _watch(self, person: int) -> None:
        with open(person, "rb", buffering=0) as screen, suppress(OSError):
            while text := screen.read(65536):
                self._shown.append(text)


def assert_tables_are_whole(lake: Path) -> None:
    """Read each table completely: no file is missing, and no commit is half-written."""
    tables = [path.parent for path in lake.glob("*/_delta_log")]
    assert {"active_strategies", "position_queue", "position_updates"} <= {t.name for t in tables}
    for path in tables:
        assert DeltaTable(str(path)).version() >= 0
        pl.read_delta(str(path))
    written = pl.read_delta(str(lake / "position_updates"))
    assert written["update_id"].is_unique().all(), "an update was written twice"
