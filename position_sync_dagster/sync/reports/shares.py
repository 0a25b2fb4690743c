"""The share of each holding that belongs to a leg, and what it is worth; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import PositionUpdate

FACTOR_TOLERANCE = 0.02
"""So far may the value of a row be from price × quantity × multiplier ÷ magnifier."""


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a holding, from 0 to 1, by its newest row.

    Attributes:
        price_magnifier: Of the contract; None where it is not known.
    """

    row: PositionUpdate
    share: float
    price_magnifier: int | None

    def of(self, value: float | None) -> float | None:
        """Return the part of a value of the whole holding."""
        return None if value is None else value * self.share

    def greek(self, value: float | None) -> float | None:
        """Return the greek of this part: per unit × quantity × multiplier."""
        if value is None:
            return None
        return value * self.row.position * self.share * self.row.multiplier

    @property
    def dollar_delta(self) -> float | None:
        """The delta of this part × the price of the underlying; the value of a stock or future."""
        if self.row.sec_type in ("STK", "FUT"):
            return self.of(self.row.market_value)
        delta, price = self.greek(self.row.delta), self.row.underlying_price
        if delta is None or price is None or self.price_magnifier is None:
            return None
        return delta * price / self.price_magnifier

    @property
    def in_money(self) -> bool | None:
        """Whether the option is in the money; None where that is not known."""
        price, strike = self.row.underlying_price, self.row.strike
        if price is None or strike is None:
            return None
        return price > strike if self.row.right is Right.CALL else price < strike


def shares_of(
    leg: ActiveContract,
    known: Sequence[PositionUpdate],
    rivals: Sequence[ActiveContract],
    magnifier: int | None,
) -> list[Share]:
    """Return the parts of the holdings that belong to a leg; see `exposures`.

    Args:
        leg: The leg.
        known: The newest rows of its contract, in its account or in all.
        rivals: The legs of the same contract in any strategy.
        magnifier: The price magnifier; None where the contract details are not known.
    """
    rows = [row for row in known if row.position != 0]
    total = sum(row.position for row in rows)
    if not rows or total == 0:
        return []
    if leg.quantity is not None:
        part = _part(leg.quantity, total)
    else:
        others = (r for r in rivals if r is not leg and r.quantity is not None)
        claimed = sum(r.quantity or 0.0 for r in others if r.account in (None, leg.account))
        part = 1.0 - _part(claimed, total)
    if not part:
        return []
    return [Share(row, part, magnifier or _magnifier_of(row)) for row in rows]


def _magnifier_of(row: PositionUpdate) -> int | None:
    """Return the price magnifier by which a row was valued; None where it does not show.

    The row has price, quantity, multiplier and value; a magnifier is 1, or 100 for cents.
    """
    if not row.market_price or not row.market_value:
        return None
    quoted = row.position * row.market_price * row.multiplier
    for magnifier in (1, 100):
        expected = quoted / magnifier
        if abs(row.market_value - expected) <= FACTOR_TOLERANCE * abs(expected):
            return magnifier
    return None


def _part(quantity: float, total: float) -> float:
    """Return a quantity as a part of the holding, from 0 to 1.

    More than the holding counts as all of it; a quantity on the other side counts as nothing.
    """
    return min(max(quantity / total, 0.0), 1.0)
