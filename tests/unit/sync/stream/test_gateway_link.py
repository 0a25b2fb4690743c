"""The delay before the next attempt to connect, by a clock that only the test moves."""

from random import Random

import pytest

from position_sync_dagster.sync.stream.gateway_link import RECONNECT, SETTLED_S, ReconnectDelay


class Connecting:
    def __init__(self):
        self.now = 1000.0
        self.delay = ReconnectDelay(random=Random(1), monotonic=lambda: self.now)

    def attempt(self, *, lasts_s=None):
        """Attempt to connect, and return the delay before it."""
        delay_s = self.delay.next_s()
        self.delay.attempted()
        if lasts_s is not None:
            self.delay.connected()
            self.now += lasts_s
        return delay_s


@pytest.fixture
def connecting():
    return Connecting()


def test_the_delay_grows_to_ten_seconds_and_is_jittered():
    random, delay_s = Random(1), RECONNECT.delay_s
    most = [max(delay_s(n, random) for _ in range(200)) for n in range(1, 8)]
    for found, bound_s in zip(most, [2, 4, 8, 10, 10, 10, 10], strict=True):
        assert 0.95 * bound_s < found <= bound_s
    assert len({delay_s(3, random) for _ in range(10)}) == 10


def test_the_first_attempt_has_no_delay_and_each_failure_makes_the_next_longer(connecting):
    first, *others = [connecting.attempt() for _ in range(6)]
    assert first == 0.0
    for delay_s, bound_s in zip(others, [2, 4, 8, 10, 10], strict=True):
        assert bound_s / 2 <= delay_s <= bound_s


def test_connections_that_end_at_once_count_as_failures(connecting):
    assert connecting.attempt(lasts_s=SETTLED_S - 1) == 0.0
    assert connecting.attempt(lasts_s=SETTLED_S - 1) > 0
    assert connecting.attempt(lasts_s=SETTLED_S) > 0
    assert connecting.attempt() == 0.0


def test_a_reset_makes_the_next_attempt_without_a_delay(connecting):
    connecting.attempt()
    connecting.attempt()
    connecting.delay.reset()
    assert connecting.attempt() == 0.0
