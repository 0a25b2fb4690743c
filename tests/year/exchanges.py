"""The days of two exchanges in 2026 and 2027.

They are written by hand: the program's own calendars are what is tested.
"""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
FRANKFURT = ZoneInfo("Europe/Berlin")


def _dates(text: str) -> set[date]:
    return {date.fromisoformat(day) for day in text.split()}


# Weekdays without trading in New York; Christmas 2027 is a Saturday, Independence Day a Sunday.
_NEW_YORK_CLOSED = _dates("""
    2026-11-26 2026-12-25
    2027-01-01 2027-01-18 2027-02-15 2027-03-26 2027-05-31
    2027-06-18 2027-07-05 2027-09-06 2027-11-25 2027-12-24
""")
_FRANKFURT_CLOSED = _dates("""
    2026-12-24 2026-12-25 2026-12-31
    2027-01-01 2027-03-26 2027-03-29 2027-12-24 2027-12-31
""")
_HALF_DAYS = _dates("2026-11-27 2026-12-24 2027-11-26")

FIRST = date(2026, 12, 14)
LAST = date(2027, 12, 10)

USUAL_CLOSE = time(16)
EARLY_CLOSE = time(13)


def days_between(first: date, last: date) -> Iterator[date]:
    """Yield each day from one to another, both included."""
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


def is_session(day: date) -> bool:
    """Return whether New York trades on a day."""
    return day.weekday() < 5 and day not in _NEW_YORK_CLOSED


def frankfurt_trades(day: date) -> bool:
    """Return whether Frankfurt trades on a day."""
    return day.weekday() < 5 and day not in _FRANKFURT_CLOSED


def sessions_between(first: date, last: date) -> list[date]:
    """Return the sessions of New York from one day to another, both included."""
    return [day for day in days_between(first, last) if is_session(day)]


def session_after(day: date) -> date:
    """Return the first session of New York after a day."""
    return next(filter(is_session, days_between(day + timedelta(days=1), day + timedelta(days=9))))


def session_before(day: date) -> date:
    """Return the last session of New York before a day."""
    earlier = (day - timedelta(days=number) for number in range(1, 10))
    return next(filter(is_session, earlier))


def close_of(session: date) -> datetime:
    """Return when New York closes on a session."""
    at = USUAL_CLOSE
    if session in _HALF_DAYS:
        at = EARLY_CLOSE

    return datetime.combine(session, at, NEW_YORK)


def expiry_on_or_after(day: date) -> date:
    """Return the first expiry of a week from a day on: a Friday, or the session before it."""
    friday = day + timedelta(days=(4 - day.weekday()) % 7)
    last = friday if is_session(friday) else session_before(friday)
    if last >= day:
        return last

    return expiry_on_or_after(friday + timedelta(days=1))


def is_third_friday(day: date) -> bool:
    """Return whether monthly options end with a day: on its Friday, or the session before it."""
    friday = day + timedelta(days=(4 - day.weekday()) % 7)
    return 15 <= friday.day <= 21 and day == expiry_on_or_after(friday - timedelta(days=4))
