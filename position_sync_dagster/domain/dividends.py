"""The dividends of an underlying, as the gateway states them."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedDividends:
    """The dividends of a stock as the gateway sends them, as quoted (tick type 59).

    Attributes:
        next_date, next_amount: The next ex-date and amount; None: not known.
        next_year: The sum of the next 12 months.
    """

    next_date: date | None
    next_amount: float | None
    next_year: float | None
