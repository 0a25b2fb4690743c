"""Whether a contract's session is open, by the hours that the broker lists; pure."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_SESSION = re.compile(r"(\d{8}):(\d{4})-(?:(\d{8}):)?(\d{4})")
_CLOSED = re.compile(r"(\d{8}):CLOSED")

UNSURE_ZONES = frozenset({"EST", "MST", "HST"})
"""Zones that have no daylight saving time in the tz database, although people often mean it."""


@dataclass(frozen=True, slots=True)
class TradingHours:
    """The sessions that the broker lists for a contract.

    Attributes:
        sessions: Beginning and end of each, in UTC: times of two zones take ten times as long to
            compare, and each row of a streamed holding compares some.
        begins, ends: The span of time that the list covers.
    """

    sessions: tuple[tuple[datetime, datetime], ...]
    begins: datetime
    ends: datetime

    def is_open(self, now: datetime) -> bool | None:
        """Return whether a session is open; None outside the days that are listed."""
        for opens, closes in self.sessions:
            if opens <= now < closes:
                return True
        return False if self.begins <= now < self.ends else None

    def closed_until(self, now: datetime) -> datetime | None:
        """Return the next time at which a session may open; None while one is open, or unknown."""
        if self.is_open(now) is not False:
            return None
        return min((opens for opens, _ in self.sessions if opens > now), default=self.ends)


@lru_cache(maxsize=4096)
def parse_trading_hours(text: str | None, time_zone: str | None) -> TradingHours | None:
    """Read trading hours as the broker writes them; None where they cannot be read.

    Source: IB, "Requesting Contract Details"
    (interactivebrokers.github.io/tws-api/contract_details.html): days are separated by ";",
    sessions of a day by ","; since version 970 the end has a date too.
    The time zone is that of `timeZoneId`, for example "US/Central".

    >>> hours = parse_trading_hours("20260406:0930-20260406:1600;20260407:CLOSED", "US/Eastern")
    >>> from datetime import UTC
    >>> hours.is_open(datetime(2026, 4, 6, 14, 0, tzinfo=UTC))
    True
    >>> hours.is_open(datetime(2026, 4, 7, 14, 0, tzinfo=UTC))
    False
    >>> hours.is_open(datetime(2026, 4, 9, 14, 0, tzinfo=UTC)) is None
    True
    """
    name = (time_zone or "").split(" (")[0].strip()
    if not text or not name or name in UNSURE_ZONES:
        return None
    try:
        zone = ZoneInfo(name)
        return _read(text, zone)
    except (LookupError, ValueError, OSError, OverflowError):
        return None


def _read(text: str, zone: ZoneInfo) -> TradingHours | None:
    sessions, days = [], set()
    parts = [part.strip() for part in re.split("[;,]", text)]
    for part in filter(None, parts):
        if closed := _CLOSED.fullmatch(part):
            days.add(_day(closed[1]))
            continue
        session = _SESSION.fullmatch(part)
        if session is None:
            return None
        first, last = _day(session[1]), _day(session[3] or session[1])
        opens, closes = _at(first, session[2], zone), _at(last, session[4], zone)
        if session[3] is None and closes <= opens:
            closes = _at(first + timedelta(days=1), session[4], zone)
        if closes < opens:
            return None
        sessions.append((opens, closes))
        days |= {first, last}
    if not days:
        return None
    begins = min([_at(min(days), "0000", zone), *(opens for opens, _ in sessions)])
    ends = max([_at(max(days) + timedelta(days=1), "0000", zone), *(c for _, c in sessions)])
    return TradingHours(tuple(sessions), begins, ends)


def _day(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def _at(day: date, clock: str, zone: ZoneInfo) -> datetime:
    hour, minute = int(clock[:2]), int(clock[2:])
    if (hour, minute) == (24, 0):
        day, hour = day + timedelta(days=1), 0
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).astimezone(UTC)
