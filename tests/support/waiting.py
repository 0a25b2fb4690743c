"""Waiting for a condition with a deadline."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

# Only a hang reaches it.
DEADLINE_S = 120.0

POLL_S = 0.02
LONGEST_PAUSE_S = 2.0


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
    deadline = time.monotonic() + DEADLINE_S
    while True:
        began = time.monotonic()
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        late = time.monotonic() >= deadline
        assert not late, f"did not happen within {DEADLINE_S:g} s: {condition}; {told()}"
        await asyncio.sleep(pause_s(began))
