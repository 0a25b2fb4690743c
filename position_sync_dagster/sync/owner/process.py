"""What an owner does with its process: memory, native threads, and the rest after a slow commit.

What is free goes back to the system, and Python's garbage collector looks less often. Where commits
are slow, they are fewer and larger.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RETURN_EVERY_S = 60.0

FIRST_LOOK, NEXT_LOOKS = 10_000, 20
"""Thresholds of Python's garbage collector (`gc.set_threshold`): of the youngest objects, and of
the older ones. With the default (700 and 10; from Python 3.13 on 2,000 and 10) it runs with each
message."""

_USUAL = gc.get_threshold()


def return_freed_memory() -> None:
    """Return to the system what is free, in milliseconds; does nothing without glibc.

    All rows of a large account that are published or queued at once take tens of megabytes for a
    moment. glibc gives back only what lies at the end of its memory.
    """
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def few_looks_for_cycles() -> Iterator[None]:
    """Run Python's garbage collector seldom while the block runs.

    Holdings form no cycles, and a collection over those of a large account takes a quarter of a
    second, in which nothing is valued.
    """
    gc.set_threshold(FIRST_LOOK, NEXT_LOOKS, NEXT_LOOKS)
    try:
        yield
    finally:
        gc.set_threshold(*_USUAL)


@contextmanager
def kept_for_good() -> Iterator[None]:
    """Exclude what the block loads from Python's garbage collection (`gc.freeze`).

    Collections over what is imported take a sixth of the time of a short command. They also write
    to each object, so that a forked process copies memory that it would share.
    """
    with few_looks_for_cycles():
        try:
            yield
        finally:
            gc.freeze()


VARIABLES = ("POLARS_MAX_THREADS", "TOKIO_WORKER_THREADS")
"""How many threads Polars and Delta Lake have; by default as many as there are processors. Each
reads its own before it works for the first time in a process, and never again."""


@contextmanager
def one_native_thread_each() -> Iterator[None]:
    """Limit Polars and Delta Lake to one thread each, if they have not begun to work.

    A stream writes a hundred rows a second. With several threads, up to a fifth of the processor
    time of such a commit goes into handing its parts from one to another, and each has its own
    memory. A number that the environment has already is kept.
    """
    added = [name for name in VARIABLES if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


REST = 3.0
"""A writer commits for at most a quarter of the time, so that the others get their turn."""

LONGEST_REST_S = 10.0

VALUES_REST = 9.0
"""The same for values that a later commit replaces: a tenth of the time."""


def rest_s(took_s: float, rest: float = REST) -> float:
    """Return how long a writer rests after a commit of this duration, in seconds.

    On a local disk a commit takes milliseconds, and nobody sees the rest.

    >>> rest_s(0.02), rest_s(0.5), rest_s(60.0)
    (0.06, 1.5, 10.0)
    """
    return min(rest * took_s, LONGEST_REST_S)
