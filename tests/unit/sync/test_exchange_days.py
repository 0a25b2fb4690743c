"""The days of an exchange."""

from datetime import date, time

import pytest

from position_sync_dagster.errors import SettingsError
from position_sync_dagster.sync.exchange_days import (
    NoTradingDayError,
    closing_times,
    exchange_days,
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_new_york_closes_on_the_days_that_its_calendar_says() -> None:
    import exchange_calendars  # imports pandas, which nothing else here needs

    first = date(2020, 1, 1)
    last = date(2026, 12, 31)
    days = exchange_days("XNYS", first, last)
    calendar = exchange_calendars.get_calendar("XNYS")
    weekdays = (
        date.fromordinal(n)
        for n in range(first.toordinal(), last.toordinal() + 1)
        if date.fromordinal(n).weekday() < 5
    )
    assert days.holidays == tuple(d for d in weekdays if not calendar.is_session(d.isoformat()))


def test_another_exchange_has_its_own_zone_close_and_holidays() -> None:
    days = exchange_days("XETR", date(2026, 1, 1), date(2026, 12, 31))
    assert days.timezone == "Europe/Berlin"
    assert days.closes_at == time(17, 30)
    assert date(2026, 4, 6) in days.holidays
    assert date(2026, 11, 26) not in days.holidays


def test_holidays_are_moments_of_the_exchange() -> None:
    days = exchange_days("XNYS", date(2026, 1, 1), date(2026, 12, 31))
    for day, moment in zip(days.holidays, days.holidays_at(time(16, 19)), strict=True):
        assert moment.date() == day
        assert moment.hour == 16
        assert moment.minute == 19
        assert str(moment.tzinfo) == "America/New_York"


def test_the_close_follows_daylight_saving_and_half_days() -> None:
    days = [date(2026, 3, 6), date(2026, 3, 9), date(2026, 11, 27)]
    closes = closing_times("XNYS", days)
    assert [closes[day].hour for day in days] == [21, 20, 18]


def test_a_holiday_has_no_close() -> None:
    with pytest.raises(NoTradingDayError, match="does not trade on 2026-11-26"):
        closing_times("XNYS", [date(2026, 11, 26)])


def test_an_unknown_exchange_is_named_with_its_setting() -> None:
    with pytest.raises(SettingsError, match="POSITION_SYNC_CALENDAR='XMOON'"):
        exchange_days("XMOON", date(2026, 1, 1), date(2026, 12, 31))
