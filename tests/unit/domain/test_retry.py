"""Retries: how often, and after what delay."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from position_sync_dagster.domain.queue_request import QueueStatus, RetryPolicy, next_attempt

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def decide(attempts, *, retryable=True, jitter=0.0):
    policy = RetryPolicy(max_attempts=4, base_delay_s=5, max_delay_s=12, jitter=jitter)
    return next_attempt(attempts, retryable=retryable, now=NOW, policy=policy, random=Random(1))


def test_the_delay_doubles_up_to_its_bound():
    delays = [(decide(n).available_at - NOW).total_seconds() for n in range(3)]
    assert delays == [5, 10, 12]


def test_the_delay_keeps_to_its_bound_at_any_number_of_attempts():
    policy = RetryPolicy(max_attempts=10**6, jitter=0)
    decided = next_attempt(5_000, retryable=True, now=NOW, policy=policy, random=Random(1))
    assert decided.available_at == NOW + timedelta(seconds=policy.max_delay_s)


def test_a_request_fails_for_good_when_its_attempts_are_used_up():
    assert decide(3).status is QueueStatus.FAILED
    assert decide(3).attempts == 4


def test_a_final_error_is_not_tried_again():
    assert decide(0, retryable=False).status is QueueStatus.FAILED


@pytest.mark.parametrize("attempts", range(3))
def test_jitter_stays_within_its_share(attempts):
    plain = decide(attempts).available_at - NOW
    jittered = decide(attempts, jitter=0.25).available_at - NOW
    assert plain * 0.75 <= jittered <= plain * 1.25 + timedelta(microseconds=1)
    assert jittered != plain
