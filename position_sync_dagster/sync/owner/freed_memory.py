"""Memory that was freed and that the C library keeps for later: it is given back to the system."""

import ctypes
from contextlib import suppress

RETURN_EVERY_S = 60.0


def return_freed_memory() -> None:
    """Return to the system what is free, in milliseconds; does nothing without glibc.

    All rows of a large account that are published or queued at once take tens of megabytes for a
    moment. glibc gives back only what lies at the end of its memory.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
