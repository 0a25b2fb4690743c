"""Logs for repeated faults: one line per outage, or at most one per interval."""

import logging
import time
from collections.abc import Callable
from math import inf


class OutageLog:
    """Logs a fault once, until it changes or ends.

    Attributes:
        fault: The present fault; None if there is none. Set it to None when the outage ends: the
            next fault is logged, even the same one.

    >>> log = OutageLog(logging.getLogger("example"))
    >>> log.report("the disk is full"), log.report("the disk is full")
    (True, False)
    >>> log.fault = None
    >>> log.report("the disk is full", text="no row is written: the disk is full")
    True
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self.fault: str | None = None

    def report(
        self,
        fault: str,
        *,
        text: str | None = None,
        level: int = logging.ERROR,
        error: BaseException | None = None,
    ) -> bool:
        """Log the fault unless it was the last one logged.

        Args:
            fault: The text that is compared with the last fault.
            text: The line; by default the fault itself.
            level: The level of the line.
            error: Its trace is logged too.

        Returns:
            Whether the fault is new.
        """
        if fault == self.fault:
            return False
        self.fault = fault
        self._logger.log(level, "%s", text or fault, exc_info=error)
        return True


class LimitedLog:
    """Logs each kind of event at most once per interval, and counts the lines left out.

    Args:
        logger: Where the lines go.
        every_s: Minimum time between two lines of one kind, in seconds.
        monotonic: The clock of the interval.

    >>> seconds = iter([0.0, 1.0, 61.0])
    >>> log = LimitedLog(logging.getLogger("example"), every_s=60, monotonic=lambda: next(seconds))
    >>> [log.report("garbage", "a message cannot be read") for _ in range(3)]
    [True, False, True]
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        every_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._every_s = every_s
        self._monotonic = monotonic
        # When a line of each kind was logged, and how many were left out since.
        self._kinds: dict[str, tuple[float, int]] = {}

    def report(self, kind: str, text: str) -> bool:
        """Log a warning with the number of suppressed ones, unless one of its kind is too recent.

        Args:
            kind: Lines of one kind share the interval; the text may differ. There must be few
                kinds: each is remembered.
            text: The line.

        Returns:
            Whether the line was logged.
        """
        now_s = self._monotonic()
        logged_s, suppressed = self._kinds.get(kind, (-inf, 0))
        if now_s < logged_s + self._every_s:
            self._kinds[kind] = (logged_s, suppressed + 1)
            return False
        if suppressed:
            text += f"; {suppressed} more since the last such line"
        self._kinds[kind] = (now_s, 0)
        self._logger.warning("%s", text)
        return True
