"""The times in messages, moved to the time of the replay."""

from __future__ import annotations

from ib_gateway_simulator.protocol.fields import Fields

# The ticks that say when the last trade was, live and delayed, in seconds since 1970.
LAST_TIMES = frozenset({"45", "88"})


def shifted(fields: Fields, shift_s: float) -> Fields:
    """Return a message with its times moved later by `shift_s` seconds.

    The gateway's clock, the time of the last trade and the account time (HH:MM) are moved: with
    the recorded ones, all that is replayed would count as old.

    >>> shifted(("8", "1", "23:59"), 120.0)
    ('8', '1', '00:01')
    """
    match fields:
        case ("49", version, epoch) if epoch.isdecimal():
            return ("49", version, _later(epoch, shift_s))
        case ("46", version, req_id, kind, epoch) if kind in LAST_TIMES and epoch.isdecimal():
            return ("46", version, req_id, kind, _later(epoch, shift_s))
        case ("8", version, clock):
            hours, _, minutes = clock.partition(":")
            if hours.isdecimal() and minutes.isdecimal():
                later = (60 * int(hours) + int(minutes) + round(shift_s / 60)) % (24 * 60)
                return ("8", version, f"{later // 60:02d}:{later % 60:02d}")
    return fields


def _later(epoch: str, shift_s: float) -> str:
    if epoch == "0":
        return epoch

    return str(int(epoch) + round(shift_s))
