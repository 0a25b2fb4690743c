"""Start, await and kill the worker processes of the tests on races."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.forked_workers import worker_forker

MODULE = "tests.support.lake_worker"


class Worker:
    """One process; it waits until `begin`, so that several begin together."""

    def __init__(self, work: str, lake: Path | str, **arguments: Any) -> None:
        self._process = worker_forker(MODULE).start(work, str(lake), arguments)
        self.pid = self._process.pid

    def begin(self) -> None:
        self._process.begin()

    def result(self) -> Any:
        answer = json.loads(self._process.output())
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def kill(self) -> str:
        """Kill the process, and return what it has printed."""
        return self._process.kill()


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
