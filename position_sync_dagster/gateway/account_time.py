"""The account feed's time of day: "HH:MM", without a date and without a zone."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.domain.routing import Key

AHEAD = timedelta(minutes=2)
"""A gateway's clock may run so far ahead of ours."""

OLDEST = timedelta(hours=6)
"""A moment further back is a misread one: the text of a clock that runs ahead of ours by more than
`AHEAD`, or in another zone, reads as yesterday's, 23 hours ago."""

ABOUT_NOW = timedelta(minutes=10)
"""The last time message of a download, and the one after a row that comes later by itself, is at
most so old, if we read it in the right zone."""


def moment_of(text: str, *, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the newest moment at or before now at which clocks in `zone` showed `text`.

    Returns:
        None where the text is no time of day, or no plausible one (`OLDEST`).

    >>> moment_of("23:59", now=datetime(2026, 1, 2, 0, 1, tzinfo=UTC), zone=UTC).isoformat()
    '2026-01-01T23:59:00+00:00'
    """
    try:
        hour, minute = (int(part) for part in text.split(":"))
        local = now.astimezone(zone).replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        return None
    if local > now + AHEAD:
        local -= timedelta(days=1)
    return min(local, now).astimezone(now.tzinfo) if now - local <= OLDEST else None


def zone_of(text: str, *, now: datetime) -> tzinfo | None:
    """Return the zone, ours or UTC, in which clocks show `text` about now; None for neither.

    Decide it anew for each download and each later row: the offset of our zone changes twice a
    year, and a clock may be set.

    >>> zone_of("14:58", now=datetime(2026, 1, 2, 15, 0, tzinfo=UTC)) is not None
    True
    """
    for zone in (now.astimezone().tzinfo, UTC):
        at = moment_of(text, now=now, zone=zone) if zone else None
        if at is not None and now - at <= ABOUT_NOW:
            return zone
    return None


class RowTimes:
    """Dates portfolio rows by the time messages that follow them, one after each row.

    The rows of a download may show times hours ago. They are dated at its end, when its last time
    message has shown which zone the gateway's clock is in. A row that comes later by itself is
    dated at once.

    Args:
        date: Called with the key of a row and its time, which may be unknown.
        clock: The present moment.
    """

    def __init__(self, date: Callable[[Key, datetime | None], None], *, clock: Clock) -> None:
        self._date = date
        self._clock = clock
        self._following = self._downloading = False
        self._last_row: Key | None = None
        self._times: dict[Key, str] = {}
        self._closing = ""

    def start(self) -> None:
        """Begin a download: collect the times of its rows."""
        self._following = self._downloading = True
        self._last_row, self._times, self._closing = None, {}, ""

    def date_rows(self) -> None:
        """Date the rows of the download, if its last time message is about now in some zone."""
        self._date_all(self._times, shown_now=self._closing)

    def follow(self) -> None:
        """End the download: date each later row at once."""
        self._downloading = False

    def stop(self) -> None:
        """Ignore rows and times: the account is not subscribed any more."""
        self._following = False

    def on_row(self, key: Key) -> None:
        """Remember the row that the next time message belongs to."""
        self._last_row = key if self._following else None

    def on_time(self, text: str) -> None:
        """Date the row before this time message."""
        key, self._last_row = self._last_row, None
        if self._downloading:
            self._closing = text
            if key is not None:
                self._times[key] = text
        elif key is not None:
            self._date_all({key: text}, shown_now=text)

    def _date_all(self, times: Mapping[Key, str], *, shown_now: str) -> None:
        now = self._clock()
        zone = zone_of(shown_now, now=now)
        if zone is not None:
            for key, text in times.items():
                self._date(key, moment_of(text, now=now, zone=zone))
