"""Where a message of the gateway has the id of its request."""

from __future__ import annotations

from ib_gateway_simulator.protocol.fields import Fields

NO_REQUEST = "-1"

_AFTER_VERSION = frozenset(
    map(str, (1, 2, 4, 45, 46, 52, 55, 57, 58, 63, 64, 71, 72, 73, 74))
)  # fmt: skip
_PLAIN = frozenset(map(str, (10, 21, 75, 76, 77, 79, 81, 82, 94, 95, 107)))


def request_place(fields: Fields) -> int | None:
    """Return the index of the request id; None for a message about no request with an id."""
    if fields[0] in _AFTER_VERSION:
        at = 2
    elif fields[0] in _PLAIN:
        at = 1
    else:
        return None

    if at >= len(fields) or fields[at] == NO_REQUEST:
        return None
    return at
