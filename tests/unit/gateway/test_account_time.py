"""The account feed's times of day: read as moments, and given to the rows before them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from position_sync_dagster.gateway.account_downloads import (
    RowTimes,
    moment_of,
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


def test_times_of_another_zone_date_no_row(times, dated):
    for minute in (57, 58):
        download(times, (A, "20:50"), closing=f"20:{minute}")
        times.date_rows()
    assert dated == {}


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
