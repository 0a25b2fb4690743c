"""Expiries of books that are never out of date: the Fridays of the weeks to come, by their names.

A file that says `week1` in place of a date means the second Friday from the day on which it is
read; `week0` is the next one, which is at least a day ahead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

FRIDAY = 4
A_DAY = timedelta(days=1)
_WEEK = re.compile(r"\bweek(\d)\b")

IsTradingDay = Callable[[date], bool]


def today() -> date:
    """Return the present day in New York."""
    return datetime.now(ZoneInfo("America/New_York")).date()


def on_weekdays(day: date) -> bool:
    """Return whether an exchange without holidays trades."""
    return day.weekday() <= FRIDAY


def expiry_after(day: date, weeks: int = 0, trades: IsTradingDay = on_weekdays) -> date:
    """Return the Friday so many weeks after the next one, or the last trading day before it."""
    tomorrow = day + A_DAY
    expiry = tomorrow + timedelta(days=(FRIDAY - tomorrow.weekday()) % 7, weeks=weeks)
    while not trades(expiry):
        expiry -= A_DAY
    return expiry


def dated(text: str, day: date, trades: IsTradingDay = on_weekdays) -> str:
    """Return a text with the names of weeks replaced by the dates that they have on a day."""

    def expiry(name: re.Match[str]) -> str:
        return f"{expiry_after(day, int(name[1]), trades):%Y%m%d}"

    return _WEEK.sub(expiry, text)
