"""The threads that Polars and Delta Lake start for themselves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

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
