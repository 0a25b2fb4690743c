"""Start, await and kill the processes of the races."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("lake_worker.py")


class Worker:
    """One process; it waits at its start until `go`, so that several begin together."""

    def __init__(self, work: str, lake: Path, **arguments: Any) -> None:
        command = [sys.executable, "-W", "ignore", str(SCRIPT), work, str(lake)]
        self.process = subprocess.Popen(
            [*command, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self, timeout_s: float = 60) -> Any:
        out, _ = self.process.communicate(timeout=timeout_s)
        said = json.loads(out)
        assert "error" not in said, said["error"]
        return said["result"]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


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
