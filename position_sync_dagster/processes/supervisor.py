"""The supervisor: it runs Dagster's three programs and restarts one that ends or stops working.

It starts what a deployment starts: the code server (`dagster api grpc`), the daemon and the
webserver. A sensor ticks every few seconds and each tick writes a file of the Dagster home
(`dagster_files`): without ticks the code server and the daemon are started again, whichever of them
hangs, unless a person switched the sensor off. When the clock was set back, Dagster would wait for
the stored times of its sensors' ticks: they are removed before (`sensor_states.py`).

Runs are processes of their own and outlive both. All share one process group, which ends with this
program, and this program ends with the process that started it.

Run as `python -m position_sync_dagster.processes.supervisor PORT OWNER`, with DAGSTER_HOME.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from position_sync_dagster import dagster_files
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.money.reports.signs_of_life import changed_at
from position_sync_dagster.processes.child_process import MARKER, ChildProcess, end_group, living
from position_sync_dagster.processes.ports import LOOPBACK, first_free, is_listener

# Seconds between two looks at the programs.
SUPERVISION_S = 0.5

RESTART_DELAYS = Backoff(first_s=0.5, longest_s=30.0)
# Ends of a program in a row after which everything ends, the stream too; fewer if it has never
# worked. While Dagster's storage is away the daemon ends at each start, for about an hour.
MOST_FAILURES = 100
MOST_AT_FIRST = 2

# A program that worked this long has no failures any more.
STEADY_S = 60.0

# Seconds without a tick after which code server and daemon are started again. It doubles each
# time.
TICK_LIMIT_S = 90.0
LONGEST_TICK_S = 900.0

# The webserver starts with the first tick, or this long after the daemon: the first stream would
# otherwise wait for its imports, and both would create Dagster's storage at once.
FIRST_TICK_WAIT_S = 10.0

# Seconds that the programs and runs have to end: a stream gives its lease up.
STOP_GRACE_S = 15.0

# The longest path of a Unix socket in bytes; a home that is deeper is served at a port, and so is
# one with a "#" in its path: gRPC reads the path of a socket as a part of an address.
LONGEST_SOCKET = 100

# Seconds without a home after which everything ends.
GONE_S = 30.0

# The program that reads and mends what Dagster stores of sensors, and how long it may take.
SENSOR_STATES = "position_sync_dagster.processes.sensor_states"
PROGRAM_ANSWER_S = 60.0

LOCATION = "position_sync_dagster"
logger = logging.getLogger("position_sync_dagster.supervisor")


def clear() -> None:
    """Remove the files of `dagster_files` at a regular end."""
    with suppress(OSError):
        for file in dagster_files.file_of(dagster_files.WORKED_TICK).parent.iterdir():
            file.unlink(missing_ok=True)


def remove(name: str) -> None:
    """Remove one of them, if it is there."""
    with suppress(OSError):
        dagster_files.file_of(name).unlink()


def newest_tick() -> tuple[float | None, float | None]:
    """Return what changes with each tick, whether or not it did its work."""
    return changed_at(dagster_files.WORKED_TICK), changed_at(dagster_files.FAILED_TICK)


class CannotRunError(Exception):
    """A program cannot be kept running; the text says which and why."""


# A Unix socket, or a host and a port.
Address = str | tuple[str, int]


class Program:
    """A program that is started again when it ends.

    Args:
        name: Its name in the log.
        script: A script beside this Python, or `python` itself.
        options: Its options in one text, and `words` further ones, which may have spaces.
        address: Where it listens.

    Attributes:
        works: Whether it has worked since its last start.
        started: When it was started last.
        delays: The delays before it is started again, by its failures in a row.
        most_failures: After more of them everything ends, if it has ever worked.
    """

    def __init__(
        self, name: str, script: str, options: str, *words: str, address: Address | None = None
    ) -> None:
        self.name = name
        self.address = address
        self.process: subprocess.Popen[bytes] | None = None
        self.works = self._has_worked = False
        self.started = self._due = 0.0
        program = Path(sys.executable)
        if script != "python":
            program = program.with_name(script)
        self._command = [str(program), *options.split(), *words]
        self._failures = 0
        self.delays = RESTART_DELAYS
        self.most_failures = MOST_FAILURES

    def keep(self) -> None:
        """Start it if it is due; note its end.

        Raises:
            CannotRunError: It has ended too often.
        """
        if self.process is None:
            if time.monotonic() >= self._due:
                self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)  # noqa: S603
                self.started = time.monotonic()
        elif (code := self.process.poll()) is not None:
            if code >= 0:
                self.restart(f"ended with exit code {code}{self._taken()}")
            else:
                self.restart(f"was killed by signal {-code}")

    def _taken(self) -> str:
        """Return what to do if another program listens where this one, which has ended, did."""
        if not isinstance(self.address, tuple) or not listens(self.address):
            return ""
        return (
            f", since another program listens at port {self.address[1]} (end that one, or choose "
            "another port with --ui-port; make: UI_PORT=)"
        )

    def serves(self) -> bool:
        """Return whether it listens at its address itself: another program may have its port."""
        if self.process is None or self.address is None:
            return False
        if isinstance(self.address, str):
            return listens(self.address)
        return is_listener(self.process.pid, self.address[1])

    def worked(self) -> None:
        """Record that it works."""
        if self._failures and not self.works:
            logger.info("The %s works again.", self.name)
        self.works = self._has_worked = True
        remove(f"{dagster_files.DOWN}{self.name}")

    def restart(self, why: str, *, has_failed: bool = True) -> None:
        """Kill it, and start it again after a delay that grows with its failures.

        Raises:
            CannotRunError: It has ended too often.
        """
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        text = f"The {self.name} (process {self.process.pid}) {why}"

        is_steady = self.works and time.monotonic() - self.started > STEADY_S
        if has_failed:
            self._failures = 1 if is_steady else self._failures + 1
        self.process = None
        self.works = False
        most = self.most_failures if self._has_worked else MOST_AT_FIRST
        if has_failed and self._failures > most:
            raise CannotRunError(f"{text}, {self._failures} times in a row.")

        self._due = time.monotonic() + self.delays.delay_s(self._failures)
        text += ". It is started again."
        logger.error(text)
        if has_failed:
            dagster_files.note(f"{dagster_files.DOWN}{self.name}", text)


def _address_of_code(home: Path, ui_port: int) -> Address:
    """Return where the code server listens: a Unix socket in the home, or a port."""
    path = str(home / "code.sock")
    if len(os.fsencode(path)) > LONGEST_SOCKET or "#" in path:
        return (LOOPBACK, first_free(ui_port + 1))
    return path


def _named_address(address: Address) -> tuple[str, str | int]:
    """Return an address as Dagster's options name it: `socket` or `port`, and its value."""
    if isinstance(address, str):
        return "socket", address
    return "port", address[1]


