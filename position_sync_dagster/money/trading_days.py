"""Trading days beside a day: the one before, the one to which a day belongs, and today's begin."""

from datetime import date, datetime, timedelta
from functools import cache

from position_sync_dagster.domain.exchange_time import beginning_of
from position_sync_dagster.sync.exchange_days import day_of, exchange_of, time_zone_of

# New York was closed for a week in September 2001; others close for Lunar New Year, or a Golden
# Week.
LONGEST_CLOSED = timedelta(days=14)


def session_before(calendar: str, day: date) -> date:
    """Return the last trading day before a day.

    Raises:
        SettingsError: The calendar is not known.
    """
    sessions = exchange_of(calendar).trading_days(day - LONGEST_CLOSED, day - timedelta(days=1))
    return sessions[-1]


@cache
def session_of(calendar: str, day: date) -> date:
    """Return the trading day to which a day belongs: that day, or the next one that is one.

    Raises:
        SettingsError: The calendar is not known.
    """
    return exchange_of(calendar).trading_days(day, day + LONGEST_CLOSED)[0]


def day_began(calendar: str, now: datetime) -> datetime:
    """Return when today began at an exchange: the last midnight there (UTC).

    Raises:
        SettingsError: The calendar is not known.
    """
    return beginning_of(day_of(calendar, now), time_zone_of(calendar))
