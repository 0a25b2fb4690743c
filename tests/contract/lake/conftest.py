"""The implementations that each contract test runs against, and a clock in the test's hand."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from position_sync_dagster.domain.retry import RetryPolicy
from position_sync_dagster.lake.queue.memory import InMemoryPositionQueue
from position_sync_dagster.lake.queue.table import AsyncQueue, PositionQueue


@dataclass
class HandClock:
    """A clock that moves when told."""

    now: datetime = datetime(2026, 1, 2, 15, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


POLICY = RetryPolicy(max_attempts=3, base_delay_s=10.0, max_delay_s=15.0, jitter=0.0)


@pytest.fixture(params=["delta", "memory"])
def make_queue(
    request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock
) -> Callable[[], AsyncQueue]:
    """Give what makes a queue object; a second one over the same rows only for Delta."""

    def make() -> AsyncQueue:
        if request.param == "delta":
            return PositionQueue(tmp_path / "q", retry=POLICY, clock=clock, random=Random(1))
        return InMemoryPositionQueue(retry=POLICY, clock=clock, random=Random(1))

    return make


@pytest.fixture
async def queue(make_queue: Callable[[], AsyncQueue]) -> AsyncQueue:
    made = make_queue()
    await made.initialize()
    return made