class Supervisor:
    """The three programs of a home, and how each is judged.

    Attributes:
        tick_s, longest_tick_s: How long no sensor may tick, at first and at most.
        gone_s: How long the home may be away.
    """

    def __init__(self, port: int) -> None:
        home = dagster_files.dagster_home()
        code_address = _address_of_code(home, port)
        workspace = home / "workspace.yaml"
        at, place = _named_address(code_address)
        served = {"host": LOOPBACK, at: place, "location_name": LOCATION}
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": served}]}))  # JSON is YAML

        code = f"api grpc --lazy-load-user-code --log-level warning --host {LOOPBACK}"
        code += f" --module-name {LOCATION}.definitions --location-name {LOCATION}"
        pages = f"-m {LOCATION}.webserver --host {LOOPBACK} --port {port} -w"
        self._workspace = str(workspace)
        self.code_server = Program(
            "code server", "dagster", code, f"--{at}", str(place), address=code_address
        )
        self.daemon = Program(
            "daemon", "dagster-daemon", "run --log-level warning -w", self._workspace
        )
        self.webserver = Program(
            "webserver", "python", pages, self._workspace, address=(LOOPBACK, port)
        )

        self._tick = newest_tick()
        self.tick_s = self._tick_s = TICK_LIMIT_S
        self.longest_tick_s = LONGEST_TICK_S
        self.gone_s = GONE_S
        self._ticked = self._seen = time.monotonic()

    def look(self) -> None:
        """Judge all programs once, and start those that are due.

        Raises:
            CannotRunError: A program cannot be kept running.
        """
        self._judge_home()
        self.code_server.keep()
        for program in (self.code_server, self.webserver):
            if not program.works and program.serves():
                program.worked()
        if self.code_server.works or self.daemon.process:
            self.daemon.keep()
        self._judge_ticks()
        waited_s = time.monotonic() - (self.daemon.started or time.monotonic())
        if self.webserver.process or self.daemon.works or waited_s > FIRST_TICK_WAIT_S:
            self.webserver.keep()

    def _judge_home(self) -> None:
        if os.path.exists(self._workspace):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > self.gone_s:
            raise CannotRunError(
                f"The home {os.path.dirname(self._workspace)} was deleted or moved, or its disk is "
                "away."
            )

    def _judge_ticks(self) -> None:
        now = time.monotonic()
        tick = newest_tick()
        if tick != self._tick:
            self._tick = tick
            self._ticked = now
            self._tick_s = self.tick_s
            self.daemon.worked()
            remove(dagster_files.SWITCHED_OFF)

        silent_s = now - max(self._ticked, self.daemon.started, self.code_server.started)
        if self.code_server.process and silent_s > self._tick_s:
            self._tick_s = min(2 * self._tick_s, self.longest_tick_s)
            if mend_sensor_states():
                logger.info("The sensor drain_queue is switched off: no program is restarted.")
                dagster_files.note(dagster_files.SWITCHED_OFF)
                self._ticked = time.monotonic()
                return

            for program in (self.code_server, self.daemon):
                program.restart(f"has let no sensor tick for {silent_s:.0f} s", has_failed=False)


