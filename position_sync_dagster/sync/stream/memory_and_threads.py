"""Process settings of an owner: garbage collection, memory and native threads.

Freed memory is returned to the system, and garbage collections are rare.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RETURN_EVERY_S = 20.0

# Thresholds for `gc.set_threshold`: of the youngest generation, and of the two older ones. With
# the default (700 and 10; from Python 3.13 on 2,000 and 10) a collection runs with each message.
YOUNG_THRESHOLD, OLDER_THRESHOLDS = 10_000, 20

_USUAL = gc.get_threshold()


def return_freed_memory() -> None:
    """Return freed memory to the system; does nothing without glibc.

    It takes milliseconds. Rows of a large account that are published or queued at once take tens of
    megabytes for a short time, and glibc by itself returns only the end of its heap.
    """
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Raise the thresholds of Python's garbage collector during the block.

    Holdings form no cycles, and a collection over those of a large account takes 0.25 s, in which
    nothing is valued. Those over imported modules take a sixth of the time of a short command.
    """
    gc.set_threshold(YOUNG_THRESHOLD, OLDER_THRESHOLDS, OLDER_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*_USUAL)


# Environment variables with the thread counts of Polars and of Delta Lake, and the number of
# glibc's arenas; the defaults are the number of processors, and eight times that. Each library
# reads its own once, when it is first used.
VARIABLES = ("POLARS_MAX_THREADS", "TOKIO_WORKER_THREADS", "MALLOC_ARENA_MAX")

# Environment variable with the options of jemalloc. Polars and Delta Lake have one jemalloc each.
# They read the variable when they are loaded; Polars puts its own options before those it finds.
ALLOCATOR = "_RJEM_MALLOC_CONF"

# Options for few threads: the default is four arenas for each processor, each with freed memory of
# its own, which is kept for ten seconds (Polars: 0.5) and counts as used by the process until the
# system needs it. Threads of the allocator would not survive the fork of a process that has
# imported both; freed memory is returned by the threads that allocate.
ONE_ARENA = "narenas:1,dirty_decay_ms:500,muzzy_decay_ms:0,background_thread:false"


def limit_native_threads() -> None:
    """Limit Polars and Delta Lake to one thread and arena each, here and in processes to come.

    A stream writes a hundred rows a second; sensors and the live status read a few. With several
    threads, up to a fifth of the processor time for these rows is overhead between the threads, and
    each thread has its own memory. A variable that is already set is kept. It has no effect here on
    a library that has been used.
    """
    options = os.environ.get(ALLOCATOR, "")
    if "narenas" not in options:
        os.environ[ALLOCATOR] = f"{options},{ONE_ARENA}".strip(",")
    for name in VARIABLES:
        os.environ.setdefault(name, "1")
