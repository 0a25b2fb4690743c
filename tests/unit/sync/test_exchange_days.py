"""The days of an exchange."""

from datetime import UTC, date, datetime, time, timedelta
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import pytest

from position_sync_dagster.defs.assets.past_days import exchange_partitions
from position_sync_dagster.domain.exchange_time import beginning_of
from position_sync_dagster.errors import SettingsError
from position_sync_dagster.sync.exchange_days import (
    NEW_YORK_DAYS,
    NoTradingDayError,
    closing_times,
    exchange_of,
    time_zone_of,
)
from tests.support.new_york_days import new_york_days


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_new_york_closes_on_the_days_that_its_calendar_says() -> None:
    import exchange_calendars  # imports pandas, which nothing else here needs

    first = date(2020, 1, 1)
    last = date(2026, 12, 31)
    days = exchange_of("XNYS")
    calendar = exchange_calendars.get_calendar("XNYS")
    weekdays = (
        date.fromordinal(n)
        for n in range(first.toordinal(), last.toordinal() + 1)
        if date.fromordinal(n).weekday() < 5
    )
    closed = [d for d in weekdays if not calendar.is_session(d.isoformat())]
    assert days.holidays(first, last) == closed


def test_another_exchange_has_its_own_zone_close_and_holidays() -> None:
    days = exchange_of("XETR")
    holidays = days.holidays(date(2026, 1, 1), date(2026, 12, 31))
    assert days.timezone == "Europe/Berlin"
    assert days.closes_at == time(17, 30)
    assert date(2026, 4, 6) in holidays
    assert date(2026, 11, 26) not in holidays


def test_holidays_are_moments_of_the_exchange() -> None:
    first = date(2026, 1, 2)
    partitions = exchange_partitions(exchange_of("XNYS"), first)
    moments = [
        datetime.fromtimestamp(day.timestamp, ZoneInfo(day.timezone))
        for day in partitions.exclusions
        if not isinstance(day, str)
    ]
    holidays = exchange_of("XNYS").holidays(first, date(datetime.now(UTC).year + 2, 12, 31))
    assert [moment.date() for moment in moments] == holidays
    assert {moment.time() for moment in moments} == {time(16, 19)}


@pytest.mark.parametrize(
    ("calendar", "near", "longest"),
    [
        ("XNYS", date(2026, 6, 1), 4),  # from Thursday, April 2, over Good Friday to Monday
        ("XETR", date(2026, 3, 1), 6),  # from Tuesday, December 23, over Christmas to Monday
        ("XSHG", date(2026, 6, 1), 11),  # from February 13, over the Spring Festival, to the 24th
        ("24/7", date(2026, 6, 1), 1),
    ],
)
def test_an_exchange_knows_for_how_long_it_is_closed(calendar, near, longest) -> None:
    assert exchange_of(calendar).longest_closed(near) == timedelta(days=longest)


def test_the_close_follows_daylight_saving_and_half_days() -> None:
    days = [date(2026, 3, 6), date(2026, 3, 9), date(2026, 11, 27)]
    closes = closing_times("XNYS", days)
    assert [closes[day].hour for day in days] == [21, 20, 18]


def test_a_holiday_has_no_close() -> None:
    with pytest.raises(NoTradingDayError, match="does not trade on 2026-11-26"):
        closing_times("XNYS", [date(2026, 11, 26)])


def test_an_unknown_exchange_is_named_with_its_setting() -> None:
    with pytest.raises(SettingsError, match="POSITION_SYNC_CALENDAR='XMOON'"):
        exchange_of("XMOON")


def test_an_exchange_trades_on_sundays_if_its_calendar_says_so() -> None:
    riyadh = exchange_of("XSAU")
    days = riyadh.trading_days(date(2026, 2, 26), date(2026, 3, 3))
    assert [f"{day}" for day in days] == ["2026-02-26", "2026-03-01", "2026-03-02", "2026-03-03"]
    assert riyadh.cron_days() == "0-4"
    assert riyadh.cron_days(days_later=1) == "1-5"
    new_york = exchange_of("XNYS")
    assert new_york.cron_days() == "1-5"
    assert new_york.cron_days(days_later=1) == "2-6"


def test_a_day_that_ends_at_midnight_is_recorded_before_the_next_one_begins() -> None:
    always = exchange_of("24/7")
    assert always.cron_days() == "0-6"
    assert always.settled_at == time(23, 59)
    assert len(always.trading_days(date(2026, 2, 1), date(2026, 2, 28))) == 28


def test_an_exchange_whose_calendar_is_broken_is_named_with_its_setting(monkeypatch) -> None:
    import exchange_calendars

    broken = ValueError("Special dates [] are not sessions.")
    monkeypatch.setattr(exchange_calendars, "get_calendar", Mock(side_effect=broken))
    with pytest.raises(SettingsError, match="POSITION_SYNC_CALENDAR='XTAE' has days that"):
        exchange_of("XTAE")


def test_dagster_offers_each_session_also_on_a_sunday() -> None:
    first = date(2026, 2, 25)
    until = datetime(2026, 3, 3, tzinfo=UTC)
    keys = {}
    for calendar in ("XSAU", "XLUX", "24/7"):
        days = exchange_of(calendar)
        keys[calendar] = exchange_partitions(days, first).get_partition_keys(current_time=until)
    assert [*map(date.fromisoformat, keys["24/7"])] == days.trading_days(first, date(2026, 3, 2))
    assert keys["XLUX"] == ["2026-02-25", "2026-02-26", "2026-02-27", "2026-03-02"]
    assert exchange_of("XLUX").settled_at == time(18, 1)  # never on the hour
    assert keys["XSAU"] == ["2026-02-25", "2026-02-26", "2026-03-01", "2026-03-02"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_closes_of_new_york_are_those_of_the_calendar_of_exchanges_since_2000():
    import exchange_calendars  # imports pandas, which nothing else here needs

    assert NEW_YORK_DAYS.read_text() == new_york_days(), "see tests/support/new_york_days.py"
    calendar = exchange_calendars.get_calendar("XNYS", start="2000-01-03")
    expected = {day.date(): close.to_pydatetime() for day, close in calendar.closes.items()}
    assert len(expected) > 6_000
    assert closing_times("XNYS", expected) == expected
    assert time_zone_of("XNYS") == ZoneInfo(str(calendar.tz))
    for day in (date(2026, 7, 3), date(2026, 11, 28), date(2001, 9, 12)):
        with pytest.raises(NoTradingDayError, match=f"on {day}"):
            closing_times("XNYS", [day])


def test_a_day_beyond_what_a_calendar_knows_is_no_trading_day():
    with pytest.raises(NoTradingDayError, match="XSHG does not trade on 2099-01-05"):
        closing_times("XSHG", [date(2099, 1, 5)])


def test_a_day_begins_at_the_midnight_of_its_zone():
    assert beginning_of(date(2026, 3, 9)) == datetime(2026, 3, 9, 4, tzinfo=UTC)
    assert beginning_of(date(2026, 3, 9), time_zone_of("XSHG")).hour == 16
