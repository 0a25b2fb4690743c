"""The threads in which blocking work of the lake runs, apart from the event loop."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

# A few are enough: Delta work waits for the disk, and each table serves one call at a time.
_LAKE_THREADS = 4

_pool = ThreadPoolExecutor(max_workers=_LAKE_THREADS, thread_name_prefix="lake")


async def offload(work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking work in the lake's threads and return its result.

    If the caller is cancelled, the work goes on: a commit that has begun is still made.
    """
    return await asyncio.get_running_loop().run_in_executor(_pool, partial(work, *args, **kwargs))


# The calls of `together` that run at once, in threads of their own.
_AT_ONCE = 8


def together(work: Callable[[S], R], arguments: Iterable[S]) -> list[R]:
    """Run blocking work for each item, up to eight at once, and wait for all of it.

    If a call fails, calls that have not begun are skipped, and running calls are awaited.
    """
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="together") as pool:
        return list(pool.map(work, arguments))


def offloaded(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return the asyncio form of a blocking call, for an object with the blocking one as `sync`.

    Arguments, result and errors are the same.
    """

    @wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await offload(getattr(self.sync, method.__name__), *args, **kwargs)

    return call
