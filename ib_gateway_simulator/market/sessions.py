"""When the contracts of a book trade: around the clock, unless a book or an action limits it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ib_gateway_simulator.protocol.contract import Contract

AROUND_THE_CLOCK = ""
CLOSED = "CLOSED"
_HOURS = re.compile(r"((?:[01]\d|2[0-3])[0-5]\d)-((?:[01]\d|2[0-3])[0-5]\d)")

LISTED_DAYS = 6


def checked(hours: str) -> str:
    """Return the hours of a day, as `0930-1600`, `CLOSED` or empty for around the clock.

    Raises:
        ValueError: They are something else.
    """
    match = _HOURS.fullmatch(hours)
    if hours in (AROUND_THE_CLOCK, CLOSED) or (match and match[1] < match[2]):
        return hours
    raise ValueError('hours are "0930-1600" within a day, "CLOSED" or empty')


class Sessions:
    """The hours of each contract.

    Args:
        hours: Of every contract: `0930-1600` on Monday to Friday, `CLOSED`, or empty for always.
    """

    def __init__(self, hours: str = AROUND_THE_CLOCK) -> None:
        self._hours = hours
        self._of: dict[int, str] = {}

    def set(self, conid: int | None, hours: str) -> None:
        """Set the hours of a contract, or of all."""
        if conid is None:
            self._hours = hours
            self._of = {}
        else:
            self._of[conid] = hours

    def listing(self, contract: Contract, now_s: float) -> str:
        """Return the trading hours of a contract as contract details have them."""
        today = datetime.fromtimestamp(now_s, UTC).astimezone(ZoneInfo(contract.time_zone)).date()
        return listing(today, self._of.get(contract.conid, self._hours))

    def is_open(self, contract: Contract, now_s: float) -> bool:
        """Return whether a contract trades now."""
        hours = self._of.get(contract.conid, self._hours)
        if hours in (AROUND_THE_CLOCK, CLOSED):
            return hours == AROUND_THE_CLOCK
        now = datetime.fromtimestamp(now_s, UTC).astimezone(ZoneInfo(contract.time_zone))
        opens, closes = hours.split("-")
        return now.weekday() < 5 and opens <= f"{now:%H%M}" < closes


def listing(today: date, hours: str = AROUND_THE_CLOCK) -> str:
    """Return six days of trading hours: `20260406:0930-20260406:1600;20260411:CLOSED`.

    Days around the clock follow each other without a gap; the simulator ticks at week-ends too.
    """
    days = []
    for offset in range(LISTED_DAYS):
        day = today + timedelta(days=offset)
        stamp = f"{day:%Y%m%d}"
        after = f"{day + timedelta(days=1):%Y%m%d}"
        if hours == AROUND_THE_CLOCK:
            days.append(f"{stamp}:0000-{after}:0000")
        elif hours == CLOSED or day.weekday() >= 5:
            days.append(f"{stamp}:CLOSED")
        else:
            opens, closes = hours.split("-")
            days.append(f"{stamp}:{opens}-{stamp}:{closes}")
    return ";".join(days)
