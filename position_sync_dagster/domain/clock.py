"""Time as an argument, and how far two clocks may differ; pure."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

# The time of what has not happened yet, or was always so.
NEVER = datetime.min.replace(tzinfo=UTC)

# Anything that returns the present moment as an aware UTC datetime.
Clock = Callable[[], datetime]

# The largest difference between two correct clocks. A time further in the future comes from a
# wrong clock, or from before this clock was set back: nothing waits for it, and no age is computed
# from it.
SKEW = timedelta(minutes=5)


def utc_now() -> datetime:
    """Return the present moment as an aware UTC datetime."""
    return datetime.now(UTC)


def elapsed(since: datetime, now: datetime) -> timedelta:
    """Return how long ago a time was, for what waits until a span is over.

    A time ahead of now, from before the clock was set back, counts as so long ago: the wait never
    lasts longer than its span.
    """
    return abs(now - since)


def seconds_since(at: datetime | None, now: datetime) -> float | None:
    """Return the seconds since a time, at least 0; None if it is unknown."""
    return None if at is None else max((now - at).total_seconds(), 0.0)


def has_come(at: datetime, now: datetime, longest: timedelta) -> bool:
    """Return whether a planned time is here.

    A time further ahead than any plan is from before the clock was set back, and is here.

    Args:
        longest: The longest time for which anything is planned.
    """
    return not now < at <= now + longest
