"""The account feed's time of day: "HH:MM", without a date and without a zone."""

from datetime import datetime, timedelta, tzinfo

SKEW = timedelta(minutes=2)
"""How far a gateway's clock may run ahead of ours."""

OLDEST = timedelta(hours=6)
"""A moment further back is taken for a misread one: the text of a clock that runs ahead of ours by
more than `SKEW`, or in another zone, reads as yesterday's, 23 hours ago."""


def moment_of(text: str, *, now: datetime, zone: tzinfo) -> datetime | None:
    """Give the newest moment at or before now at which clocks in `zone` showed `text`.

    Returns:
        None where the text is no time of day, or no plausible one (`OLDEST`).

    >>> from datetime import UTC
    >>> moment_of("23:59", now=datetime(2026, 1, 2, 0, 1, tzinfo=UTC), zone=UTC).isoformat()
    '2026-01-01T23:59:00+00:00'
    """
    try:
        hour, minute = (int(part) for part in text.split(":"))
        local = now.astimezone(zone).replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        return None
    if local > now + SKEW:
        local -= timedelta(days=1)
    return min(local, now).astimezone(now.tzinfo) if now - local <= OLDEST else None
