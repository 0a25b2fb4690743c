"""Messages as a gateway of an older server version sends them.

All messages are made in the layout of the newest version, 178. The few whose layout changed
between 157 and 178 are changed back here, once, where they leave for a client. The changes are
those that ib_async 2.1, ib_insync 0.9.86 and ibapi 10 read by version (their decoders).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ib_gateway_simulator.protocol.fields import Fields

# Contract details: where the multiplier stands in the layout of 178.
MULTIPLIER_AT = 14

# Contract details end with the smallest size, its increment, and the suggested increment.
SIZES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutChange:
    """A change of one message's layout.

    Attributes:
        name: The message.
        since: The first server version with the new layout.
        what: What is new in it.
        undo: Returns the fields of the layout before, from those of the layout since.
    """

    name: str
    since: int
    what: str
    undo: Callable[[Fields], Fields]


def _without_last_field(fields: Fields) -> Fields:
    return fields[:-1]


def _with_suggested_size_alone(fields: Fields) -> Fields:
    """Return contract details of version 163, which has a message version and one size."""
    multiplied = (*fields[:MULTIPLIER_AT], "1", *fields[MULTIPLIER_AT:-SIZES])
    return (multiplied[0], "8", *multiplied[1:], fields[-1])


# By the message's id, the newest change first.
CHANGES: dict[str, tuple[LayoutChange, ...]] = {
    "4": (
        LayoutChange(
            name="error",
            since=166,
            what="ends with the reasons of an advanced rejection",
            undo=_without_last_field,
        ),
    ),
    "10": (
        LayoutChange(
            name="contractDetails",
            since=164,
            what="no message version, no size multiplier; three sizes instead of one",
            undo=_with_suggested_size_alone,
        ),
        LayoutChange(
            name="contractDetails",
            since=163,
            what="ends with the suggested size increment",
            undo=_without_last_field,
        ),
    ),
    "11": (
        LayoutChange(
            name="execDetails",
            since=178,
            what="ends with whether a revision of the price is pending",
            undo=_without_last_field,
        ),
    ),
}


def as_of_version(fields: Fields, version: int) -> Fields:
    """Return a message as a gateway sends it to a client that negotiated this server version.

    Args:
        fields: The message in the layout of version 178.
        version: The negotiated version, 157 to 178.

    Example:
        >>> as_of_version(("4", "2", "-1", "2104", "farm is OK", ""), 165)
        ('4', '2', '-1', '2104', 'farm is OK')
    """
    for change in CHANGES.get(fields[0], ()):
        if version < change.since:
            fields = change.undo(fields)
    return fields
