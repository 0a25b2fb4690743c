"""The one place where blocking Delta work leaves the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_THREADS = 4
"""Delta work is disk-bound and each table serves one call at a time; a few threads suffice."""

_pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="lake")


async def offload(work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking work in the lake's threads and wait for its result.

    A cancelled caller does not stop the work: a commit under way still lands.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool, partial(work, *args, **kwargs))
