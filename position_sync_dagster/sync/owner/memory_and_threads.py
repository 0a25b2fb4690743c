"""Process settings of an owner: garbage collection, memory, native threads, pauses after commits.

Freed memory is returned to the system, and garbage collections are rare. If commits are slow, they
are made less often and become larger.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RETURN_EVERY_S = 60.0

YOUNG_THRESHOLD, OLDER_THRESHOLDS = 10_000, 20
"""Thresholds for `gc.set_threshold`: of the youngest generation, and of the two older ones. With
the default (700 and 10; from Python 3.13 on 2,000 and 10) a collection runs with each message."""

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
    nothing is valued.
    """
    gc.set_threshold(YOUNG_THRESHOLD, OLDER_THRESHOLDS, OLDER_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*_USUAL)


@contextmanager
def exempt_from_collection() -> Iterator[None]:
    """Exclude objects that the block creates from Python's garbage collection (`gc.freeze`).

    Collections over imported modules take a sixth of the time of a short command. They also write
    to each object, so that a forked process copies memory that it would otherwise share.
    """
    with rare_garbage_collection():
        try:
            yield
        finally:
            gc.freeze()


VARIABLES = ("POLARS_MAX_THREADS", "TOKIO_WORKER_THREADS")
"""Environment variables with the thread counts of Polars and of Delta Lake; the default is the
number of processors. Each library reads its own once, when it is first used."""


@contextmanager
def one_native_thread_each() -> Iterator[None]:
    """Limit Polars and Delta Lake to one thread each; no effect once they have been used.

    A stream writes a hundred rows a second. With several threads, up to a fifth of the processor
    time of such a commit is overhead between them, and each has its own memory. A variable that is
    already set is kept.
    """
    added = [name for name in VARIABLES if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


SHORT_REST, SHORT_REST_S = 6.0, 4.0
"""Pause after a commit, as a multiple of its duration, and the maximum: a writer commits for a
seventh of the time at most. In an object store a commit costs requests, and its readers one more
for each file; a row is at most 5 s late for it. A changed position does not wait."""

LONG_REST, LONG_REST_S = 3.0, 10.0
"""The same where commits take longer: a writer commits for at most a quarter of the time, and the
other writers get their turn."""


def rest_s(took_s: float) -> float:
    """Return the pause of a writer after a commit of this duration, in seconds.

    On a local disk a commit takes milliseconds, and the pause is not noticed.

    >>> rest_s(0.02), rest_s(0.5), rest_s(0.9), rest_s(2.0), rest_s(60.0)
    (0.12, 3.0, 4.0, 6.0, 10.0)
    """
    short, long = min(SHORT_REST * took_s, SHORT_REST_S), min(LONG_REST * took_s, LONG_REST_S)
    return max(short, long)
