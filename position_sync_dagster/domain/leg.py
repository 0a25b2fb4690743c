"""A leg of an active strategy: one stay of one contract in one strategy."""

from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum

from position_sync_dagster.domain.instrument import (
    Right,
    parse_conid,
    parse_expiry,
    parse_right,
    parse_strike,
)
from position_sync_dagster.errors import InvalidLegError


class LegState(StrEnum):
    """Where a leg or holding stands; design: ARMED → STREAMED ⇄ OVERFLOW → CLOSED."""

    ARMED = "ARMED"
    STREAMED = "STREAMED"
    OVERFLOW = "OVERFLOW"
    MONITORED = "MONITORED"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class ActiveContract:
    """One leg of an active strategy, from `added_at` until `removed_at`.

    Attributes:
        strike: In the contract's price unit.
        quantity: Signed contracts of this strategy; None is the whole holding.
        account: None matches the leg in any account.
        priority: Who gets a line when they are short; 1 is served before 2.
        removed_at: None while the leg is active.
    """

    conid: int
    symbol: str
    right: Right
    strike: float
    expiry: date
    strategy_id: str
    added_at: datetime
    quantity: float | None = None
    account: str | None = None
    priority: int = 1
    removed_at: datetime | None = None

    @property
    def key(self) -> tuple[str, str | None, int]:
        """Give (strategy_id, account, conid): at most one active stay has it."""
        return (self.strategy_id, self.account, self.conid)

    def ended(self, at: datetime) -> "ActiveContract":
        """Give the same stay, over since `at`."""
        return replace(self, removed_at=at)


def make_leg(
    *,
    conid: int | str,
    symbol: str,
    right: str,
    strike: float | str,
    expiry: str | int | date,
    strategy_id: int | str,
    added_at: datetime,
    quantity: float | None = None,
    account: str | None = None,
    priority: int = 1,
) -> ActiveContract:
    """Read a leg as a person or a file writes it.

    Raises:
        InvalidLegError: A field does not parse; the message names field and value.
    """
    if not str(symbol).strip():
        raise InvalidLegError(f"The leg {conid} has no symbol.", remedy="Name its underlying.")
    if not str(strategy_id).strip():
        raise InvalidLegError(f"The leg {conid} has no strategy.", remedy="Give a strategy_id.")
    if priority < 1:
        raise InvalidLegError(
            f"The priority {priority} of leg {conid} is below 1.", remedy="Use 1 (first) or more."
        )
    return ActiveContract(
        conid=parse_conid(conid),
        symbol=str(symbol),
        right=parse_right(right),
        strike=parse_strike(strike),
        expiry=parse_expiry(expiry),
        strategy_id=str(strategy_id),
        added_at=added_at,
        quantity=None if quantity is None else float(quantity),
        account=account or None,
        priority=priority,
    )
