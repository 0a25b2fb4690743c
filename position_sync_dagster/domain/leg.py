"""A leg of an active strategy: the membership of one contract in one strategy."""

import math
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from position_sync_dagster.domain.column import Column
from position_sync_dagster.domain.instrument import (
    ContractDetails,
    Right,
    parse_conid,
    parse_expiry,
    parse_right,
    parse_strike,
)
from position_sync_dagster.errors import InvalidLegError

UNDATED_TYPES = frozenset({"STK", "IND", "CASH"})
"""Security types without an expiry."""

SETTLED_WITHIN = timedelta(days=4)
"""A contract expires at most so long after its last trade: one trading day, over a long weekend."""


class LegState(StrEnum):
    """The state of a leg or another holding.

    A leg of a strategy is ARMED until the account holds it, then STREAMED with a market data line
    or in OVERFLOW without one, and CLOSED at the end. A holding that is in no strategy is
    MONITORED, then CLOSED.
    """

    ARMED = "ARMED"
    STREAMED = "STREAMED"
    OVERFLOW = "OVERFLOW"
    MONITORED = "MONITORED"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class ActiveContract:
    """One leg of an active strategy, from `added_at` until `removed_at`.

    One row of the table `active_strategies`: the membership of one contract in one strategy.
    """

    conid: Annotated[int, Column("IB's contract id of the leg.")]
    symbol: Annotated[str, Column("Symbol of the underlying.")]
    right: Annotated[Right | None, Column("CALL or PUT; null for a leg that is not an option.")]
    strike: Annotated[
        float | None,
        Column("Strike of the option; null for a leg that is not an option.", unit="as quoted"),
    ]
    expiry: Annotated[
        date | None, Column("Expiry of the option or the future; null where there is none.")
    ]
    strategy_id: Annotated[str, Column("The strategy that the leg belongs to.")]
    added_at: Annotated[datetime, Column("When the leg joined the strategy (UTC).")]
    quantity: Annotated[
        float | None,
        Column(
            "Signed quantity that belongs to the strategy; null for the whole holding.",
            unit="contracts",
        ),
    ] = None
    account: Annotated[str | None, Column("IB account; null for the leg in any account.")] = None
    priority: Annotated[
        int, Column("Who gets a market data line when they are short; 1 is served before 2.")
    ] = 1
    removed_at: Annotated[
        datetime | None, Column("When the leg left the strategy (UTC); null while it is active.")
    ] = None

    @property
    def key(self) -> tuple[str, str | None, int]:
        """(strategy_id, account, conid): at most one active membership has this key."""
        return (self.strategy_id, self.account, self.conid)

    def ended(self, at: datetime) -> "ActiveContract":
        """Return the same membership, ended at this time."""
        return replace(self, removed_at=at)


def make_leg(
    *,
    conid: int | str,
    symbol: str,
    right: str | None = None,
    strike: float | str | None = None,
    expiry: str | int | date | None = None,
    strategy_id: int | str,
    added_at: datetime,
    quantity: float | None = None,
    account: str | None = None,
    priority: int = 1,
) -> ActiveContract:
    """Return a leg from the spellings that a person or a file uses.

    Args:
        conid: The contract.
        symbol: Of its underlying.
        right: CALL or PUT; None for a stock, a future or another hedge.
        strike: None where there is no right.
        expiry: None for a stock; may be left out for a future.
        strategy_id: The strategy.
        added_at: When the leg joins it.
        quantity: Signed contracts or shares; None for the whole holding.
        account: None for the leg in any account.
        priority: Who gets a market data line first.

    Raises:
        InvalidLegError: A field does not parse; the message names field and value.
    """
    if not str(symbol).strip():
        raise InvalidLegError(
            f"The leg {conid} has no symbol.", remedy="Set the symbol of its underlying."
        )
    if not str(strategy_id).strip():
        raise InvalidLegError(f"The leg {conid} has no strategy.", remedy="Set its strategy_id.")
    if priority < 1:
        raise InvalidLegError(
            f"The priority {priority} of leg {conid} is below 1.", remedy="Use 1 (first) or more."
        )
    if (right is None) != (strike is None) or (right is not None and expiry is None):
        raise InvalidLegError(
            f"The leg {conid} has only a part of right, strike and expiry.",
            remedy="Set all three for an option; leave right and strike out for anything else.",
        )
    return ActiveContract(
        conid=parse_conid(conid),
        symbol=str(symbol),
        right=None if right is None else parse_right(right),
        strike=None if strike is None else parse_strike(strike),
        expiry=None if expiry is None else parse_expiry(expiry),
        strategy_id=str(strategy_id),
        added_at=added_at,
        quantity=None if quantity is None else float(quantity),
        account=account or None,
        priority=priority,
    )


def contract_mismatch(leg: ActiveContract, details: ContractDetails) -> str | None:
    """Return what a leg and the contract of its conid differ in, in words; None for nothing.

    The symbol may be the trading class (SPXW). The expiry may be the day of the last trade or the
    day on which the contract expires: index options settled at the open have two days. Where the
    latter is not known, a day soon after the last trade is no difference. A leg without an expiry
    leaves it open.
    """
    differences = []
    if leg.symbol.upper() not in (details.symbol.upper(), details.trading_class.upper()):
        differences.append(f"its symbol is {details.symbol}, not {leg.symbol}")
    if leg.right != details.right:
        differences.append(f"its right is {_word(details.right)}, not {_word(leg.right)}")
    if _differs(leg.strike, details.strike):
        differences.append(f"its strike is {_word(details.strike)}, not {_word(leg.strike)}")
    days = [day for day in (details.last_trade_date, details.expires_on) if day is not None]
    dated = days or details.sec_type in UNDATED_TYPES
    if leg.expiry is not None and dated and not _expires_on(leg.expiry, details):
        expiry = days[-1] if days else None
        differences.append(f"its expiry is {_word(expiry)}, not {_word(leg.expiry)}")
    return ", ".join(differences) or None


def _expires_on(day: date, details: ContractDetails) -> bool:
    last = details.last_trade_date
    if details.expires_on is None and last is not None:
        return timedelta() <= day - last <= SETTLED_WITHIN
    return day in (last, details.expires_on)


def _differs(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is not other
    return not math.isclose(one, other, rel_tol=1e-9)


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
