"""The price magnifier of rows: a contract is quoted in the currency's major unit, or in cents."""

from collections.abc import Mapping

import polars as pl

from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.position_update import GreeksSource
from position_sync_dagster.domain.valuation import FACTOR_TOLERANCE

# The columns from which the magnifier of a row follows, apart from its conid.
VALUED = ("position", "market_price", "multiplier", "market_value", "greeks_source")


def magnifier_in(contracts: Mapping[int, ContractDetails]) -> pl.Expr:
    """Return the price magnifier of each row: its contract's, else the one that fits its value.

    The row has price, quantity, multiplier and value; a magnifier is 1, or 100 for cents.
    """
    magnifiers: dict[int, int] = {}
    for conid, details in contracts.items():
        if details.price_magnifier:
            magnifiers[conid] = details.price_magnifier

    quoted = pl.col("position") * pl.col("market_price") * pl.col("multiplier")
    fitting = []
    for magnifier in (1, 100):
        expected = quoted / magnifier
        difference = (pl.col("market_value") - expected).abs()
        fits = difference <= FACTOR_TOLERANCE * expected.abs()
        fitting.append(pl.when(quoted != 0, fits).then(magnifier))

    of_contract = pl.col("conid").replace_strict(magnifiers, default=None, return_dtype=pl.Int64)
    # Computed greeks need details, and `contracts` has all details with a magnifier other than 1.
    modelled = pl.when(pl.col("greeks_source") == GreeksSource.MODEL.value).then(1)
    return pl.coalesce(of_contract, *fitting, modelled)


def magnifiers_of(latest: pl.DataFrame) -> dict[int, float]:
    """Return the price magnifiers that fit the values of rows, by conid; others are not known."""
    rows = latest.select("conid", magnifier=magnifier_in({}).cast(pl.Float64))
    return dict(rows.drop_nulls("magnifier").iter_rows())
