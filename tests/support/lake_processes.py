"""Start, await and kill the processes of the races."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.forked_workers import nursery

MODULE = "tests.support.lake_worker"


class Worker:
    """One process; it waits at its start until `go`, so that several begin together."""

    def __init__(self, work: str, lake: Path, **arguments: Any) -> None:
        self._child = nursery(MODULE).start(work, str(lake), arguments)

    def go(self) -> None:
        self._child.go()

    def result(self) -> Any:
        said = json.loads(self._child.said())
        assert "error" not in said, said["error"]
        return said["result"]

    def dies(self) -> bool:
        """Wait for its end; tell whether it came without a result."""
        return self._child.said() == ""

    def kill(self) -> None:
        self._child.kill()


@contextmanager
def workers(*some: Worker) -> Iterator[list[Worker]]:
    """Let workers begin together, and leave none behind."""
    try:
        for worker in some:
            worker.go()
        yield list(some)
    finally:
        for worker in some:
            worker.kill()


def together(*some: Worker) -> list[Any]:
    """Run workers at once and give their results."""
    with workers(*some) as running:
        return [worker.result() for worker in running]
