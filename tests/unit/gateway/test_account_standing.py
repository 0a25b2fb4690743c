"""When an account without current values is requested again, by a clock that the test moves."""

from random import Random

import pytest

from position_sync_dagster.gateway.account_downloads import AGAIN, AccountStanding

A, B = "DU1", "DU2"
LASTS_S = 180.0


class Standing:
    def __init__(self):
        self.now = 1000.0
        self.accounts = AccountStanding(
            lasts_s=LASTS_S, random=Random(1), monotonic=lambda: self.now
        )

    def wait_s(self):
        """Move the clock to when an account is overdue, and return how long that took."""
        start = self.now
        while not self.accounts.overdue:
            self.now += 0.5
        return self.now - start


@pytest.fixture
def standing():
    return Standing()


def test_an_account_is_whole_from_the_end_of_its_download_to_the_next_request(standing):
    accounts = standing.accounts
    assert not accounts.is_whole(None)
    accounts.complete(A, stays_open=True)
    assert accounts.is_whole(A)
    assert not accounts.is_whole(B)
    accounts.begin(A)
    assert not accounts.is_whole(A)
    assert accounts.overdue == []


def test_a_download_without_its_end_is_tried_again_later_and_later(standing):
    waits = []
    for _ in range(5):
        standing.accounts.fail(A, "why")
        waits.append(standing.wait_s())
    assert waits == sorted(waits)
    assert AGAIN.first_s <= waits[0] <= AGAIN.first_s * 1.2 + 1
    assert waits[-1] <= AGAIN.longest_s
    assert standing.accounts.problems == ["account DU1: why"]


def test_a_subscription_that_lasted_is_requested_again_at_once_and_a_short_one_later(standing):
    standing.accounts.complete(A, stays_open=True)
    standing.now += LASTS_S
    standing.accounts.end(A, "silent")
    assert standing.accounts.overdue == [A]
    standing.accounts.complete(A, stays_open=True)
    assert (standing.accounts.overdue, standing.accounts.problems) == ([], [])
    standing.now += LASTS_S / 2
    standing.accounts.end(A, "silent")
    assert standing.accounts.overdue == []
    assert standing.wait_s() >= AGAIN.first_s


def test_after_a_restore_nobody_waits_any_more(standing):
    standing.accounts.fail(A, "why")
    assert standing.accounts.overdue == []
    standing.accounts.retry_now()
    assert standing.accounts.overdue == [A]


def test_a_whole_download_of_several_accounts_ends_the_failures(standing):
    standing.accounts.fail(A, "why")
    standing.accounts.complete(A, stays_open=False)
    assert not standing.accounts.has_failed(A)
    assert standing.accounts.problems == []


def test_a_dropped_subscription_leaves_nothing_whole_and_nothing_due(standing):
    standing.accounts.complete(A, stays_open=True)
    standing.accounts.fail(B, "why")
    standing.now += 3600
    standing.accounts.invalidate()
    assert not standing.accounts.is_whole(A)
    assert (standing.accounts.overdue, standing.accounts.problems) == ([], [])
