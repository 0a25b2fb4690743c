"""A child: one program under a keeper, as its owner sees it."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from position_sync_dagster.errors import PositionSyncError

KILL_MARGIN_S = 2.0
"""How long past its grace time the keeper itself may take before it is killed."""


class ChildEndedError(PositionSyncError):
    """A program that should run has ended."""


def open_log(log: Path) -> BinaryIO:
    """Open an empty log file; what it held goes to the same name with `.previous`."""
    if log.exists():
        log.replace(log.with_name(f"{log.stem}.previous{log.suffix}"))
    return log.open("wb")


class ChildProcess:
    """A program started under a keeper; it ends with its owner, however that one ends.

    Args:
        name: For messages.
        command: Program and arguments.
        env: The whole environment.
        cwd: Working directory.
        log: File that takes its output, the one before kept beside it; None leaves the output
            on this terminal.
        grace_s: Seconds between the interrupt and the kill.
        inherited_fds: File descriptors that stay open until the program has ended: the lock of a
            home,
            or the pipe of another child, which then ends after this one.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path | None = None,
        grace_s: float = 3.5,
        inherited_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self.grace_s = grace_s
        owner_fd, self.pipe_fd = os.pipe()
        self._pipe_open = True
        reaper = [sys.executable, "-m", "position_sync_dagster.processes.reaper"]
        reaper += ["--owner-fd", str(owner_fd), "--grace-s", str(grace_s), "--", *command]
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
        """Give the keeper's process id, which leads the child's session."""
        return self._reaper.pid

    @property
    def running(self) -> bool:
        """Tell whether the program (or its keeper, ending it) still runs."""
        return self._reaper.poll() is None

    def check(self) -> None:
        """Raise if the program has ended.

        Raises:
            ChildEndedError: It has; the message shows the end of its output.
        """
        if self.running:
            return
        tail = self.tail()
        raise ChildEndedError(
            f"{self.name} has ended with code {self._reaper.returncode}."
            + (f" Its last words:\n{tail}\n" if tail else ""),
            remedy=f"See {self.log}." if self.log else "See its output above.",
        )

    def tail(self, lines: int = 8) -> str:
        """Give the end of the log."""
        if self.log is None or not self.log.exists():
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def request_end(self) -> None:
        """Ask the keeper to end everything; return at once."""
        if self._pipe_open:
            self._pipe_open = False
            os.close(self.pipe_fd)

    def stop(self) -> float:
        """End the program and all that came from it; give the seconds that it took."""
        started = time.monotonic()
        self.request_end()
        try:
            self._reaper.wait(self.grace_s + KILL_MARGIN_S)
        except subprocess.TimeoutExpired:
            self._reaper.kill()
            self._reaper.wait()
        return time.monotonic() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
