"""Retries: how often, and after what delay."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from position_sync_dagster.domain.queue_request import RetryPolicy, next_attempt

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def decide(failures, *, jitter=0.0):
    policy = RetryPolicy(max_attempts=4, base_delay_s=5, max_delay_s=12, jitter=jitter)
    return next_attempt(failures, now=NOW, policy=policy, random=Random(1))


def test_the_delay_doubles_up_to_its_bound():
    delays = [(decide(n) - NOW).total_seconds() for n in (1, 2, 3)]
    assert delays == [5, 10, 12]


def test_the_delay_keeps_to_its_bound_at_any_number_of_attempts():
    policy = RetryPolicy(max_attempts=10**6, jitter=0)
    again_at = next_attempt(5_000, now=NOW, policy=policy, random=Random(1))
    assert again_at == NOW + timedelta(seconds=policy.max_delay_s)


def test_a_request_fails_for_good_when_its_attempts_are_used_up():
    assert decide(4) is None


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_jitter_stays_within_its_share(failures):
    plain = decide(failures) - NOW
    jittered = decide(failures, jitter=0.25) - NOW
    assert plain * 0.75 <= jittered <= plain * 1.25 + timedelta(microseconds=1)
    assert jittered != plain
