"""Times as a broker writes them: names of zones, and trading hours.

A gateway writes a time in the zone of its login, in that of the instrument, or in UTC with a
hyphen; which one is a setting of TWS. Names of zones are free text: those of the IANA database,
abbreviations of Java ("IST"), or names of the operating system ("China Standard Time").
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

# The zone of closes and statements, and of an expiry whose details name none.
NEW_YORK = ZoneInfo("America/New_York")


# The names of zones that the IANA database does not have, or has for another time. An abbreviation
# of standard time is the zone of the city also in summer: "EST" is what clocks in New York show
# [R: ib_async issues/143, vnpy_ib issues/27]. IST is India [R: ib-re-actor pull/5], CST is Chicago,
# as in Java. Long names: [R: rust-ibapi v1.2.2 and pull/364, Jib.jl issues/6].
_NAMES_OF_ZONES = {
    "America/New_York": "EST, EDT, Eastern Standard Time, Eastern Daylight Time, Eastern Time",
    "America/Chicago": "CST, CDT, Central Standard Time, Central Daylight Time, Central Time",
    "America/Denver": "MDT, Mountain Standard Time, Mountain Daylight Time",
    "America/Los_Angeles": "PST, PDT, Pacific Standard Time, Pacific Daylight Time",
    "America/Halifax": "Atlantic Standard Time, Atlantic Daylight Time",
    "America/Sao_Paulo": "BRT, Brasilia Time, Brasilia Standard Time",
    "Pacific/Honolulu": "HST, Hawaii Standard Time, Hawaii-Aleutian Standard Time",
    "Europe/London": "BST, British Summer Time, GMT Standard Time",
    "Europe/Lisbon": "WEST, Western European Time, Western European Summer Time",
    "Europe/Berlin": "CEST, MEST, Central European Time, Central European Standard Time, "
    "Central European Summer Time, W. Europe Standard Time, Romance Standard Time, "
    "Central Europe Standard Time",
    "Europe/Helsinki": "EEST, Eastern European Time, Eastern European Standard Time, "
    "Eastern European Summer Time, FLE Standard Time, GTB Standard Time",
    "Europe/Moscow": "MSK, Moscow Standard Time, Russian Standard Time",
    "Asia/Jerusalem": "IDT, Israel Standard Time, Israel Daylight Time",
    "Asia/Dubai": "GST, Gulf Standard Time, Arabian Standard Time",
    "Asia/Kolkata": "IST, India Standard Time",
    "Asia/Bangkok": "ICT, Indochina Time, SE Asia Standard Time",
    "Asia/Shanghai": "CTT, China Standard Time, China Time, 中国标准时间",
    "Asia/Hong_Kong": "HKT, Hong Kong Time, Hong Kong Standard Time",
    "Asia/Taipei": "Taipei Standard Time, Taiwan Standard Time, 台北标准时间",
    "Asia/Singapore": "SGT, Singapore Time, Singapore Standard Time",
    "Asia/Tokyo": "JST, Japan Time, Japan Standard Time, Tokyo Standard Time",
    "Asia/Seoul": "KST, Korea Standard Time, Korean Standard Time",
    "Australia/Sydney": "AEST, AEDT, Australian Eastern Standard Time, "
    "Australian Eastern Daylight Time, AUS Eastern Standard Time",
    "Pacific/Auckland": "NZST, NZDT, New Zealand Standard Time, New Zealand Daylight Time",
    "Africa/Johannesburg": "SAST, South Africa Standard Time",
    "UTC": "Z, Coordinated Universal Time, Universal Time, Greenwich Mean Time",
}


_ZONES = {
    name.strip().casefold(): zone
    for zone, names in _NAMES_OF_ZONES.items()
    for name in names.split(",")
}

# The IANA database has a zone of this name without daylight saving time, although people mean the
# clocks of Denver.
UNSURE = frozenset({"MST"})

_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])(\d{1,2})(?::?(\d{2}))?")

_TIME = re.compile(r"(\d{4}-?\d\d-?\d\d)(-|\s+)(\d\d?)(:\d\d(?::\d\d)?)(?:\.\d+)?(?:\s+(\S.*))?")


class UnknownZoneError(ValueError):
    """A zone has a name that is not known, so that the time beside it is not known either."""


@lru_cache(maxsize=256)
def zone_of(text: str | None) -> tzinfo | None:
    """Return the zone of a name as the broker writes it; None if it is not known, or `UNSURE`.

    `UNSURE` are names by which people mean other clocks than the IANA database. `_ZONES` has the
    names that are not of that database.

    >>> zone_of("US/Central (Chicago)"), zone_of("EST"), zone_of("somewhere"), zone_of("GMT+08:00")
    (zoneinfo.ZoneInfo(key='US/Central'), zoneinfo.ZoneInfo(key='America/New_York'), None, \
datetime.timezone(datetime.timedelta(seconds=28800)))
    """
    name = (text or "").split(" (")[0].strip()
    if not name or name in UNSURE:
        return None

    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        hours = int(offset[2])
        minutes = int(offset[3] or 0)
        if hours > 14 or minutes > 59:  # no place is further ahead of UTC than 14 hours
            return None
        length = timedelta(hours=hours, minutes=minutes)
        return timezone(-length if offset[1] == "-" else length)

    try:
        return ZoneInfo(_ZONES.get(name.casefold(), name))
    except (LookupError, ValueError, OSError):
        return None


def in_zone(at: datetime, zone: tzinfo, name: str) -> datetime:
    """Return a local time in a zone; of an hour that is there twice its name may say which.

    >>> at = datetime(2026, 11, 1, 1, 30)
    >>> for name in ("EDT", "EST", "US/Eastern"):
    ...     print(in_zone(at, ZoneInfo("America/New_York"), name).astimezone(UTC).time())
    05:30:00
    06:30:00
    05:30:00
    """
    second = at.replace(tzinfo=zone, fold=1)  # the second of the two hours: standard time
    if "standard" in name.casefold() or second.tzname() == name.upper():
        return second
    return at.replace(tzinfo=zone)


def read_time(text: str) -> datetime:
    """Read a date and a time as a gateway writes them; without a zone it is of this machine's.

    Args:
        text: Such as `20261126 20:32:38 Asia/Kolkata` or, in UTC, `20261126-15:02:38`.

    Raises:
        UnknownZoneError: The zone that it names is not known.
        ValueError: It is no time.

    >>> read_time("20261126 20:32:38 IST").astimezone(UTC).isoformat()
    '2026-11-26T15:02:38+00:00'
    >>> read_time("20261126-15:02:38").isoformat()
    '2026-11-26T15:02:38+00:00'
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time of a gateway")

    day, separator, hour, minutes, zone_name = match.groups()
    at = datetime.fromisoformat(f"{day.replace('-', '')} {hour:0>2}{minutes}")

    zone: tzinfo | None = UTC if separator == "-" else None
    if zone_name:
        zone = zone_of(zone_name)
        if zone is None:
            raise UnknownZoneError(f"the time zone {zone_name!r} is not known")
    if zone is None:
        return at.astimezone()

    return in_zone(at, zone, zone_name or "")


