"""Trading days beside a day."""

from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.money.trading_days import (
    closed_day_note,
    day_began,
    session_before,
    session_of,
)
from position_sync_dagster.sync.exchange_days import day_of


def test_the_session_before_a_day_is_the_last_one():
    """A weekend, Good Friday, and the week of September 2001."""
    for day in (date(2026, 3, 7), date(2026, 3, 8), date(2026, 3, 9)):
        assert session_before("XNYS", day) == date(2026, 3, 6)
    assert session_before("XNYS", date(2026, 4, 6)) == date(2026, 4, 2)
    assert session_before("XNYS", date(2001, 9, 17)) == date(2001, 9, 10)


@pytest.mark.parametrize(
    ("calendar", "today", "began"),
    [
        ("XNYS", date(2026, 3, 9), datetime(2026, 3, 9, 4, tzinfo=UTC)),
        ("XHKG", date(2026, 3, 10), datetime(2026, 3, 9, 16, tzinfo=UTC)),
    ],
)
def test_today_is_the_day_of_the_exchange_and_began_at_its_midnight(calendar, today, began):
    now = datetime(2026, 3, 10, 2, 0, tzinfo=UTC)
    assert day_of(calendar, now) == today
    assert day_began(calendar, now) == began


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_of_a_day_that_no_calendar_lists_yet_nothing_is_said():
    """Of London a year ahead is listed, of New York all years."""
    now = datetime.now(UTC)
    to_saturday = (5 - now.weekday()) % 7 or 7
    for calendar in ("XNYS", "XLON"):
        assert "no trading day" in str(closed_day_note(calendar, now, to_saturday))
    assert closed_day_note("XLON", now, to_saturday + 70 * 7) is None
    assert "no trading day" in str(closed_day_note("XNYS", now, to_saturday + 70 * 7))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_day_belongs_to_its_session_or_to_the_next_one():
    """Good Friday 2026, New Year's Eve, and a Golden Week, the longest of all."""
    assert session_of("XNYS", date(2026, 4, 2)) == date(2026, 4, 2)
    assert session_of("XNYS", date(2026, 4, 3)) == date(2026, 4, 6)
    assert session_of("XNYS", date(2027, 1, 1)) == date(2027, 1, 4)
    assert session_of("XSHG", date(2025, 10, 1)) == date(2025, 10, 9)
