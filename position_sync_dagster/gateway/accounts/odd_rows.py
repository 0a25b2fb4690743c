"""Rows of holdings that cannot be used: each is set aside by name, and harms no other."""

import logging
import math
from collections.abc import Collection

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.gateway_session import SET_ASIDE
from position_sync_dagster.gateway.ib_async_internals.holdings import RowFields
from position_sync_dagster.gateway.translate import known, multiplier_of

logger = logging.getLogger(__name__)

LARGEST_CONID = 2**31 - 1
"""Conids are positive numbers of 32 bits. Source: IB, `Contract.ConId` is a Java int."""

NAMED = 3
"""So many rows are named in the detail of the session; the others are counted."""


def oddness(row: RowFields, accounts: Collection[str]) -> str | None:
    """Return why a row of a holding cannot be used, by its fields as sent; None for a usable one.

    ib_async reads an empty quantity of a position as 0, which would be a close (2.1.0, decoder.py).

    >>> oddness(RowFields("DU1", "7", "SPY", "OPT", "100", "nan"), {"DU1"})
    "quantity 'nan'"
    >>> oddness(RowFields("DU1", "7", "SPY", "OPT", "100", "2.0"), {"DU1"})
    """
    if row.account not in accounts:
        return "an account of another login" if row.account else "no account"
    number = _number(row.conid)
    if number is None or not number.is_integer() or not 0 < number <= LARGEST_CONID:
        return f"conid {row.conid!r}"
    if not row.symbol.strip():
        return "no symbol"
    if known(_number(row.quantity)) is None:
        return f"quantity {row.quantity!r}"
    if multiplier_of(row.sec_type, row.multiplier) is None:
        return f"multiplier {row.multiplier!r} ({row.sec_type})"
    return None


class OddRows:
    """The rows that were set aside, by account and conid, each with the reason.

    Attributes:
        seen: The rows that were set aside since `seen` was cleared last.
    """

    def __init__(self) -> None:
        self.seen: set[Key] = set()
        self._reasons: dict[Key, str] = {}
        self._logged: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        """Return whether the newest row of a holding was set aside."""
        return key in self._reasons

    def __bool__(self) -> bool:
        """Return whether any row is set aside."""
        return bool(self._reasons)

    def add(self, key: Key, reason: str) -> None:
        """Set a row aside."""
        self.seen.add(key)
        self._reasons[key] = reason
        if key not in self._logged:
            self._logged.add(key)
            logger.warning("a holding (conid %s) is set aside: the gateway sent %s", key[1], reason)

    def remove(self, key: Key) -> None:
        """Forget a row: a usable one came."""
        self._reasons.pop(key, None)

    def keep_seen(self) -> None:
        """Forget what was not seen since `seen` was cleared: a whole list does not name it."""
        self._reasons = {k: reason for k, reason in self._reasons.items() if k in self.seen}

    def of(self, account: str) -> bool:
        """Return whether a row of this account is set aside."""
        return any(key[0] == account for key in self._reasons)

    def problem(self) -> str | None:
        """Return how many rows are set aside, with the first of them by name; None without one."""
        if not self._reasons:
            return None
        named = [
            f"conid {conid} of {account or 'no account'} ({reason})"
            for (account, conid), reason in sorted(self._reasons.items())[:NAMED]
        ]
        more = len(self._reasons) - len(named)
        rest = f" and {more} more" if more else ""
        count = len(self._reasons)
        noun = "holding is" if count == 1 else "holdings are"
        return f"{count} {noun} {SET_ASIDE}{', '.join(named)}{rest}"


def key_as_sent(account: str, conid: str) -> Key:
    """Return the key under which a row is set aside; 0 stands for a conid that is no number."""
    number = _number(conid)
    return (account, int(number) if number is not None and math.isfinite(number) else 0)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
