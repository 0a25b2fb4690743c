"""A program that is started again when it ends or hangs, within a limit.

It is asked every two seconds whether it works. One that hangs is killed. One that cannot be kept
running ends its supervisor, with the reason: how it ended, and the last lines that it wrote.
"""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import TextIO

import psutil

from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.processes.process_tree import descendants

ASK_S = 2.0
"""Seconds between two questions whether a program works, and the longest wait for the answer."""

REFUSED_S = 3.0
"""A program that answers with an error, or refuses to, is lost after this time."""

HANG_S = 15.0
"""A program that has answered and does not any more hangs after this time."""

START_S = 180.0
"""The longest time from a program's start to its first answer, as Dagster allows it."""

LAST_LINES_S = 1.0
"""How long the last lines of a program that has ended are waited for."""

RESTART = Backoff(first_s=0.5, longest_s=30.0)
MOST_FAILURES = 5
"""Everything ends when a program has failed more often than this in a row before it worked."""

MOST_RESTARTS, WITHIN_S = 30, 600.0
"""Everything ends when a program is started again more often than this within this time."""

logger = logging.getLogger("position_sync_dagster.supervisor")


class Answer(Enum):
    """What a program answers to the question whether it works."""

    YES = "yes"
    NONE = "none"
    ERROR = "error"


class CannotRunError(Exception):
    """A program cannot be kept running; the text says which and why."""


class Program:
    """A program that is started again when it ends or hangs.

    Args:
        name: As in `last_work`.
        module: The module and its arguments.
        ask: Asks it whether it works.
        lost: What an `ERROR` as its answer means.
        whole: Whether its child processes end with it. The daemon's do not: they are the runs.
    """

    def __init__(
        self,
        name: str,
        *module: str,
        ask: Callable[[], Answer],
        lost: str = "does not work any more",
        whole: bool = True,
    ) -> None:
        self.name = name
        self.process: subprocess.Popen[str] | None = None
        self.answered: float | None = None
        self.trouble = ""
        self._module = module
        self._ask = ask
        self._lost = lost
        self._whole = whole
        self._children: list[psutil.Process] = []
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
        """Start it."""
        self._started, self.answered, self._children = time.monotonic(), None, []
        self.process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [sys.executable, "-m", *self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._tail.clear()
        output = self.process.stdout
        assert output is not None  # noqa: S101 - it is a pipe
        self._follower = threading.Thread(target=follow, args=(output, self._tail), daemon=True)
        self._follower.start()

    def say(self, text: str) -> None:
        """Write its one line to its standard input, once; one that has ended is noticed."""
        to = self.process.stdin if self.process is not None else None
        if to is not None and not to.closed:
            with suppress(OSError), to:
                to.write(f"{text}\n")

    def forgive(self) -> None:
        """Ask it anew: the time since its last answer passed while nobody could ask."""
        now = time.monotonic()
        self._started = now
        self.answered = None if self.answered is None else now

    def look(self) -> bool:
        """Start it if that is due, and look whether it works; return whether it was started.

        Raises:
            CannotRunError: It has failed too often.
        """
        now = time.monotonic()
        if self.process is None:
            if now >= self._due:
                self.start()
            return self.process is not None
        code = self.process.poll()
        if code is not None:
            self._failed(describe_end(code), code)
            return False
        if now < self._next_question:
            return False
        if self._whole:
            self._children = descendants(self.process.pid)
        answer = self._ask()
        self._next_question = time.monotonic() + ASK_S
        if answer is Answer.YES:
            if self.trouble:
                logger.info("The %s works again.", self.name)
            self.answered, self.trouble, self._ever_answered = time.monotonic(), "", True
            return False
        silent_s = now - (self.answered or self._started)
        patience_s = REFUSED_S if answer is Answer.ERROR else HANG_S
        if silent_s > (patience_s if self.answered else START_S):
            if answer is Answer.ERROR and self.answered:
                text = self._lost
            else:
                text = f"has not answered for {silent_s:.0f} s"
            self._failed(text)
        return False

    def end_at_once(self) -> None:
        """Kill it, and what came from it unless that outlives it."""
        if self.process is not None:
            for child in self._children:
                with suppress(psutil.NoSuchProcess):  # a number that is another's now is left alone
                    child.kill()
            self.process.kill()
            self.process.wait()
            if self.process.stdin is not None:
                self.process.stdin.close()
            self.process, self.answered, self._children = None, None, []

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
        logger.error("%s. It is started again.", self.trouble)


def follow(output: TextIO, tail: deque[str]) -> None:
    """Write each line of a program to this program's output, and keep the last ones."""
    with suppress(ValueError, OSError), output:
        for line in output:
            tail.append(line.rstrip())
            sys.stdout.write(line)
            sys.stdout.flush()


def describe_end(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"was killed by signal {-code}"
