"""Waiting for a condition with a deadline."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

# Only a hang reaches it: seconds of a quiet machine.
DEADLINE_S = 120.0

POLL_S = 0.02
LONGEST_PAUSE_S = 2.0


def programs_per_processor() -> float:
    """Return how many programs have shared a processor in the last minute, at least one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Patience:
    """Measures a wait in seconds of a quiet machine.

    Beside twenty others a program has a tenth of a processor: what begins in half a minute takes
    five. Each second counts by the load at that time: others may begin or end during a wait.

    Attributes:
        waited_s: How long was waited, as of the newest call of `is_over`.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        slowdown: Callable[[], float] = programs_per_processor,
    ) -> None:
        self.waited_s = 0.0
        self._clock = clock
        self._slowdown = slowdown
        self._counted_until = clock()

    def is_over(self, limit_s: float) -> bool:
        """Return whether the wait is longer than a limit."""
        now = self._clock()
        self.waited_s += (now - self._counted_until) / self._slowdown()
        self._counted_until = now
        return self.waited_s >= limit_s


def pause_s(began: float, poll_s: float = POLL_S) -> float:
    """Return how long to wait before a condition is checked again.

    It is at least nine times as long as the check took: checks that read tables, or ask Dagster,
    take a tenth of a processor from what they wait for.

    Args:
        began: When the check began, by `time.monotonic`.
        poll_s: The shortest pause.
    """
    return max(poll_s, min(9 * (time.monotonic() - began), LONGEST_PAUSE_S))


async def eventually(condition: Callable[[], Any], told: Callable[[], object] = lambda: "") -> Any:
    """Wait until a condition (plain or async) holds, and return its result.

    Args:
        condition: What must become true.
        told: What there is instead, for the message of the failure.
    """
    patience = Patience()
    while True:
        began = time.monotonic()
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        is_late = patience.is_over(DEADLINE_S)
        assert not is_late, f"did not happen within {DEADLINE_S:.0f} s: {condition}; {told()}"
        await asyncio.sleep(pause_s(began))
