"""Whether the event loop keeps up: a timer that should run often, and how late it is."""

from __future__ import annotations

import asyncio
import math

from ib_gateway_simulator.gateway.timers import Timers

PULSE_S = 0.05


class Pulse:
    """Measures how long the event loop has been busy.

    The simulator reads, prices and writes in one thread. While it sends the rows of a large book,
    or while other programs have the processor, messages wait in its socket.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._due_at = math.inf
        self._late_s = 0.0

    def start(self) -> None:
        """Begin to measure; call this once, in the event loop."""
        now = asyncio.get_running_loop().time()
        self._late_s = max(0.0, now - self._due_at)
        self._due_at = now + PULSE_S
        self._timers.call_later(PULSE_S, self.start)

    def behind_s(self) -> float:
        """Return for how long the pulse has been due, or how late the last one was, in seconds.

        A late pulse can come before the loop reads the messages that waited with it.
        """
        overdue_s = asyncio.get_running_loop().time() - self._due_at
        return max(self._late_s, overdue_s)
