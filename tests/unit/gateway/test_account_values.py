"""When an account without current values is requested again, and how its times are read."""

from datetime import UTC, datetime, timedelta, timezone
from random import Random

import pytest

from position_sync_dagster.gateway.account_feed import AGAIN, AccountValues, moment_of

LASTS_S = 180.0


@pytest.fixture
def account():
    return AccountValues(LASTS_S, Random(1))


def test_a_download_without_its_end_is_tried_again_later_and_later(account):
    waits = []
    for _ in range(6):
        account.end(1000.0, "why")
        waits.append(account.again_at_s - 1000.0)
    assert waits == sorted(waits)
    assert AGAIN.first_s <= waits[0] <= AGAIN.first_s * 1.2
    assert waits[-1] >= AGAIN.longest_s
    assert (account.problem, account.is_whole) == ("why", False)


def test_a_subscription_that_lasted_is_requested_again_at_once_and_a_short_one_later(account):
    account.complete(0.0, stays_open=True)
    assert account.is_whole
    account.end(LASTS_S, "silent")
    assert account.again_at_s == LASTS_S
    account.begin()
    account.complete(LASTS_S, stays_open=True)
    assert (account.again_at_s, account.problem) == (float("inf"), None)
    account.end(LASTS_S * 1.5, "silent")
    assert account.again_at_s >= LASTS_S * 1.5 + AGAIN.first_s


def test_what_became_due_during_a_download_is_due_after_it(account):
    account.begin()
    account.again_at_s = 1.0
    account.complete(2.0, stays_open=False)
    assert account.again_at_s == 1.0


def test_a_whole_download_of_several_accounts_ends_the_failures(account):
    account.end(0.0, "why")
    account.complete(1.0, stays_open=False)
    assert (account.failures, account.problem) == (0, None)


NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("15:29", NOW - timedelta(minutes=1)),
        ("15:31", NOW),  # a gateway's clock may run ahead a little
        ("09:30", NOW - timedelta(hours=6)),
        ("09:29", None),
        ("16:30", None),  # our clock is an hour behind: yesterday's 16:30 would be a guess
        ("25:00", None),
        ("", None),
        ("12", None),
    ],
)
def test_a_time_of_day_is_the_newest_such_moment_if_that_is_plausible(text, moment):
    assert moment_of(text, now=NOW, zone=UTC) == moment


def test_a_time_of_day_is_read_in_its_zone():
    zone = timezone(timedelta(hours=-5))
    assert moment_of("10:15", now=NOW, zone=zone) == NOW - timedelta(minutes=15)
