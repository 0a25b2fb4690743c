"""The account feed's time of day: "HH:MM", without a date and without a zone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.clock import Clock

AHEAD = timedelta(minutes=2)
"""Maximum by which a gateway's clock may be ahead of ours."""

OLDEST = timedelta(hours=6)
"""Maximum age of a time text. Without it, a text of a clock in another zone, or ahead of ours by
more than `AHEAD`, would be read as one of yesterday, 23 hours ago."""

ABOUT_NOW = timedelta(minutes=10)
"""Maximum age of a time message that is read in the right zone. It applies to the last message of a
download, and to the message after a row that comes later by itself."""

CLOSING_AGE = timedelta(minutes=5)
"""Usual maximum age of the last time message of a download: the gateway renews the account every 3
minutes (IB, "Account Updates"), and the text has no seconds. A zone other than ours and UTC is
inferred only from a message within this age."""

OFFSETS = frozenset(
    timedelta(hours=hours)
    for hours in (*range(-11, 13), -9.5, -3.5, -2.5, 3.5, 4.5, 5.5, 6.5, 9.5, 10.5, 5.75, 8.75)
) | {timedelta(hours=-11.25), timedelta(hours=-10.25)}
"""Every offset from UTC that a zone has in the IANA time zone database of 2026.
A day more or less shows the same time of day: -11:15 stands for +12:45, and -10:00 for +14:00."""


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


def zone_of(text: str, *, now: datetime, known: tzinfo | None = None) -> tzinfo | None:
    """Return the zone (`known`, ours or UTC) in which clocks show `text` about now, else None.

    Decide it anew for each download and each later row: the offset of our zone changes twice a
    year, and a clock may be set.

    Args:
        known: The zone of the newest download.

    >>> zone_of("14:58", now=datetime(2026, 1, 2, 15, 0, tzinfo=UTC)) is not None
    True
    """
    for zone in (known, now.astimezone().tzinfo, UTC):
        at = moment_of(text, now=now, zone=zone) if zone else None
        if at is not None and now - at <= ABOUT_NOW:
            return zone
    return None


def zone_of_closing(text: str, *, now: datetime) -> tzinfo | None:
    """Return the zone in which the last time message of a download was written, else None.

    That message is about now. Its offset from UTC is therefore known to a few minutes, and it must
    be an offset that exists: no two are nearer to each other than 15 minutes. A message that is
    older than `CLOSING_AGE` fits none, except where its age is by chance that between two zones.

    >>> zone_of_closing("20:28", now=datetime(2026, 1, 2, 15, 0, tzinfo=UTC))
    datetime.timezone(datetime.timedelta(seconds=19800))
    """
    zone = zone_of(text, now=now)
    if zone is not None:
        return zone
    found = [
        timezone(offset)
        for offset in OFFSETS
        if (at := moment_of(text, now=now, zone=timezone(offset))) and now - at <= CLOSING_AGE
    ]
    return found[0] if len(found) == 1 else None


class RowTimes:
    """Dates portfolio rows by the time messages that follow them, one after each row.

    The rows of a download may show times hours ago. They are dated at its end, when its last time
    message has shown which zone the gateway's clock is in. A row that comes later by itself is
    dated at once, in that zone.

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
        self._zone: tzinfo | None = None
        self._candidate: tuple[tzinfo | None, str] = (None, "")
        self._newest: tuple[str, datetime] | None = None

    def start(self) -> None:
        """Begin a download: collect the times of its rows."""
        self._following = self._downloading = True
        self._last_row, self._times, self._closing = None, {}, ""

    def date_rows(self) -> None:
        """Date the rows of the download, if its last time message is about now in some zone.

        Another zone than ours and UTC is believed only when the message of the download before
        fits it too and shows another time. One message may be hours old and fit a zone by chance;
        one that moves with the clock does not.
        """
        now = self._clock()
        self._newest = None
        self._zone = zone_of(self._closing, now=now)
        if self._zone is None:
            zone, before = zone_of_closing(self._closing, now=now), self._candidate
            self._candidate = (zone, self._closing)
            if zone == before[0] and self._closing != before[1]:
                self._zone = zone
        if self._zone is not None:
            moments = {
                text: moment_of(text, now=now, zone=self._zone)
                for text in set(self._times.values())
            }
            for key, text in self._times.items():
                self._date(key, moments[text])
        self._times = {}

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
        elif key is not None and (at := self._moment(text)) is not None:
            self._date(key, at)

    def _moment(self, text: str) -> datetime | None:
        """Return the moment of a time message about now; None where it fits no zone.

        The result is cached for equal texts, since thousands of rows share a minute.
        """
        now = self._clock()
        if self._newest is not None and self._newest[0] == text:
            at = self._newest[1]
            if at <= now <= at + ABOUT_NOW:
                return at
        zone = zone_of(text, now=now, known=self._zone)
        found = moment_of(text, now=now, zone=zone) if zone is not None else None
        # Not cached if equal to now (a clock ahead of ours): a later row has a later moment.
        self._newest = (text, found) if found is not None and found < now else None
        return found
