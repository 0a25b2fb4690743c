"""The supervisor: it starts Dagster's programs, and restarts a program that ends or hangs.

`dagster dev` starts a code server, the webserver and the daemon, accepts no middleware, and ends
when one of them ends. This program starts the same three. It polls each every 2 s, kills one that
hangs, and restarts it. If one cannot be kept running, everything ends, and the log shows how it
ended and its last lines. A stream is no child of these programs and outlives them. If a version of
Dagster lacks a private symbol that the daemon or the webserver needs (`dagster_internals`),
`dagster dev` runs instead.

All three are forked from a process that has imported Dagster. When the UI reloads the code, the
supervisor starts another code server, whose socket takes the place of the former one's once it
answers.

The files of Dagster's storage on SQLite are watched too. If a file is deleted, a program that has
it open continues with the deleted file, and one that opens it later gets an empty file without
tables: each of Dagster's steps then fails.

Run as `python -m position_sync_dagster.dagster_host.services --port N --workspace FILE`, with
DAGSTER_HOME.
"""

import argparse
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn, TextIO

import grpc
import psutil
import yaml
from dotenv import dotenv_values

from position_sync_dagster import dagster_host, last_work, places
from position_sync_dagster.domain.clock import Backoff, utc_now
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.processes.ports import LOOPBACK, exchange_json
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync import alerts

LOOK_S = 0.5
"""Seconds between two checks of all programs."""

ASK_S = 2.0
"""Polling interval of a program, and the time limit of its answer, in seconds."""

REFUSED_S = 3.0
"""Seconds of answers with an error, or of refused connections, after which a program is
restarted."""

HANG_S = 15.0
"""Seconds without an answer after which a program that has answered before hangs."""

START_S = 180.0
"""Time limit from a program's start to its first answer, in seconds, as in Dagster."""

LAST_LINES_S = 1.0
"""Maximum wait for the last lines of an ended program, in seconds."""

RESTART = Backoff(first_s=0.5, longest_s=30.0)
MOST_FAILURES = 5
"""Maximum failures of a program in a row without having worked; after one more, everything ends."""

MOST_RESTARTS, WITHIN_S = 30, 600.0
"""Maximum restarts of a program within this time in seconds; after one more, everything ends."""

TICK_S = 90.0
"""Seconds without a sensor tick after which a daemon hangs, if its sensors have ticked before."""

GRACE_S = 5.0
"""Seconds that the daemon has to end before it is killed."""

NO_FORK_SERVER = 255
"""Exit code of a forked process, for `multiprocessing`, if the fork server has ended."""

ALREADY_S = 1.0
"""Seconds that the daemon has to end by itself before it is interrupted: Ctrl-C usually interrupts
the daemon as well."""

STORAGE = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
"""The files of Dagster's storage on SQLite, in its home."""

MAKE_STORAGE = """
from dagster import DagsterInstance
try:
    with DagsterInstance.get():
        pass
except Exception as error:
    print(error)
    raise SystemExit(1)
"""
"""A program that is run as a separate process, so that the supervisor never imports Dagster."""

OWN = "position_sync_dagster.dagster_host"
DEVELOPMENT = {"DAGSTER_IS_DEV_CLI": "1", "DAGSTER_verbose": ""}
"""Dagster's environment variables of a local deployment, for all its processes."""

logger = logging.getLogger("position_sync_dagster.supervisor")


class ProgramAnswer(Enum):
    """The answer of a program to a poll."""

    YES = "yes"
    NONE = "none"
    ERROR = "error"


class CannotRunError(Exception):
    """A program cannot be kept running; the text says which and why."""


class DagsterLacksError(Exception):
    """Dagster lacks private symbols that one of our programs needs."""


