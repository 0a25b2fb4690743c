"""Start, await and kill the worker processes of the tests on races."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.forked_workers import worker_forker
from tests.support.waiting import DEADLINE_S, POLL_S

MODULE = "tests.support.lake_worker"


class Worker:
    """One process; it waits until `begin`, so that several begin together."""

    def __init__(self, work: str, lake: Path | str, **arguments: Any) -> None:
        self._process = worker_forker(MODULE).start(work, str(lake), arguments)

    def begin(self) -> None:
        self._process.begin()

    def result(self) -> Any:
        answer = json.loads(self._process.output())
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def dies(self) -> bool:
        """Wait for its end; return whether it ended without a result."""
        return self._process.output() == ""

    def wait_until_it_stands_still(self) -> None:
        process, deadline = psutil.Process(self._process.pid), time.monotonic() + DEADLINE_S
        while process.status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline, "the process did not reach the point"
            time.sleep(POLL_S)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()


@contextmanager
def workers(*some: Worker) -> Iterator[list[Worker]]:
    """Start workers at the same time, and end all of them at the end."""
    try:
        for worker in some:
            worker.begin()
        yield list(some)
    finally:
        for worker in some:
            worker.kill()


def together(*some: Worker) -> list[Any]:
    """Run workers at the same time and return their results."""
    with workers(*some) as running:
        return [worker.result() for worker in running]
