"""The pace of the market: when it opens, and when it takes its steps."""

from __future__ import annotations

import time
from collections.abc import Callable

from ib_gateway_simulator.gateway.timers import Timers

# The market opens at the first tick or profit request, or this long after account data.
OPENING_DELAY_S = 5.0


class MarketClock:
    """Advances the market every `interval_s`, from the first request that sees prices move.

    Two runs with the same requests thereby see the same prices.

    Args:
        timers: Run the steps.
        paused: Whether the gateway is paused; steps during a pause are left out.
        step: Advances the market by one step.
        interval_s: The time from one step to the next.
        enabled: With False the market never steps by itself.
    """

    def __init__(
        self,
        *,
        timers: Timers,
        paused: Callable[[], bool],
        step: Callable[[], None],
        interval_s: float,
        enabled: bool,
    ) -> None:
        self._timers = timers
        self._paused = paused
        self._step = step
        self._interval_s = interval_s
        self._enabled = enabled
        self._open = False
        self._opening = False

    def open(self) -> None:
        """Start the steps; a second call changes nothing."""
        if self._open or not self._enabled:
            return
        self._open = True
        self._timers.call_later(self._interval_s, self._run)

    def open_soon(self) -> None:
        """Start the steps after a while even if no client requests ticks."""
        if not self._opening:
            self._opening = True
            self._timers.call_later(OPENING_DELAY_S, self.open)

    def _run(self) -> None:
        started = time.perf_counter()
        if not self._paused():
            self._step()
        spent_s = time.perf_counter() - started
        self._timers.call_later(max(0.0, self._interval_s - spent_s), self._run)
