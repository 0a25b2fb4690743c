"""The threads in which blocking Delta work runs, apart from the event loop."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

# A few are enough: Delta work waits for the disk, and each table serves one call at a time.
_THREADS = 4

_pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="lake")


async def offload(work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking work in the lake's threads and return its result.

    If the caller is cancelled, the work goes on: a commit that has begun is still made.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool, partial(work, *args, **kwargs))


def begin(work: Callable[[], R]) -> Future[R]:
    """Begin blocking work in the lake's threads; the `result` of the future waits for it."""
    return _pool.submit(work)


# The calls of `together` that run at once, in threads of their own.
_AT_ONCE = 8


def together(work: Callable[[S], R], items: Iterable[S]) -> list[R]:
    """Run blocking work for each item, up to eight at once, and wait for all of it.

    If a call fails, calls that have not begun are skipped, and running calls are awaited.
    """
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="together") as pool:
        return list(pool.map(work, items))


class Facade(Protocol[S_co]):
    """A table for asyncio, over the same table with blocking calls."""

    @property
    def sync(self) -> S_co:
        """The table with blocking calls."""


def offloaded(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[Facade[S], P], Coroutine[Any, Any, R]]:
    """Return the asyncio form of a blocking call: the same arguments, result and errors."""

    @wraps(method)
    async def call(self: Facade[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        work: Callable[P, R] = getattr(self.sync, method.__name__)
        return await offload(work, *args, **kwargs)

    return call
