"""The one place where blocking Delta work leaves the event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

_THREADS = 4
"""Delta work is disk-bound and each table serves one call at a time; a few threads suffice."""

_pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="lake")


async def offload(work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking work in the lake's threads and wait for its result.

    A cancelled caller does not stop the work: a commit under way still lands.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool, partial(work, *args, **kwargs))


class Facade(Protocol[S_co]):
    """A table for asyncio, over the same table as plain calls."""

    @property
    def sync(self) -> S_co:
        """Give the table as plain calls."""


def offloaded(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[Facade[S], P], Coroutine[Any, Any, R]]:
    """Make the asyncio form of a plain call: the same arguments, result and errors."""

    @wraps(method)
    async def call(self: Facade[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        work: Callable[P, R] = getattr(self.sync, method.__name__)
        return await offload(work, *args, **kwargs)

    return call
