"""A holding as the broker last reported it: one row of `broker_positions`."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.update import ValueOrigin

Key = tuple[str, int]
"""(account, conid): the key of a holding."""

_KEYS: dict[Key, Key] = {}


def key_of(account: str, conid: int) -> Key:
    """Return the key of a holding, always the same object, which saves memory in a large book.

    >>> key_of("DU1", 7) is key_of("DU1", 7)
    True
    """
    key = (account, conid)
    return _KEYS.setdefault(key, key)


class Completeness(StrEnum):
    """How much of an account the last download covered.

    COMPLETE: positions and portfolio values ended with the broker's own end messages.
    PARTIAL: positions ended, portfolio values did not. UNKNOWN: neither can be trusted,
    or the login does not manage the account.
    """

    COMPLETE = "COMPLETE"
    PARTIAL = "PARTIAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPosition:
    """One holding as the broker last reported it; a position of 0.0 is an explicit close.

    Attributes:
        position: Signed units.
        average_cost: Per unit, including multiplier and commissions.
        market_price, market_value, unrealized_pnl, realized_pnl: From the portfolio feed or
            PnLSingle; None until the broker sends them.
        value_source: PORTFOLIO, PNL_SINGLE (a subscription per position, about a second old), or
            NONE while the broker has sent no value.
        value_time: The broker's time of the values; None if it sent none or it is uncertain.
        received_at: When the last change of this row was received.
        position_time: When the last change of `position` was received (a closed row keeps its
            closing time).
        completeness: Of the last download of the row's account.
        confirmed_at: When the newest message arrived that confirms the values: the end of a
            download of the account, a row or a time of its open subscription, or a value of this
            holding. At that moment the values were the broker's present ones.
    """

    gateway_id: str
    account: str
    instrument: Instrument
    position: float
    average_cost: float | None = None
    market_price: float | None = None
    market_value: float | None = None
    unrealized_pnl: float | None = None
    realized_pnl: float | None = None
    daily_pnl: float | None = None
    value_time: datetime | None = None
    received_at: datetime
    position_time: datetime
    snapshot_id: str
    value_source: ValueOrigin = ValueOrigin.NONE
    completeness: Completeness = Completeness.UNKNOWN
    confirmed_at: datetime | None = None

    @property
    def key(self) -> Key:
        """The holding's (account, conid)."""
        return key_of(self.account, self.instrument.conid)
