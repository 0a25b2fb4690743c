"""Waiting for a condition with a deadline."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 120.0
"""Only a hang reaches it."""

POLL_S = 0.02


async def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until a condition (plain or async) holds, and return its result."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"did not happen within {DEADLINE_S:g} s: {condition}"
        await asyncio.sleep(POLL_S)
