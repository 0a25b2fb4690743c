"""Actions that a gateway runs later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# How often an action that waits for the end of a pause looks again.
PAUSE_POLL_S = 0.1

Action = Callable[[], None]


class Timers:
    """Runs actions later in the running event loop, until it is closed."""

    def __init__(self, paused: Callable[[], bool]) -> None:
        self._paused = paused
        self._handles: set[asyncio.TimerHandle] = set()
        self._closed = False

    def call_later(self, delay_s: float, action: Action) -> None:
        """Run an action after `delay_s`, unless the timers are closed by then."""
        if self._closed:
            return

        def run() -> None:
            self._handles.discard(handle)
            action()

        handle = asyncio.get_running_loop().call_later(delay_s, run)
        self._handles.add(handle)

    def call_later_unpaused(self, delay_s: float, action: Action) -> None:
        """Run an action after `delay_s`; during a pause, wait for the end of the pause."""

        def run() -> None:
            if self._paused():
                self.call_later(PAUSE_POLL_S, run)
            else:
                action()

        self.call_later(delay_s, run)

    def close(self) -> None:
        """Cancel the actions that wait, and accept no more."""
        self._closed = True
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()
