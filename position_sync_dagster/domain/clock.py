"""Time, as an argument."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Anything that gives the present moment as an aware UTC datetime."""


SKEW = timedelta(minutes=5)
"""Clocks differ by less. A stamp that lies further ahead was written by a clock that was wrong, or
before this one was set back: it binds nobody, and tells no age."""


def utc_now() -> datetime:
    """Give the present moment, aware, in UTC."""
    return datetime.now(UTC)
