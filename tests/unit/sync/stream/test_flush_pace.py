"""The pace of the flushes: right behind ticks that come in step, and no more often for it."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from position_sync_dagster.sync.stream.delivery import GATHER_S, LONGER, SHORTER, FlushPace

WORK_S = 0.02
"""A flush takes a moment, and the loop wakes a little late."""


def flushes(*, every_s: float, first_at_s: float, lasts_s: float) -> list[tuple[float, float]]:
    """Return when each flush came, and how long its newest tick had waited."""
    pace, now, found = FlushPace(1.0), first_at_s, []
    while now < lasts_s:
        waited_s = now % every_s
        found.append((now, waited_s))
        now += pace.pause_s(waited_s) + WORK_S
    return found


@pytest.mark.parametrize("first_at_s", [0.01, 0.3, 0.55, 0.99])
@pytest.mark.parametrize("every_s", [0.25, 0.5, 1.0])
def test_a_flush_comes_right_behind_ticks_that_come_in_step(every_s: float, first_at_s: float):
    waited = [w for _, w in flushes(every_s=every_s, first_at_s=first_at_s, lasts_s=60.0)]
    assert statistics.median(waited) <= 3 * GATHER_S


@pytest.mark.parametrize("first_at_s", [0.01, 0.3, 0.55, 0.99])
@pytest.mark.parametrize(
    "every_s", [0.1, 0.25, 0.5, 0.53, 0.565, 0.6, 0.7, 0.9, 1.0, 1.3, 2.0, 5.0]
)
def test_flushes_come_once_an_interval_whatever_the_pace_of_the_ticks(every_s, first_at_s):
    found = flushes(every_s=every_s, first_at_s=first_at_s, lasts_s=300.0)
    assert 300 / (1 + LONGER + WORK_S) - 1 <= len(found) <= (1 + SHORTER) * 300 + 1


@given(
    every_s=st.floats(1.0, 1.0 + LONGER),
    ticks=st.integers(1, 4),
    first_at_s=st.floats(0.0, 0.99),
)
def test_flushes_follow_ticks_whose_interval_is_a_little_longer(every_s, ticks, first_at_s):
    found = flushes(every_s=every_s / ticks, first_at_s=first_at_s, lasts_s=120.0)
    waited = [w for _, w in found[5:]]
    assert statistics.quantiles(waited, n=20)[-1] <= 3 * GATHER_S
