"""What every queue is asked to do: a refresh of 180 requests, drained in batches of 50."""

from collections.abc import Sized
from typing import Any, Protocol

from benchmarks.timing import Samples

# Requests of one refresh: the positions of a large account that have no line.
REFRESH = 180

BATCH = 50


class Contestant(Protocol):
    """A queue; a batch is whatever `claim` gives and `mark` takes."""

    def enqueue(self, count: int) -> None:
        """Ask for so many positions."""

    def claim(self, limit: int) -> Sized:
        """Take up to `limit` requests."""

    def mark(self, batch: Any) -> None:
        """End them well."""

    def counts(self) -> object:
        """Count requests by status."""


def drain(queue: Contestant, samples: Samples, *, batches: int = 3, rest: bool = True) -> None:
    """Enqueue a refresh and drain it, timing each step.

    Args:
        batches: Full batches to claim and mark.
        rest: Drain what is left, untimed, so that each refresh meets an empty queue.
    """
    samples.time("enqueue", lambda: queue.enqueue(REFRESH))
    for _ in range(batches):
        batch = samples.time("claim", lambda: queue.claim(BATCH))
        assert len(batch) == BATCH, f"claimed {len(batch)} of {BATCH}"
        samples.time("mark", lambda batch=batch: queue.mark(batch))  # type: ignore[misc]
    samples.time("counts", queue.counts)
    while rest and len(batch := queue.claim(BATCH)):
        queue.mark(batch)