class Program:
    """A program that is restarted when it ends or hangs.

    Args:
        name: The name in `last_work`, and of the process.
        module: The module of which `function` is called, in a process forked for it.
        arguments: The arguments of the function.
        ask: Polls it.
        lost: The meaning of the answer `ERROR`, for the log.
    """

    def __init__(
        self,
        name: str,
        module: str,
        function: str,
        *arguments: Any,
        ask: Callable[[], ProgramAnswer],
        lost: str = "does not work any more",
    ) -> None:
        self.name = name
        self.process: BaseProcess | None = None
        self.answered: float | None = None
        self.trouble = ""
        self._called = (module, function, *arguments)
        self._ask = ask
        self._lost = lost
        self._failures = 0
        self._restarts: list[float] = []
        self._due = self._next_question = self._started = 0.0
        self._ever_answered = False
        self._tail: deque[str] = deque(maxlen=8)

    @property
    def works(self) -> bool:
        """Whether it has answered since its start."""
        return self.answered is not None

    def start(self) -> None:
        """Start it.

        Raises:
            CannotRunError: The process from which it is forked has ended.
        """
        self._started, self.answered = time.monotonic(), None
        processes = dagster_host.process_context()
        reading, writing = os.pipe()
        output = dagster_host.output_to(writing, writing)
        os.close(writing)
        self.process = processes.Process(
            target=dagster_host.run_forked, args=(self.name, output, *self._called)
        )
        self._tail.clear()
        self._follower = threading.Thread(
            target=follow, args=(os.fdopen(reading, errors="replace"), self._tail), daemon=True
        )
        self._follower.start()
        try:
            dagster_host.prepare_processes()
            self.process.start()
            self._running = psutil.Process(self.process.pid)
        except (OSError, EOFError, psutil.NoSuchProcess) as error:
            self.process = None
            raise CannotRunError(f"The {self.name} cannot be started: {error!r}") from error
        finally:
            for one in output:
                one.close()

    def forgive(self) -> None:
        """Reset the time since its last answer, in which this process could not poll."""
        now = time.monotonic()
        self._started = now
        self.answered = None if self.answered is None else now

    def look(self) -> bool:
        """Start it if that is due, and check whether it works; return whether it was started.

        Raises:
            CannotRunError: It has failed too often.
            DagsterLacksError: It cannot run with this version of Dagster.
        """
        now = time.monotonic()
        if self.process is None:
            if now >= self._due:
                self.start()
            return self.process is not None
        code = self.process.exitcode
        if code == dagster_host.LACKING:
            raise DagsterLacksError
        if code is not None:
            self._failed(describe_end(code), code)
            return False
        if now < self._next_question:
            return False
        answer = self._ask()
        self._next_question = time.monotonic() + ASK_S
        if answer is ProgramAnswer.YES:
            if self.trouble:
                logger.info("The %s works again.", self.name)
            self.answered, self.trouble, self._ever_answered = time.monotonic(), "", True
            return False
        silent_s = now - (self.answered or self._started)
        patience_s = REFUSED_S if answer is ProgramAnswer.ERROR else HANG_S
        if silent_s > (patience_s if self.answered else START_S):
            if answer is ProgramAnswer.ERROR and self.answered:
                text = self._lost
            else:
                text = f"has not answered for {silent_s:.0f} s"
            self._failed(text)
        return False

    def end_at_once(self) -> None:
        """Kill it, also if the fork server has ended and cannot say whether it runs."""
        if self.process is not None:
            with suppress(psutil.NoSuchProcess):  # another process may have got the id
                self._running.kill()
                self._running.wait()
            self.process.join()
            self.process, self.answered = None, None

    def _failed(self, what: str, code: int | None = None) -> None:
        now, worked = time.monotonic(), self.works
        pid = self.process.pid if self.process else 0
        self.end_at_once()
        self.trouble = f"The {self.name} (process {pid}) {what}"
        self._failures = 1 if worked else self._failures + 1
        self._restarts = [at for at in self._restarts if now - at < WITHIN_S] + [now]
        hopeless = not self._ever_answered and code is not None and code > 0
        often = len(self._restarts) > MOST_RESTARTS
        if hopeless or often or self._failures > MOST_FAILURES:
            self._follower.join(LAST_LINES_S)
            times = f", the {self._failures}th time in a row" if self._failures > 1 else ""
            if often:
                times = f", after {MOST_RESTARTS} restarts within {WITHIN_S / 60:.0f} minutes"
            tail = "\n".join(f"  {line}" for line in self._tail)
            raise CannotRunError(
                f"{self.trouble}{times}." + (f" Its last output:\n{tail}" if tail else "")
            )
        delay_s = RESTART.delay_s(self._failures)
        self._due = time.monotonic() + delay_s
        logger.error("%s. It is restarted.", self.trouble)


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def follow(output: TextIO, tail: deque[str]) -> None:
    """Copy each line of a program to this program's output, and keep the last ones.

    A file or a pipe, such as the journal of a service, gets no colours.
    """
    coloured = sys.stdout.isatty()
    with suppress(ValueError, OSError), output:
        for read in output:
            line = read if coloured else COLOUR.sub("", read)
            tail.append(line.rstrip())
            sys.stdout.write(line)
            sys.stdout.flush()


