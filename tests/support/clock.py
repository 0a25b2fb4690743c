"""A clock that a test sets."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass
class HandClock:
    """A clock that moves only when a test advances it."""

    now: datetime = datetime(2026, 1, 2, 15, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float = 0.0, **more: float) -> None:
        self.now += timedelta(seconds=seconds, **more)
