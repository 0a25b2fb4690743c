"""The dividend that is expected of an underlying: a row of `dividends`."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class DividendSource(StrEnum):
    """Where a dividend is known from.

    STATED: the gateway names the next one and the sum of a year (tick 456). EXPECTED: it follows
    from the part of the price that the gateway's option model deducts until several expiries
    (`pvDividend`); days and amounts are estimates.
    """

    STATED = "STATED"
    EXPECTED = "EXPECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDividend:
    """A dividend of an underlying: a row of the table `dividends`.

    The rows of a conid and source with the greatest `seen_at` count; the older ones are what was
    known before.

    Attributes:
        conid: IB's contract id of the underlying.
        symbol: Its symbol, as IB writes it.
        source: STATED (tick 456) or EXPECTED (from pvDividend).
        ex_date: The first day on which a buyer does not get it; null: none is paid.
        amount: What is paid for a share; null where only a share of the price is known. Unit: the
            major unit of the currency.
        share: It as a share of the price, where no amount is known. Unit: 1.
        next_year: The sum of the next 12 months, of a STATED one. Unit: the major unit of the
            currency.
        seen_at: When it was first seen (UTC).
        run_id: The Dagster run that wrote the row.
    """

    conid: int
    symbol: str
    source: DividendSource
    ex_date: date | None = None
    amount: float | None = None
    share: float | None = None
    next_year: float | None = None
    seen_at: datetime
    run_id: str | None = None