def describe_end(code: int) -> str:
    """Return how a process ended, in words."""
    if code == NO_FORK_SERVER:
        return "has lost the process from which it was forked"
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"was killed by signal {-code}"


class StorageFiles:
    """The files of Dagster's storage, held open so that no new file can get the same inode."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self._made = False

    def make(self) -> None:
        """Create missing files, before several programs do so at once, and open all.

        Raises:
            CannotRunError: The storage cannot be used.
        """
        self.close()
        paths = [places.dagster_home() / name for name in STORAGE]
        if self._made or not all(path.exists() for path in paths):
            command = [sys.executable, "-c", MAKE_STORAGE]
            made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command, no shell
            if made.returncode:
                reason = made.stdout.strip() or made.stderr.strip()
                raise CannotRunError(f"Dagster's storage cannot be used: {reason}")
        self._made = True
        self._held = {path: os.open(path, os.O_RDONLY) for path in paths if path.exists()}

    def close(self) -> None:
        """Close the files."""
        for fd in self._held.values():
            os.close(fd)
        self._held = {}

    def lost(self) -> list[str]:
        """Return the files that were deleted or replaced since they were opened."""
        return [path.name for path, fd in self._held.items() if not is_still(path, fd)]


def is_still(path: Path, fd: int) -> bool:
    """Return whether a path still names an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except OSError:
        return False