def mend_sensor_states(module: str = SENSOR_STATES) -> bool:
    """Remove stored times of ticks that are ahead of the clock.

    Args:
        module: The program that does it.

    Returns:
        Whether a person switched the sensor off that shows whether the programs work.
    """
    try:
        answer = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", module],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROGRAM_ANSWER_S,
            check=True,
        )
        states = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.warning("What Dagster stores of its sensors cannot be read: %s", error)
        return False

    if states["reset"]:
        logger.warning(
            "The clock was set back: %s tick now, and not when it is passed.",
            ", ".join(states["reset"]),
        )
    return bool(states["is_switched_off"])


MODULE = "position_sync_dagster.processes.supervisor"


def start(
    *, env: Mapping[str, str], dagster_home: Path, ui_port: int, cwd: Path, log: Path | None
) -> ChildProcess:
    """Start Dagster on 127.0.0.1 under the supervisor.

    Args:
        env: The whole environment, but for what names the home.
        dagster_home: An absolute path; this process holds its lock.
        log: As for `ChildProcess`.
    """
    return ChildProcess(
        "Dagster",
        [sys.executable, "-m", MODULE, str(ui_port), str(os.getpid())],
        env={
            # glibc keeps memory by arena, several for each processor. Few of the many threads work
            # at a time: with one arena the programs take less memory, and no longer.
            "MALLOC_ARENA_MAX": "1",
            **env,
            "DAGSTER_HOME": str(dagster_home),
            MARKER: os.path.realpath(dagster_home),
        },
        cwd=cwd,
        log=log,
        grace_s=STOP_GRACE_S + 2,
    )


def is_serving(ui_port: int, group: int = 0) -> bool:
    """Return whether the UI accepts connections.

    Args:
        group: The process group of `start`, one of whose programs has to listen there: another
            program may have taken the port since it was free. 0 stands for any program.
    """
    if not listens((LOOPBACK, ui_port)):
        return False
    if not group:
        return True
    ours = living(lambda process: group == os.getpgid(process.pid))
    return any(is_listener(process.pid, ui_port) for process in ours)


def url(ui_port: int) -> str:
    """Return the address of the UI."""
    return f"http://{LOOPBACK}:{ui_port}"


def listens(address: Address) -> bool:
    """Return whether a server accepts connections."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def main() -> int:
    """Keep the programs running until a stop signal, or until the owner has ended.

    Returns:
        The exit code: 1 if a program could not be kept running.
    """
    port, owner = map(int, sys.argv[1:])
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s supervisor: %(message)s",
    )
    stop = threading.Event()
    # A handler of ours becomes the default action in the programs: a shell may have us ignore it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    clear()
    dagster_files.note(dagster_files.SUPERVISOR)
    reason = ""

    try:
        supervisor = Supervisor(port)
        while os.getppid() == owner and not stop.wait(SUPERVISION_S):
            supervisor.look()
    except (CannotRunError, OSError) as error:
        reason = str(error)
        logger.error("Everything ends. %s", reason)

    end_group(os.getpgrp(), grace_s=STOP_GRACE_S)
    clear()
    if reason:
        dagster_files.note(dagster_files.ENDED_FILE, reason)
    else:
        logger.info("Everything has ended, as requested.")

    return int(bool(reason))


if __name__ == "__main__":
    sys.exit(main())
