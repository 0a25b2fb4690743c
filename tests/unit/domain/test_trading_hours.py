"""Whether a session is open, by the hours that the broker lists."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from position_sync_dagster.domain.exchange_time import parse_trading_hours
from tests.support.extent import examples

ZONES = ("US/Eastern", "US/Central", "Europe/Berlin", "Asia/Tokyo", "UTC")
TWO_DAYS = "20260406:0930-20260406:1600;20260407:0930-20260407:1600"


@st.composite
def listings(draw):
    """Draw days in order, each closed or with sessions that do not overlap."""
    first = draw(st.dates(date(2020, 1, 1), date(2030, 1, 1)))
    zone = ZoneInfo(draw(st.sampled_from(ZONES)))
    text = []
    sessions = []
    count = draw(st.integers(1, 6))

    for n in range(count):
        day = first + timedelta(days=n)
        # No clock is set between 4:00 and midnight.
        times = draw(st.lists(st.integers(4 * 60, 23 * 60 + 59), max_size=6, unique=True))
        pairs = list(zip(*[iter(sorted(times))] * 2, strict=False))
        stamp = f"{day:%Y%m%d}"
        shown = []

        for pair in pairs:
            opens, closes = (
                datetime(day.year, day.month, day.day, m // 60, m % 60, tzinfo=zone) for m in pair
            )
            sessions.append((opens, closes))
            shown.append(f"{stamp}:{opens:%H%M}-{stamp}:{closes:%H%M}")
        text.append(",".join(shown) if shown else f"{stamp}:CLOSED")

    begins = datetime(first.year, first.month, first.day, tzinfo=zone)
    last = first + timedelta(days=count)
    return ";".join(text), zone.key, sessions, begins, datetime(*last.timetuple()[:3], tzinfo=zone)


@given(listings(), st.integers(-24 * 60, 8 * 24 * 60))
def test_a_session_is_open_exactly_while_it_is_listed(listing, minutes):
    text, zone, sessions, begins, ends = listing
    now = begins.astimezone(UTC) + timedelta(minutes=minutes)
    hours = parse_trading_hours(text, zone)
    listed = begins <= now < ends
    expected = None
    if listed:
        expected = any(a <= now < b for a, b in sessions)

    assert hours.is_open(now) is expected


@settings(max_examples=examples(40))
@given(st.text(alphabet="0123456789:-;,CLOSED ", max_size=60), st.text(max_size=20))
def test_text_that_is_no_hours_is_not_known_and_raises_nothing(text, zone):
    for name in (zone, "US/Eastern"):
        hours = parse_trading_hours(text, name)
        assert hours is None or hours.begins < hours.ends


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        (None, "US/Eastern"),
        ("", "US/Eastern"),
        (TWO_DAYS, None),
        (TWO_DAYS, "Mars/Olympus"),
        (TWO_DAYS, "../etc"),
        (TWO_DAYS, "MST (Mountain Standard Time)"),
        (TWO_DAYS + ";20260408", "US/Eastern"),
        ("20260431:CLOSED", "US/Eastern"),
        ("20260406:0930-1600", "US/Eastern"),
        ("20260406:2560-20260406:2600", "US/Eastern"),
    ],
)
def test_hours_without_a_sure_zone_or_in_another_form_are_not_known(text, zone):
    assert parse_trading_hours(text, zone) is None


def test_a_session_may_begin_the_day_before_and_end_at_midnight():
    overnight = parse_trading_hours("20260405:1700-20260406:1600", "US/Central")
    assert overnight.is_open(datetime(2026, 4, 6, 3, tzinfo=UTC)) is True
    midnights = "20260405:0000-20260406:0000;20260406:0000-20260406:2400"
    clock = parse_trading_hours(midnights, "UTC")
    assert clock.is_open(datetime(2026, 4, 6, tzinfo=UTC)) is True
    assert clock.is_open(datetime(2026, 4, 6, 23, 59, tzinfo=UTC)) is True