def ask_code_server(socket: Path) -> ProgramAnswer:
    """Poll the server of the definitions."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        ping = channel.unary_unary("/api.DagsterApi/Ping")  # an empty message is a valid request
        try:
            ping(b"", timeout=ASK_S)
        except grpc.RpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return ProgramAnswer.NONE if late else ProgramAnswer.ERROR
    last_work.note(last_work.CODE_SERVER)
    return ProgramAnswer.YES


def ask_webserver(port: int) -> ProgramAnswer:
    """Poll the webserver with a request for its version."""
    try:
        exchange_json(port, "/server_info", timeout_s=ASK_S)
    except (OSError, ValueError):
        return ProgramAnswer.NONE
    last_work.note(last_work.WEBSERVER)
    return ProgramAnswer.YES


class DaemonSigns:
    """The signs of life of the daemon: changes of its own file and of those of the ticks."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Ignore earlier signs, which are of the previous daemon or from before a suspension.

        Ticks that stop are judged once: until a sensor ticks, all may be switched off.
        """
        self._sign = last_work.changed_at(last_work.DAEMON)
        self._tick = self._last_tick()
        self._ticked: float | None = None

    def _last_tick(self) -> tuple[float | None, ...]:
        return tuple(map(last_work.changed_at, (last_work.SENSORS, last_work.FAILED_TICK)))

    def ask(self) -> ProgramAnswer:
        """Return whether there was a sign since the last call."""
        tick = self._last_tick()
        if tick != self._tick:
            self._tick, self._ticked = tick, time.monotonic()
        sign = last_work.changed_at(last_work.DAEMON)
        if sign == self._sign:
            return ProgramAnswer.NONE
        self._sign = sign
        if self._ticked is not None and time.monotonic() - self._ticked > TICK_S:
            return ProgramAnswer.ERROR
        return ProgramAnswer.YES


ALERTS_LOOK_S = 1.0
LAST_S = 15.0
"""Time limit of the last message, in seconds."""

ERROR = "ERROR"
READ_THE_LOG = "Read Dagster's log, which the program names, and run `position-sync doctor`."


class OutageAlerts:
    """Sends messages about faults of the programs, in its own thread: a receiver may be slow.

    Attributes:
        states: The fault of each program, "" for one that works; the supervisor sets it.
    """

    def __init__(self) -> None:
        self.states: Mapping[str, str] = {}
        self._reason = ""
        self._ended = threading.Event()
        self._cursor = alerts.AlertCursor()
        self._log = OutageLog(logger)
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self, reason: str) -> None:
        """Send the message that everything ends; wait for it at most LAST_S seconds."""
        self._reason = reason
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(LAST_S)

    def _run(self) -> None:
        while not self._ended.wait(ALERTS_LOOK_S):
            self._look()
        self._look()

    def _look(self) -> None:
        states = list(self._checks())
        if all(state.passed for state in states) and not (
            self._cursor.breaks or self._cursor.outbox
        ):
            return
        try:
            settings = load_settings()
        except SettingsError as error:
            self._log.report(f"No message can be sent: {error.what}")
            return
        self._cursor = alerts.follow(
            self._cursor,
            states,
            now=utc_now(),
            after=timedelta(seconds=0 if self._reason else settings.alert_after_s),
            severities=settings.alert_severities,
            receivers=len(settings.alert_urls),
        )
        self._cursor, _sent = alerts.send_due(self._cursor, settings.alert_urls, utc_now)

    def _checks(self) -> Iterator[alerts.CheckState]:
        troubles = {f"Dagster's {program}": trouble for program, trouble in self.states.items()}
        for work in last_work.read().works:
            if work.program == last_work.SENSORS:
                late = f"The last sensor tick was at {work.at:%H:%M:%S} UTC: nothing is drained."
                troubles[f"Dagster's {work.program}"] = late if work.late else ""
        if self._reason:
            troubles = {"Dagster": f"Everything ends, also the stream. {self._reason}"}
        for name, trouble in troubles.items():
            yield alerts.CheckState(
                name=name,
                at=utc_now(),
                passed=not trouble,
                severity=ERROR,
                description=trouble or "It works again.",
                what_to_do=READ_THE_LOG if trouble else "",
            )


class CodeServer(Program):
    """The server of the definitions, at a socket of its own."""

    def __init__(self, socket: Path, location: tuple[str, str], *, anew: bool) -> None:
        super().__init__(
            last_work.CODE_SERVER,
            *(f"{OWN}.daemon", "serve_definitions", str(socket), *location, anew),
            ask=lambda: ask_code_server(socket),
            lost="serves no definitions any more",
        )
        self.socket = socket


class Supervisor:
    """Keeps the code server, the daemon and the webserver running."""

    def __init__(self, *, port: int, workspace: str, folder: Path) -> None:
        socket = folder / "code"
        self._workspace = folder / "workspace.yaml"  # JSON is YAML
        self._location = only_location(workspace)
        self._sockets = (folder / f"code-{number}" for number in itertools.count(1))
        served = {"location_name": self._location[1], "socket": str(socket), "host": "localhost"}
        self._workspace.write_text(json.dumps({"load_from": [{"grpc_server": served}]}))
        self._socket = socket
        self.code_server = self._new_code_server()
        self._successor: CodeServer | None = None
        self._former: CodeServer | None = None
        replace_link(socket, self.code_server.socket)
        self._signs = DaemonSigns()
        self.daemon = Program(
            last_work.DAEMON,
            *(f"{OWN}.daemon", "main", str(self._workspace)),
            ask=self._signs.ask,
            lost=f"has let no sensor tick for {TICK_S:.0f} s",
        )
        self.webserver = Program(
            last_work.WEBSERVER,
            *(f"{OWN}.webserver", "serve", LOOPBACK, port, str(self._workspace)),
            ask=lambda: ask_webserver(port),
        )
        self.alerts = OutageAlerts()
        self._storage = StorageFiles()

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs; after a reload the code server is a new one."""
        return self.daemon, self.code_server, self.webserver

    def _new_code_server(self, *, anew: bool = False) -> CodeServer:
        return CodeServer(next(self._sockets), self._location, anew=anew)

    def run(self) -> None:
        """Start the programs, and keep them running until an interrupt.

        Raises:
            CannotRunError: One of them cannot be kept running.
        """
        dagster_host.prepare_processes()
        self._storage.make()
        self.alerts.start()
        looked = time.monotonic()
        while True:
            if time.monotonic() - looked > HANG_S / 2:  # this process or the machine was suspended
                for program in self.programs:
                    program.forgive()
                self._signs.forget()
            looked = time.monotonic()
            self.look()
            last_work.note(last_work.SUPERVISOR)
            time.sleep(LOOK_S)

    def look(self) -> None:
        """Check the storage and all programs once, and start those that are due.

        Raises:
            CannotRunError: A program cannot be kept running.
        """
        self._look_at_storage()
        self.code_server.look()
        self._look_at_reload()
        for program in (self.daemon, self.webserver):
            due = program.process is not None or self.code_server.works or program.trouble
            if due and program.look() and program is self.daemon:
                self._signs.forget()
        self.alerts.states = {program.name: program.trouble for program in self.programs}

    def _look_at_reload(self) -> None:
        """Start another code server if the present one was asked to reload; replace it by that.

        If it cannot be started, the present one stays.
        """
        asked = dagster_host.reload_request(self.code_server.socket)
        if self.code_server.process is None:  # the client that asked it gets no answer
            asked.unlink(missing_ok=True)
        if not asked.exists():
            if self._successor is not None:
                self._successor.end_at_once()
                self._successor = None
            return
        if self._successor is None:
            self._successor = self._new_code_server(anew=True)
        successor = self._successor
        try:
            successor.look()
        except (CannotRunError, DagsterLacksError) as error:
            logger.error("The code was not loaded anew. %s", error)
            self._successor = None
            asked.write_text(f"The code was not loaded anew. {error}", encoding="utf-8")
            return
        if successor.works:
            if self._former is not None:
                self._former.end_at_once()
            replace_link(self._socket, successor.socket)
            self._former, self.code_server, self._successor = self.code_server, successor, None
            asked.unlink()

    def _look_at_storage(self) -> None:
        lost = self._storage.lost()
        if not lost:
            return
        logger.error(
            "Files of Dagster's storage were deleted or replaced (%s). Dagster is restarted with "
            "the present files. Runs and events of the deleted files are lost; rows are not.",
            ", ".join(lost),
        )
        for program in self.programs:
            program.end_at_once()
        self._storage.make()

    def end(self, reason: str) -> None:
        """Shut the daemon down, which waits for its runs, and kill the other programs."""
        if reason:
            self.alerts.end(reason)
        for program in (self.webserver, self.code_server, self._former, self._successor):
            if program is not None:
                program.end_at_once()
        process = self.daemon.process
        if process is not None:
            process.join(ALREADY_S)
            process.terminate()
            process.join(GRACE_S)
        self.daemon.end_at_once()


