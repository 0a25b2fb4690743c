"""Rows that no sane holding has: quantities without a number, conids and accounts without sense."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ib_gateway_simulator.accounts.ledger import Valuation
from ib_gateway_simulator.protocol.contract import Contract


@dataclass(frozen=True, slots=True, kw_only=True)
class OddRow:
    """A row that is sent as it is; the ledger does not know it.

    `quantity` is a number, or the text that is sent instead of one. Without a `price` it is that of
    the conid `priced_as`, which a book knows.
    """

    account: str
    contract: Contract
    quantity: float | str
    priced_as: int
    price: float | None = None
    average_cost: float = 0.0
    realized: float | None = None

    def valued_at(self, price: float) -> Valuation:
        """Return the value at a price; it is NaN where the quantity is no number."""
        try:
            held = float(self.quantity)
        except ValueError:
            held = math.nan
        value = held * price * self.contract.multiplier
        return Valuation(price=price, value=value, unrealized=value, daily=value)
