"""A child process, from the owner's side: one program under a reaper, and its log file."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from position_sync_dagster.errors import PositionSyncError

KILL_MARGIN_S = 2.0
"""Seconds after the grace time in which the reaper must end, before it is killed itself."""

MOST_LOG_BYTES = 32 * 1024 * 1024
"""A log file that has become larger is begun anew: a program may run for months."""


class ChildEndedError(PositionSyncError):
    """A program that should run has ended."""


class ChildProcess:
    """A program under a reaper. It ends when its owner ends, also when the owner is killed.

    Args:
        name: The name of the program in messages.
        command: The program and its arguments.
        env: The whole environment.
        cwd: The working directory.
        log: The file for the program's output, which `check` begins anew once it is large. The one
            before is kept beside it. None leaves the output on this terminal.
        reason: The file in which the program writes why it ends by itself.
        grace_s: Seconds between the interrupt and the kill.
        patience: As for `end_processes`.
        inherited_fds: File descriptors that stay open until the program has ended: the lock of a
            home, or the `pipe_fd` of another child, which then ends after this one.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path | None = None,
        reason: Path | None = None,
        grace_s: float = 3.5,
        patience: tuple[str, float] | None = None,
        inherited_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self.reason = reason
        self.longest_s = max(grace_s, patience[1] if patience else 0.0)
        owner_fd, self.pipe_fd = os.pipe()
        self._pipe_open = True
        reaper = [sys.executable, "-m", "position_sync_dagster.processes.reaper"]
        reaper += ["--owner-fd", str(owner_fd), "--grace-s", str(grace_s)]
        if patience:
            reaper += ["--patient-with", patience[0], "--patience-s", str(patience[1])]
        reaper += ["--", *command]
        output = open_log(log) if log else None
        try:
            self._reaper = subprocess.Popen(  # noqa: S603 - our own module, no shell
                reaper,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                pass_fds=(owner_fd, *inherited_fds),
                start_new_session=True,
            )
        except BaseException:
            os.close(self.pipe_fd)
            raise
        finally:
            os.close(owner_fd)
            if output:
                output.close()

    @property
    def pid(self) -> int:
        """The process id of the reaper, which leads the program's process session."""
        return self._reaper.pid

    @property
    def running(self) -> bool:
        """Whether the program, or the reaper that is ending it, still runs."""
        return self._reaper.poll() is None

    def check(self) -> None:
        """Raise an error if the program has ended.

        Raises:
            ChildEndedError: The program has ended. The message shows the end of its output.
        """
        if self.running:
            if self.log is not None:
                _begin_anew(self.log)
            return
        text = self._why()
        raise ChildEndedError(
            f"{self.name} has ended with code {self._reaper.returncode}.{text}",
            remedy=f"See {self.log}." if self.log else "See its output above.",
        )

    def _why(self) -> str:
        with suppress(OSError):
            if self.reason and (text := self.reason.read_text(encoding="utf-8")):
                return f" {text}\n"
        tail = self.tail()
        return f" Its last output:\n{tail}\n" if tail else ""

    def tail(self, lines: int = 8) -> str:
        """Return the last lines of the log."""
        if self.log is None or not self.log.exists():
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def request_end(self) -> None:
        """Close the pipe, at which the reaper ends everything; return at once."""
        if self._pipe_open:
            self._pipe_open = False
            os.close(self.pipe_fd)

    def stop(self) -> float:
        """End the program and every process that came from it; return the seconds it took."""
        started = time.monotonic()
        self.request_end()
        try:
            self._reaper.wait(self.longest_s + KILL_MARGIN_S)
        except subprocess.TimeoutExpired:
            self._reaper.kill()
            self._reaper.wait()
        return time.monotonic() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def open_log(log: Path) -> BinaryIO:
    """Open an empty log file. An existing one is renamed to `<name>.previous.<suffix>` before."""
    if log.exists():
        log.replace(_previous(log))
    return log.open("ab")  # at the end, also after it was begun anew


def _begin_anew(log: Path) -> None:
    """Copy a large log file and empty it: the programs that write to it have it open."""
    with suppress(OSError):  # a full disk, or the file was deleted
        if log.stat().st_size > MOST_LOG_BYTES:
            shutil.copyfile(log, _previous(log))
            os.truncate(log, 0)


def _previous(log: Path) -> Path:
    return log.with_name(f"{log.stem}.previous{log.suffix}")
