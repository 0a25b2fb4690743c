"""One large computation at a time: whoever asks for more waits in a short queue, or is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from position_sync_dagster.errors import BusyError

# What takes fewer prices of legs than this is computed at once, beside all others.
SMALL_LEG_POINTS = 5_000

# How many large computations wait for the one that runs: a risk page asks for up to five at once.
MOST_WAITING = 8


class Turns:
    """The order in which large computations of a process run."""

    def __init__(self) -> None:
        self._places = BoundedSemaphore(1 + MOST_WAITING)
        self._turn = Lock()

    @contextmanager
    def of(self, leg_points: int) -> Iterator[None]:
        """Wait until a computation may run, and keep others waiting while it does; blocks.

        Args:
            leg_points: How many prices of legs it takes.

        Raises:
            BusyError: Too many wait already.
        """
        if leg_points < SMALL_LEG_POINTS:
            yield
            return

        if not self._places.acquire(blocking=False):
            raise BusyError(
                f"{MOST_WAITING} large computations wait already.", remedy="Ask again later."
            )
        try:
            with self._turn:
                yield
        finally:
            self._places.release()
