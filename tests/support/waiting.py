"""Waiting for a condition with a deadline."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

# Only a hang reaches it; on a busy machine `patience` times as long.
DEADLINE_S = 120.0

POLL_S = 0.02
LONGEST_PAUSE_S = 2.0


def patience() -> float:
    """Return how many times as long as on a quiet machine something may take at present.

    Beside twenty others a program has a tenth of a processor: what begins in half a minute takes
    five.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


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
    first = time.monotonic()
    while True:
        began = time.monotonic()
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        waited_s = time.monotonic() - first
        late = waited_s >= DEADLINE_S * patience()
        assert not late, f"did not happen within {waited_s:.0f} s: {condition}; {told()}"
        await asyncio.sleep(pause_s(began))
