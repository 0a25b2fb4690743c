"""Time as an argument, and how far two clocks may differ."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Anything that returns the present moment as an aware UTC datetime."""

SKEW = timedelta(minutes=5)
"""The largest difference between two correct clocks. A time further in the future comes from a
wrong clock, or from before this clock was set back: nothing waits for it, and no age is computed
from it."""


def utc_now() -> datetime:
    """Return the present moment as an aware UTC datetime."""
    return datetime.now(UTC)
