"""How the times of account values, which name no date and no zone, are read."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from position_sync_dagster.gateway.account_downloads import moment_of

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
