"""Differences between the broker and the tables, by kind."""

from dataclasses import dataclass
from enum import StrEnum


class DiscrepancyType(StrEnum):
    """The kinds of difference between the tables and the broker.

    MISSING: held at the broker, no row here. SURPLUS: a row here with a quantity, nothing at the
    broker. QUANTITY: both, with different quantities. STALE: the value is older than allowed, or of
    unknown age. LEG_QUANTITY: strategies claim more of a holding than there is. LEG_MISMATCH: a leg
    names another symbol, right, strike or expiry than the contract of its conid has. STATEMENT: a
    row of a past day differs from the broker's statement of that day.
    """

    MISSING = "MISSING"
    SURPLUS = "SURPLUS"
    QUANTITY = "QUANTITY"
    STALE = "STALE"
    LEG_QUANTITY = "LEG_QUANTITY"
    LEG_MISMATCH = "LEG_MISMATCH"
    STATEMENT = "STATEMENT"


class BreakState(StrEnum):
    """The states of a discrepancy in `reconciliation_breaks`."""

    OPENED = "OPENED"
    CONFIRMED = "CONFIRMED"
    RESOLVED = "RESOLVED"
    ACCEPTED = "ACCEPTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """One difference between the broker and the tables.

    Attributes:
        expected: The broker's quantity; None where it has none.
        actual: Ours; None where we have none.
    """

    type: DiscrepancyType
    account: str
    conid: int
    symbol: str
    expected: float | None
    actual: float | None
    detail: str