def replace_link(link: Path, socket: Path) -> None:
    """Replace the target of a link in one step: a client finds the old or the new target."""
    new = link.with_suffix(".new")
    new.symlink_to(socket)
    new.replace(link)


def only_location(workspace: str) -> tuple[str, str]:
    """Return the module and the name of the only code location in a workspace file."""
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
    reason, lacking = "", False
    with tempfile.TemporaryDirectory() as folder:
        try:
            supervisor = Supervisor(port=port, workspace=workspace, folder=Path(folder))
            supervisor.run()
        except KeyboardInterrupt:
            pass
        except CannotRunError as error:
            reason = str(error)
        except DagsterLacksError:
            lacking = True
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if supervisor is not None:
                supervisor.end(reason)
    last_work.clear()
    if lacking:
        run_dagster_dev(port=port, workspace=workspace)
    if reason:
        last_work.note(last_work.ENDED, reason)
        logger.error("Everything ends. %s", reason)
    else:
        logger.info("Everything has ended, as requested.")
    return int(bool(reason))


def run_dagster_dev(*, port: int, workspace: str) -> NoReturn:
    """Replace this process by `dagster dev`, which needs no private symbol."""
    logger.error("`dagster dev` runs instead, without the guard of its web page.")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", workspace]
    os.execv(sys.executable, [*command, "--host", LOOPBACK, "--port", str(port)])  # noqa: S606


def variables_of_the_folder() -> dict[str, str]:
    """Return the variables of `.env` in the working directory, as Dagster's programs read it."""
    return {name: value for name, value in dotenv_values(".env").items() if value is not None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the programs."""
    parser = argparse.ArgumentParser(
        prog="services", description="Run Dagster's code server, webserver and daemon."
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
