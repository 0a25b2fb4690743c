"""Where each contract test runs, and a clock that the test sets."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from position_sync_dagster.domain.queue_request import RetryPolicy
from position_sync_dagster.lake.position_queue import PositionQueue
from tests.support.clock import HandClock
from tests.support.extent import EVERYTHING


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


POLICY = RetryPolicy(max_attempts=3, base_delay_s=10.0, max_delay_s=15.0, jitter=0.0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on a queue on a disk, and some (`in_store`) in a store."""
    if "make_queue" in metafunc.fixturenames:
        stored = EVERYTHING or metafunc.definition.get_closest_marker("in_store")
        metafunc.parametrize("make_queue", ["disk", "store"] if stored else ["disk"], indirect=True)


@pytest.fixture
def make_queue(
    request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock
) -> Callable[[], PositionQueue]:
    """Return a function that opens the queue of the test."""
    path = tmp_path / "q"
    if request.param == "store":
        path = request.getfixturevalue("store").lake() + "/q"
    return lambda: PositionQueue(path, retry=POLICY, clock=clock, random=Random(1), fsync=False)


@pytest.fixture
async def queue(make_queue: Callable[[], PositionQueue]) -> PositionQueue:
    made = make_queue()
    await made.initialize()
    return made
