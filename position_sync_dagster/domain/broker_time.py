"""Times and time zones as the broker writes them; pure.

A gateway writes a time in the zone of its login, in that of the instrument, or in UTC with a
hyphen; which one is a setting of TWS. Names of zones are free text: those of the IANA database,
abbreviations of Java ("IST"), or names of the operating system ("China Standard Time").
"""

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

_NAMES = {
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
"""The names of zones that the IANA database does not have, or has for another time. An abbreviation
of standard time is the zone of the city also in summer: "EST" is what clocks in New York show
[R: ib_async issues/143, vnpy_ib issues/27]. IST is India [R: ib-re-actor pull/5], CST is Chicago,
as in Java. Long names: [R: rust-ibapi v1.2.2 and pull/364, Jib.jl issues/6]."""

_ZONES = {
    name.strip().casefold(): zone for zone, names in _NAMES.items() for name in names.split(",")
}

UNSURE = frozenset({"MST"})
"""The IANA database has a zone of this name without daylight saving time, although people mean the
clocks of Denver."""

_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])(\d{1,2})(?::?(\d{2}))?")

_TIME = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(-|\s+)(\d\d?:\d\d(?::\d\d)?)(?:\.\d+)?(?:\s+(\S.*))?")


class UnknownZoneError(ValueError):
    """A zone has a name that is not known, so that the time beside it is not known either."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the time zone {name!r} is not known")


@lru_cache(maxsize=256)
def zone_of(text: str | None) -> tzinfo | None:
    """Return the zone of a name as the broker writes it; None where it is not known.

    >>> zone_of("US/Central (Chicago)"), zone_of("EST"), zone_of("somewhere"), zone_of("GMT+08:00")
    (zoneinfo.ZoneInfo(key='US/Central'), zoneinfo.ZoneInfo(key='America/New_York'), None, \
datetime.timezone(datetime.timedelta(seconds=28800)))
    """
    name = (text or "").split(" (")[0].strip()
    if not name or name in UNSURE:
        return None
    if offset := _OFFSET.fullmatch(name):
        hours, minutes = int(offset[2]), int(offset[3] or 0)
        if hours > 14 or minutes > 59:
            return None
        length = timedelta(hours=hours, minutes=minutes)
        return timezone(-length if offset[1] == "-" else length)
    try:
        return ZoneInfo(_ZONES.get(name.casefold(), name))
    except (LookupError, ValueError, OSError):
        return None


def read_time(text: str, *, without_zone: tzinfo | None = None) -> datetime:
    """Read a date and a time as a gateway writes them.

    Args:
        text: Such as `20261126 20:32:38 Asia/Kolkata` or, in UTC, `20261126-15:02:38`.
        without_zone: The zone of a time that names none; None: that of this machine.

    Raises:
        UnknownZoneError: The zone that it names is not known.
        ValueError: It is no time.

    >>> read_time("20261126 20:32:38 IST").astimezone(UTC).isoformat()
    '2026-11-26T15:02:38+00:00'
    >>> read_time("20261126-15:02:38").isoformat()
    '2026-11-26T15:02:38+00:00'
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time of a gateway")
    day = date(int(found[1]), int(found[2]), int(found[3]))
    hour, rest = found[5].split(":", 1)
    at = datetime.combine(day, time.fromisoformat(f"{hour:0>2}:{rest}"))
    zone = without_zone
    if found[6]:
        zone = zone_of(found[6])
        if zone is None:
            raise UnknownZoneError(found[6])
    elif found[4] == "-":
        zone = UTC
    return at.astimezone() if zone is None else at.replace(tzinfo=zone)
