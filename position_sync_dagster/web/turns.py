"""The turns of questions: so many are answered at once, a few wait, and the next one is refused.

Python computes on one core at a time: what large questions take, small ones lack. Each kind of
question has threads of its own.
"""

import math
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, Semaphore, fail_after, to_thread
from starlette.requests import Request

from position_sync_dagster.errors import PositionSyncError

T = TypeVar("T")

# How long a question waits for its turn. The pages wait 30 s for an answer.
LONGEST_WAIT_S = 10.0

# When to ask again after a refusal: some of those that wait have their answers then.
RETRY_AFTER_S = 5


class BusyError(PositionSyncError):
    """Too many questions wait for an answer.

    Ask again in some seconds, or for less: one strategy or underlying.
    """

    def __init__(self) -> None:
        super().__init__(
            "The server is busy with other large questions.",
            remedy=f"Ask again in {RETRY_AFTER_S} s, or for less: one strategy or underlying.",
        )


class Turns:
    """The threads that answer one kind of question.

    Args:
        threads: How many questions are answered at once.
        most_waiting: How many others wait at most.
    """

    def __init__(self, threads: int, most_waiting: float = math.inf) -> None:
        self._most_waiting = most_waiting
        self._turns = Semaphore(threads)
        self._threads = CapacityLimiter(threads)

    async def take(self, request: Request, work: Callable[[], T]) -> T:
        """Return what a function returns in one of the threads, when it is its turn.

        Nothing is computed for somebody who has gone meanwhile.

        Raises:
            BusyError: Too many wait, the turn did not come in time, or nobody waits any more.
        """
        if self._turns.statistics().tasks_waiting >= self._most_waiting:
            raise BusyError

        try:
            with fail_after(LONGEST_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise BusyError from None

        try:
            if await request.is_disconnected():
                raise BusyError
            return await to_thread.run_sync(work, limiter=self._threads)
        finally:
            self._turns.release()
