"""Market data permissions of the login: which contracts have live data."""

from __future__ import annotations

from collections.abc import Mapping

from ib_gateway_simulator.protocol.codes import (
    ADVISORY_CODES,
    LINE_ENDING_CODES,
    Code,
)


class Permissions:
    """The missing permissions: conid to the code that a gateway answers with.

    A code of LINE_ENDING_CODES refuses live data; delayed data is still sent.
    Code.DELAYED_DATA_SHOWN does the same, and a live request gets Code.NOT_SUBSCRIBED. A code of
    ADVISORY_CODES permits everything but the greeks.
    """

    def __init__(self, missing: Mapping[int, Code]) -> None:
        self._missing = dict(missing)

    def set(self, conid: int, code: Code | None) -> None:
        """Set the code of one contract; None permits everything."""
        if code is None:
            self._missing.pop(conid, None)
        else:
            self._missing[conid] = code

    def live_refusal(self, conid: int) -> Code | None:
        """Return the code that a request for live data gets, or None where it is permitted."""
        code = self._missing.get(conid)
        if code == Code.DELAYED_DATA_SHOWN:
            return Code.NOT_SUBSCRIBED
        if code in LINE_ENDING_CODES:
            return code

        return None

    def advisory(self, conid: int) -> Code | None:
        """Return the code that comes with incomplete data, or None."""
        code = self._missing.get(conid)
        if code in ADVISORY_CODES:
            return code

        return None
