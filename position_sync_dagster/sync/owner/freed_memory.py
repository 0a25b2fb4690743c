"""The memory of a process: what is free goes back to the system, and Python's looks for cycles."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RETURN_EVERY_S = 60.0

FIRST_LOOK, NEXT_LOOKS = 10_000, 20
"""Objects that come before Python looks for cycles among them, and how many such looks come before
one at older objects. By default (700 and 10; from Python 3.13 on 2,000 and 10) each message looks
at what the ones before left."""

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
    """Make Python look for unused cycles of objects seldom meanwhile.

    The holdings of an account are in none, and each look at all of a large account takes a quarter
    of a second, in which nothing is valued.
    """
    gc.set_threshold(FIRST_LOOK, NEXT_LOOKS, NEXT_LOOKS)
    try:
        yield
    finally:
        gc.set_threshold(*_USUAL)


@contextmanager
def kept_for_good() -> Iterator[None]:
    """Load what stays until the process ends: Python looks for no cycles among it, also at the end.

    The looks at what is imported are a sixth of the time of a short command. They also write to
    each object, so that a process that is forked copies what it would share.
    """
    with few_looks_for_cycles():
        try:
            yield
        finally:
            gc.freeze()
