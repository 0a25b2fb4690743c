"""Time as an argument, and what a clock that was set back means: the one rule for it.

Within a process the time never goes back: `utc_now` waits out a small step of the machine's clock.
After a larger one nothing that the process holds in memory says how old it is, so a stream ends
(`ClockWatch`) and begins anew. No other code compares times of its own process for that.

A time from a table or a file may come from before such a step, or from another machine. If it lies
ahead by more than `SKEW`, its age is unknown: `is_recent` is false for it. Where an age is shown,
that of any time ahead is 0 (`seconds_since`). What waits until a span is over does not wait on a
time that lies ahead by the span or more (`elapsed`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from position_sync_dagster.errors import ClockSetBackError

A_DAY = timedelta(days=1)

# The time of what has not happened yet, or was always so.
NEVER = datetime.min.replace(tzinfo=UTC)

# Later than every row.
FOREVER = datetime.max.replace(tzinfo=UTC)

# Anything that returns the present moment as an aware UTC datetime.
Clock = Callable[[], datetime]

# The largest difference between two correct clocks.
SKEW = timedelta(minutes=5)

# The largest step back that `utc_now` waits out. Time services make steps of less than a second.
WAITED_OUT = timedelta(seconds=5)


@dataclass(slots=True)
class SteadyClock:
    """The machine's clock, which stands still instead of going back by up to `WAITED_OUT`.

    >>> shown = iter([NEVER + timedelta(seconds=second) for second in (60, 58, 61, 1)])
    >>> clock = SteadyClock(lambda: next(shown))
    >>> [clock().second for _ in range(4)]
    [0, 0, 1, 1]
    """

    machine: Clock
    newest: datetime = NEVER

    def __call__(self) -> datetime:
        """Return the machine's time, or the newest that was returned, if that is a little greater.

        A little is `WAITED_OUT` at most.
        """
        now = self.machine()
        is_back = now < self.newest
        if not is_back or self.newest - now > WAITED_OUT:
            self.newest = now
        return self.newest


_steady = SteadyClock(partial(datetime.now, UTC))


def utc_now() -> datetime:
    """Return the present moment as an aware UTC datetime."""
    return _steady()


@dataclass(slots=True)
class ClockWatch:
    """Notices that a clock was set back while a process holds times in memory."""

    clock: Clock
    newest: datetime = NEVER  # at the last check

    def check(self) -> None:
        """Compare the time with that of the last call.

        Raises:
            ClockSetBackError: It is earlier.
        """
        now = self.clock()
        if now < self.newest:
            lost_s = (self.newest - now).total_seconds()
            raise ClockSetBackError(
                f"The clock of this machine was set back by {lost_s:.0f} s.",
                remedy="The stream begins anew, since nothing says how old its values are. If "
                "that happens again, see to the time service of the machine (NTP).",
            )
        self.newest = now


def elapsed(since: datetime, now: datetime) -> timedelta:
    """Return how long ago a stored time was, for what waits until a span is over.

    A time ahead of now counts as so long ago. If it lies ahead by the span or more, the wait is
    over at once; else it may last up to twice its span.
    """
    return abs(now - since)


def is_recent(at: datetime | None, span: timedelta, now: datetime) -> bool:
    """Return whether a stored time is known, and not longer ago than a span.

    >>> now = datetime(2027, 1, 4, tzinfo=UTC)
    >>> is_recent(now - SKEW, SKEW, now), is_recent(now + 2 * SKEW, SKEW, now)
    (True, False)
    """
    return at is not None and now - span <= at <= now + SKEW


def seconds_since(at: datetime | None, now: datetime) -> float | None:
    """Return the seconds since a time, 0 of any time ahead of now; None if it is not given."""
    if at is None:
        return None

    return max((now - at).total_seconds(), 0.0)