_SESSION = re.compile(r"\s*(\d{8}):(?:CLOSED|(\d{4})-(\d{8}):(\d{4}))\s*")


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
        if any(opens <= now < closes for opens, closes in self.sessions):
            return True
        return False if self.begins <= now < self.ends else None


def may_trade(hours: TradingHours | None, at: datetime) -> bool:
    """Return whether a contract trades at a time; True if unknown."""
    return hours is None or hours.is_open(at) is not False


@lru_cache(maxsize=4096)
def parse_trading_hours(text: str | None, time_zone: str | None) -> TradingHours | None:
    """Read trading hours as the broker writes them; None where they cannot be read.

    Source: IB, "Requesting Contract Details"
    (interactivebrokers.github.io/tws-api/contract_details.html): days are separated by ";",
    sessions of a day by ","; since version 970 of TWS the end has a date too.
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
    zone = zone_of(time_zone)
    if not text or zone is None:
        return None
    try:
        return _read_sessions(text, zone)
    except (ValueError, OverflowError):
        return None


def _read_sessions(text: str, zone: tzinfo) -> TradingHours:
    """Return the sessions of a text.

    Raises:
        ValueError: It names no day, or a part of it is neither a session nor CLOSED.
    """
    sessions = []
    days = list[str]()
    for part in filter(str.strip, re.split("[;,]", text)):
        match = _SESSION.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is no session")

        first, opens, last, closes = match.groups()
        days += [first, last or first]
        if opens is not None:
            sessions.append((_at(first, opens, zone), _at(last, closes, zone)))

    if any(closes < opens for opens, closes in sessions):
        raise ValueError("a session ends before it begins")
    # An overnight session begins on the day before, which is one of `days`.
    return TradingHours(tuple(sessions), _at(min(days), "0000", zone), _at(max(days), "2400", zone))


def _at(day: str, clock: str, zone: tzinfo) -> datetime:
    """Return a time such as "0930" of a day; "2400" is the beginning of the next one."""
    at = datetime.combine(date.fromisoformat(day), time(), zone)
    if clock == "2400":
        return (at + timedelta(days=1)).astimezone(UTC)
    return at.replace(hour=int(clock[:2]), minute=int(clock[2:])).astimezone(UTC)


def exchange_date(now: datetime) -> date:
    """Return the date from which the days to an expiry count: that in New York."""
    return now.astimezone(NEW_YORK).date()


def beginning_of(day: date, zone: tzinfo = NEW_YORK) -> datetime:
    """Return the midnight with which a day begins (UTC)."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
