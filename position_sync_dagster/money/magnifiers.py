"""Price magnifiers: the divisor from a quoted price, which may be in cents, to the major unit."""

from collections.abc import Mapping

import polars as pl
from polars import col, when

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.position_update import GreeksSource
from position_sync_dagster.domain.valuation import FACTOR_TOLERANCE
from position_sync_dagster.lake.contracts import ContractsTable
from position_sync_dagster.lake.schema import records_of

# Shares in these currencies, and options on them, are quoted in pence, cents or agorot; of other
# currencies only futures and options on them may be (grains in Chicago).
MINOR_CURRENCIES = frozenset({"GBP", "ZAR", "ILS", None})
MAJOR_TYPES = frozenset({"STK", "OPT", "CASH"})

# Which rows are quoted in the major unit by this rule; null without a currency.
IS_USUALLY_MAJOR = col.sec_type.is_in([*MAJOR_TYPES]) & ~col.currency.is_in(
    [*MINOR_CURRENCIES - {None}]
)


def magnifier_of(
    details: ContractDetails | None,
    sec_type: str | None,
    currency: str | None,
    fitting: float | None = None,
) -> float | None:
    """Return the divisor of a contract; None: not known.

    That of its details counts, else the one that fits an amount of the broker, else the usual one.

    >>> magnifier_of(None, "OPT", "USD"), magnifier_of(None, "OPT", "GBP")
    (1.0, None)
    """
    if details is not None and details.price_magnifier:
        return float(details.price_magnifier)
    if fitting is not None:
        return fitting
    if currency in MINOR_CURRENCIES or sec_type not in MAJOR_TYPES:
        return None
    return 1.0


def quoted_in_cents(contracts: ContractsTable) -> dict[int, ContractDetails]:
    """Return the details of the contracts with another price magnifier than 1, by conid; blocks."""
    rows = contracts.rows(col.price_magnifier != 1)
    return {details.conid: details for details in records_of(ContractDetails, rows)}


def in_major_unit(price: float | None, magnifier: float | None) -> float | None:
    """Return a quoted price, or a strike, in the major unit; None: one of the two is not known.

    >>> in_major_unit(450.0, 100), in_major_unit(450.0, None)
    (4.5, None)
    """
    if price is None or magnifier is None:
        return None
    return price / magnifier


# The columns from which the magnifier of a row follows, apart from its conid.
VALUED = ("position", "market_price", "multiplier", "market_value", "greeks_source")


def magnifier_in(contracts: Mapping[int, ContractDetails]) -> pl.Expr:
    """Return the price magnifier of each row: its contract's, else the one that fits its value.

    The row has price, quantity, multiplier and value; a magnifier is 1, or 100 for cents.
    """
    magnifiers = {
        conid: details.price_magnifier
        for conid, details in contracts.items()
        if details.price_magnifier
    }

    quoted = col.position * col.market_price * col.multiplier
    fitting = []
    for magnifier in (1, 100):
        expected = quoted / magnifier
        difference = col.market_value - expected
        fits = difference.abs() <= FACTOR_TOLERANCE * expected.abs()
        fitting.append(when(quoted != 0, fits).then(magnifier))

    of_contract = col.conid.replace_strict(magnifiers, default=None, return_dtype=pl.Int64)
    # Computed greeks need details, and `contracts` has all details with a magnifier other than 1.
    is_modelled = col.greeks_source == GreeksSource.MODEL.value
    return pl.coalesce(of_contract, *fitting, when(is_modelled).then(1))


def magnifiers_of(latest: pl.DataFrame) -> dict[int, float]:
    """Return the price magnifiers that fit the values of rows, by conid; others are not known."""
    magnifier = magnifier_in({}).cast(pl.Float64)
    return dict(latest.select("conid", magnifier=magnifier).drop_nulls("magnifier").iter_rows())
