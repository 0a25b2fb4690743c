"""The feed of the money page: figures that all viewers share, read while somebody looks.

The browser asks for what came since its last answer; the server answers when there is something.
No connection stays open: a viewer who stops reading asks no more, and the server keeps nothing for
him. Every viewer gets the same bytes, made once.
"""

import asyncio
import gzip
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.web.served_figures import PageFigures

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPace:
    """How often the figures are read.

    Attributes:
        period_s: They are read once per period; less often if that takes this thread over `share`
            of a core. The threads of Polars, which cannot be told apart, take up to half as much
            again.
        longest_s: Those of a large book are read at least so often: after 15 s the page calls them
            from before.
        wait_s: An answer waits at most this long; the reading ends when nobody has asked for twice
            this time.
    """

    period_s: float = 2.0
    share: float = 0.03
    longest_s: float = 10.0
    wait_s: float = 10.0


PACE = FeedPace()


@dataclass(frozen=True)
class State:
    """The figures after one read: all of them, and what differs from the read before, if any."""

    sequence: int
    rows: Mapping[str, list[Any]]
    figures: Mapping[str, Any]
    changed: bytes | None

    @cached_property
    def whole(self) -> bytes:
        """All figures, for a viewer who has none or an old state."""
        return _packed(self.sequence, [*self.rows.values()], self.figures, all=True)


def next_state(
    before: State | None, sequence: int, rows: dict[str, list[Any]], figures: dict[str, Any]
) -> State:
    """Return the state after a read, with what differs from the state before."""
    if before is None:
        return State(sequence, rows, figures, changed=None)

    changed_rows = [row for key, row in rows.items() if before.rows.get(key) != row]
    gone = [key for key in before.rows if key not in rows]
    changed_figures = {
        name: value for name, value in figures.items() if before.figures.get(name) != value
    }
    return State(
        sequence, rows, figures, _packed(sequence, changed_rows, changed_figures, gone=gone)
    )


def _packed(sequence: int, rows: list[list[Any]], figures: Mapping[str, Any], **more: Any) -> bytes:
    message = {"sequence": sequence, "rows": rows, "figures": figures, **more}
    text = json.dumps(message, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode(), 1, mtime=0)


class Feed:
    """Reads the figures while somebody looks, in a thread, and keeps the newest state.

    Args:
        open_figures: Returns what is read, the same each time.
        more: Figures that stay as they are.
        pace: How often they are read.
    """

    def __init__(
        self,
        open_figures: Callable[[], PageFigures],
        more: Mapping[str, Any],
        pace: FeedPace = PACE,
    ) -> None:
        self._open = open_figures
        self._more = more
        self._pace = pace
        self._state: State | None = None
        self._asked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._newer = asyncio.Event()

    async def after(self, sequence: int) -> bytes | None:
        """Return what came after a state, compressed; None if nothing came in time."""
        self._asked_at = time.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._read_on())

        state = self._state
        if state is None or state.sequence == sequence:
            try:
                await asyncio.wait_for(self._newer.wait(), self._pace.wait_s)
            except TimeoutError:
                return None
            state = self._state

        if state is None:
            return None
        if state.changed is not None and state.sequence == sequence + 1:
            return state.changed
        return state.whole

    def played_back(self, at: datetime, *, curves: bool) -> bytes:
        """Return all figures of a past moment, compressed; blocks.

        Args:
            curves: Whether the curves of the day until then are among them.

        Raises:
            PositionSyncError: They cannot be read.
        """
        now = utc_now()
        of_moment = self._open().played_back(at, now)
        rows, figures = of_moment.read(now)
        if curves:
            figures |= of_moment.curves(now)
        return State(0, rows, {**figures, **self._more, "trouble": None}, changed=None).whole

    async def _read_on(self) -> None:
        pace = self._pace
        while time.monotonic() - self._asked_at < 2 * pace.wait_s:
            began = time.monotonic()
            state, worked_s = await asyncio.to_thread(self._read, self._state)
            self._state = state

            newer = self._newer
            self._newer = asyncio.Event()
            newer.set()
            # What is computed beside the first read is shown as soon as it is there.
            is_full = state.figures.get("decisions") is not None
            period_s = pace.period_s
            if is_full:
                period_s = min(max(period_s, worked_s / pace.share), pace.longest_s)
            await asyncio.sleep(began + period_s - time.monotonic())
        self._state = None  # an old state is not shown as new later

    def _read(self, before: State | None) -> tuple[State, float]:
        """Return the next state, and the processor time that it took in this thread."""
        began = time.thread_time()
        trouble = None
        # The time makes the numbers of two starts of the server differ.
        sequence = before.sequence + 1 if before else round(time.time() * 1000)

        try:
            rows, figures = self._open().read(utc_now())
            figures |= self._more
        except Exception as error:  # the values from before must not look like present ones
            trouble = str(error)
            if not isinstance(error, PositionSyncError):
                logger.exception("The money page could not be read.")
                trouble = f"The tables cannot be read: {type(error).__name__}, {error}."
            rows = dict(before.rows) if before else {}
            figures = dict(before.figures) if before else {}

        state = next_state(before, sequence, rows, figures | {"trouble": trouble})
        return state, time.thread_time() - began
