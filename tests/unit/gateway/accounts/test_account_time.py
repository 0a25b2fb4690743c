"""The account feed's times of day: read as moments, and given to the rows before them."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import combinations, product
from zoneinfo import ZoneInfo

import pytest

from position_sync_dagster.gateway.accounts.account_downloads import (
    CLOSING_AGE,
    OFFSETS,
    RowTimes,
    moment_of,
    zone_of_closing,
)

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("15:29", NOW - timedelta(minutes=1)),
        ("15:31", NOW),  # a gateway's clock may run ahead a little
        ("09:30", NOW - timedelta(hours=6)),
        ("09:29", None),
        ("16:30", None),  # our clock is an hour behind: yesterday's 16:30 would be a guess
        ("00:00", None),
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


ZONES = [
    "America/New_York",
    "America/St_Johns",
    "Pacific/Marquesas",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Eucla",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
]


@pytest.mark.parametrize("name", ZONES)
def test_the_zone_of_a_gateway_is_inferred_wherever_it_is(name):
    for month, hour in product((1, 7), (0, 9, 15, 23)):
        now = datetime(2026, month, 14, hour, 30, 40, tzinfo=UTC)
        told = now - timedelta(minutes=3)
        zone = zone_of_closing(f"{told.astimezone(ZoneInfo(name)):%H:%M}", now=now)
        row = now - timedelta(hours=2)
        read = moment_of(f"{row.astimezone(ZoneInfo(name)):%H:%M}", now=now, zone=zone)
        assert row - read < timedelta(minutes=1), (month, hour)


def test_no_two_zones_are_so_near_that_one_closing_time_fits_both():
    nearest = min(
        min(abs(one - other), timedelta(days=1) - abs(one - other))
        for one, other in combinations(OFFSETS, 2)
    )
    assert nearest > CLOSING_AGE + timedelta(minutes=3)


def test_a_closing_time_that_is_not_about_now_in_any_zone_shows_no_zone():
    known = {
        minutes
        for minutes in range(24 * 60)
        if zone_of_closing(f"{minutes // 60:02}:{minutes % 60:02}", now=NOW) is not None
    }
    assert len(known) < 24 * 60 * 0.3
    assert zone_of_closing("15:10", now=NOW) is None
    assert zone_of_closing("9.30", now=NOW) is None


A, B, C = ("DU1", 1), ("DU1", 2), ("DU1", 3)


@pytest.fixture
def dated():
    return {}


@pytest.fixture
def times(dated):
    return RowTimes(dated.__setitem__, clock=lambda: NOW)


def download(times, *rows, closing):
    times.start()
    for key, text in rows:
        times.on_row(key)
        times.on_time(text)
    times.on_time(closing)


def test_the_rows_of_a_download_are_dated_at_its_end(times, dated):
    download(times, (A, "15:20"), (B, "11:10"), closing="15:29")
    assert dated == {}
    times.date_rows()
    assert dated == {A: NOW - timedelta(minutes=10), B: NOW - timedelta(hours=4, minutes=20)}


def test_a_download_whose_closing_time_is_not_now_in_any_zone_dates_no_row(times, dated):
    download(times, (A, "15:20"), closing="13:07")
    times.date_rows()
    assert dated == {}


def test_a_later_row_is_dated_at_once(times, dated):
    download(times, closing="15:29")
    times.follow()
    times.on_row(A)
    times.on_time("15:28")
    times.on_time("15:29")
    assert dated == {A: NOW - timedelta(minutes=2)}


def test_one_closing_time_in_another_zone_is_not_believed(times, dated):
    download(times, (A, "20:50"), closing="20:58")
    times.date_rows()
    assert dated == {}


def test_a_closing_time_that_does_not_move_is_old_and_shows_no_zone(times, dated):
    for _ in range(3):
        download(times, (A, "20:50"), closing="20:58")
        times.date_rows()
    assert dated == {}


def test_rows_are_dated_in_the_zone_that_the_ends_of_two_downloads_showed(times, dated):
    download(times, closing="20:57")
    times.date_rows()
    download(times, (A, "20:50"), (B, "16:41"), closing="20:58")
    times.date_rows()
    times.follow()
    times.on_row(C)
    times.on_time("20:59")
    assert dated == {
        A: NOW - timedelta(minutes=10),
        B: NOW - timedelta(hours=4, minutes=19),
        C: NOW - timedelta(minutes=1),
    }


def test_a_later_row_alone_shows_no_zone(times, dated):
    download(times, closing="13:07")
    times.date_rows()
    times.follow()
    times.on_row(A)
    times.on_time("20:59")
    assert dated == {}


def test_a_row_after_the_subscription_ended_is_not_dated(times, dated):
    download(times, closing="15:29")
    times.follow()
    times.stop()
    times.on_row(A)
    times.on_time("15:28")
    assert dated == {}


def test_a_new_download_forgets_the_times_of_the_one_before(times, dated):
    download(times, (A, "15:20"), closing="15:29")
    download(times, (B, "15:25"), closing="15:29")
    times.date_rows()
    assert dated == {B: NOW - timedelta(minutes=5)}


@pytest.mark.parametrize(
    ("text", "later", "moment"),
    [
        ("15:29", timedelta(seconds=40), NOW - timedelta(minutes=1)),
        ("15:30", timedelta(seconds=40), NOW),
        ("15:31", timedelta(seconds=40), NOW + timedelta(seconds=40)),  # its clock is ahead
        ("15:31", timedelta(seconds=80), NOW + timedelta(seconds=60)),
        ("15:29", timedelta(days=1), NOW + timedelta(days=1, minutes=-1)),
        ("15:29", timedelta(hours=2), None),
        ("15:29", timedelta(minutes=-30), None),  # our clock was set back
    ],
)
def test_rows_of_one_minute_are_dated_by_the_clock_of_each(dated, text, later, moment):
    now = NOW
    times = RowTimes(dated.__setitem__, clock=lambda: now)
    download(times, closing="15:29")
    times.date_rows()
    times.follow()
    times.on_row(A)
    times.on_time(text)
    now += later
    times.on_row(B)
    times.on_time(text)
    assert dated.get(B) == moment
