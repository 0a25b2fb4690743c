"""How programs end: a child process with its group, and the request that this process stops.

The stop signals are blocked, and read by `check` and `pause`: a blocked signal waits until it is
read. Signal handlers would leave gaps: before a handler is installed and after it is removed,
SIGINT raises KeyboardInterrupt. The same happens during a query of polars, which installs a SIGINT
handler of its own when it is imported.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import BinaryIO, Self

import psutil

from position_sync_dagster.errors import PositionSyncError

# Seconds between two looks: at processes that end, and for a request to stop.
EXIT_POLL_S = 0.05
PAUSE_S = 0.2

# The environment variable that each process of a home carries: the absolute path of the home of
# Dagster in it.
MARKER = "POSITION_SYNC_LAUNCHED_FROM"

# A log file that has become larger is begun anew: a program may run for months.
MOST_LOG_BYTES = 32 * 1024 * 1024

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ChildEndedError(PositionSyncError):
    """A program that should run has ended.

    See its log, which the message names.
    """


class ChildProcess:
    """A program that leads a process group; all of the group ends with it.

    Args:
        name: The name of the program in messages.
        command: The program and its arguments.
        env: The whole environment.
        cwd: The working directory.
        log: The file for the program's output, which `check` begins anew once it is large. The one
            before is kept beside it. None leaves the output on this terminal.
        grace_s: Seconds from the request to end until what still runs is killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path | None = None,
        grace_s: float,
    ) -> None:
        self.name = name
        self.log = log
        self._grace_s = grace_s
        with open_log(log) if log else nullcontext() as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                command,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id, which is also that of the group."""
        return self._process.pid

    def check(self) -> None:
        """Raise an error if the program has ended.

        Raises:
            ChildEndedError: The program has ended. The message shows the end of its output.
        """
        code = self._process.poll()
        if code is None:
            with suppress(OSError):  # a full disk, or there is no file
                if self.log is not None and self.log.stat().st_size > MOST_LOG_BYTES:
                    shutil.copyfile(self.log, before(self.log))
                    os.truncate(self.log, 0)  # the programs that write to it have it open
            return

        text = f"{self.name} has ended with code {code}."
        remedy = "See its output above."
        tail = self.tail()
        if self.log is not None:
            remedy = f"See {self.log}."
            if not self.log.exists():
                tail = f"{self.log.parent} was deleted or moved, or its disk is away."

        if tail:
            text += f" Its last output:\n{tail}\n"
        raise ChildEndedError(text, remedy=remedy)

    def tail(self, lines: int = 8) -> str:
        """Return the last lines of the log, without colours."""
        if self.log is None or not self.log.exists():
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(COLOUR.sub("", text).splitlines()[-lines:])

    def stop(self) -> None:
        """Request the end of the program, and kill what remains of its group after the grace."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace_s)
        end_group(self.pid, grace_s=0.0 if self._process.returncode == 0 else self._grace_s)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def end_group(group: int, *, grace_s: float) -> None:
    """Interrupt each other process of a group, and kill those that still run after a time."""
    end(lambda process: os.getpgid(process.pid) == group, grace_s=grace_s)


def end(belongs: Callable[[psutil.Process], bool], *, grace_s: float) -> None:
    """Interrupt processes once, and kill those that still run after a time.

    Args:
        belongs: Whether a process is one of them.
        grace_s: That time, in seconds.
    """
    deadline = time.monotonic() + grace_s
    interrupted = set[psutil.Process]()
    while remaining := set(living(belongs)):
        late = time.monotonic() >= deadline
        for process in remaining if late else remaining - interrupted:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if late else signal.SIGINT)
        interrupted |= remaining
        time.sleep(EXIT_POLL_S)


def living(belongs: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """List the living processes that belong, without this one and without zombies."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            is_chosen = process.pid != os.getpid() and belongs(process)
            if is_chosen and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def open_log(log: Path) -> BinaryIO:
    """Open an empty log file. An existing one is renamed to `<name>.previous.<suffix>` before."""
    if log.exists():
        log.replace(before(log))
    return log.open("ab")  # at the end, also after it was begun anew


def before(log: Path) -> Path:
    """Return where the log before is kept."""
    return log.with_name(f"{log.stem}.previous{log.suffix}")


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REASONS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "asked to end",
    signal.SIGHUP: "the terminal was closed",
}


class StopRequested(Exception):
    """The process shall stop.

    Attributes:
        reason: The cause, for a message.
        exit_code: The exit code for work that was stopped before its end: 128 + n for signal n,
            as a shell shows it, else 1.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


def block_stop_signals() -> None:
    """Block the stop signals until this process ends; `StopRequest` reads them.

    Call it in the main thread before other threads start. Threads inherit what is blocked, and a
    thread that does not block a signal receives it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


class StopRequest:
    """Raises `StopRequested` after a stop signal or the parent's end, where the work asks for it.

    Signals that arrive later stay blocked, so that nothing interrupts the end of the work.

    Args:
        end_with: A process id. When it is no longer the parent of this process, stop.
    """

    def __init__(self, *, end_with: int | None = None) -> None:
        self._end_with = end_with
        self._request: StopRequested | None = None

    def check(self) -> None:
        """Raise if this process shall stop.

        Raises:
            StopRequested: A stop signal has arrived, or the parent has ended.
        """
        # `sigtimedwait` would wait for them. After a stop of the process (Ctrl-Z), CPython returns
        # any number from it if its time is over, also that of SIGINT; and macOS does not have it.
        if self._request is None and (pending := signal.sigpending().intersection(STOP_SIGNALS)):
            received = signal.Signals(signal.sigwait(pending))
            self._request = StopRequested(REASONS[received], 128 + received)
        elif self._request is None and self._end_with not in (None, os.getppid()):
            self._request = StopRequested("the process that started this one is gone", 1)
        if self._request is not None:
            raise self._request

    def pause(self, seconds: float) -> None:
        """Wait for a time; end the wait early with an exception if this process shall stop.

        Raises:
            StopRequested: A stop signal has arrived, or the parent has ended.
        """
        deadline = time.monotonic() + seconds
        self.check()
        while (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, PAUSE_S))
            self.check()
