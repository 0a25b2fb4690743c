"""Rows of holdings that cannot be used: each is set aside by name, and harms no other."""

import logging
import math
from collections.abc import Callable, Collection

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.gateway_session import SET_ASIDE
from position_sync_dagster.domain.instrument import CONIDS
from position_sync_dagster.errors import shown
from position_sync_dagster.gateway.ib_async_internals.holdings import RowFields
from position_sync_dagster.gateway.translate import known, multiplier_of

logger = logging.getLogger(__name__)

UNREADABLE = "a row that cannot be read"

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
    if number is None or not number.is_integer() or int(number) not in CONIDS:
        return f"conid {shown(row.conid)}"
    if not row.symbol.strip():
        return "no symbol"
    if known(_number(row.quantity)) is None:
        return f"quantity {shown(row.quantity)}"
    if multiplier_of(row.sec_type, row.multiplier) is None:
        return f"multiplier {shown(row.multiplier)} ({row.sec_type})"
    return None


class OddRows:
    """The rows that were set aside, by account and conid, each with the reason.

    Args:
        accounts: The accounts of the login.
        on_change: Called with an account when a row of it is set aside, or is no more.

    Attributes:
        seen: The rows that were set aside since `seen` was cleared last.
    """

    def __init__(self, accounts: Collection[str], *, on_change: Callable[[str], None]) -> None:
        self.seen: set[Key] = set()
        self._accounts = accounts
        self._on_change = on_change
        self._reasons: dict[Key, str] = {}
        self._logged: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        """Return whether the newest row of a holding was set aside."""
        return key in self._reasons

    def __bool__(self) -> bool:
        """Return whether any row is set aside."""
        return bool(self._reasons)

    def accepts(self, row: RowFields) -> bool:
        """Return whether a row can be used, by its fields as sent; set it aside if not."""
        why = oddness(row, self._accounts)
        if why is not None:
            self.set_aside(row.account, row.conid, why)
        elif self and self._reasons.pop(key_as_sent(row.account, row.conid), None) is not None:
            self._on_change(row.account)
        return why is None

    def set_aside(self, account: str, conid: str, reason: str = UNREADABLE) -> None:
        """Set a row aside, by its account and conid as sent."""
        key = key_as_sent(account, conid)
        self.seen.add(key)
        self._reasons[key] = reason
        if key not in self._logged:
            self._logged.add(key)
            logger.warning("a holding (conid %s) is set aside: the gateway sent %s", key[1], reason)
        if account in self._accounts:
            self._on_change(account)

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
