"""Waits of the event loop that end early, and the end of tasks."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def wait_for_first(
    events: Iterable[asyncio.Event], *tasks: asyncio.Task[None], timeout_s: float | None = None
) -> None:
    """Wait until an event is set, a task has ended, or the time is over.

    With Python 3.11 `asyncio.wait_for` may swallow the cancellation of its caller.
    """
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait({*waits, *tasks}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def run_until(
    work: Coroutine[Any, Any, None], *until: asyncio.Event, grace_s: float = 0.0
) -> None:
    """Run a coroutine, and cancel it after an event is set: it may wait for the gateway.

    Args:
        grace_s: The time that it has left then to end by itself, in seconds.
    """
    task = asyncio.create_task(work)
    try:
        await wait_for_first(until, task)
        await asyncio.wait({task}, timeout=grace_s)
        if task.done():
            task.result()
    finally:
        await end_tasks(task)


async def end_tasks(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
