"""Whether what is known carries a sum: a sum with little behind it is no number; pure.

The size of a part is what it would move: its dollar delta, without a sign, where that is known of
every part of the sum; otherwise the value of what it is on, which is known without any price of an
option. The parts of which a figure is known must have `LEAST_KNOWN` of all sizes.
"""

import polars as pl
from polars import Expr, col, when

# The part of a sum that must be known; with less it is null, with how many are known of how many.
LEAST_KNOWN = 0.9

EVERY_ROW = pl.lit(value=True)


def sum_if_known(amounts: Expr) -> Expr:
    """Return the sum of a column of amounts; null if one of them is not known."""
    return when(amounts.is_not_null().all()).then(amounts.sum())


def sum_if_carried(amount: Expr, counted: Expr = EVERY_ROW) -> Expr:
    """Return the sum of the amounts that are known; null if they do not carry it, or there is none.

    Args:
        amount: The amounts of rows of `Split.parts`; null is unknown.
        counted: Which parts have such an amount at all.
    """
    is_known = amount.is_not_null()
    return when(is_known.any() & carries(is_known, counted)).then(amount.sum())


def carries(is_known: Expr, counted: Expr = EVERY_ROW, size: Expr | None = None) -> Expr:
    """Return whether the known parts carry the sum over all that count.

    Args:
        is_known: Which parts are known.
        counted: Which parts have such an amount at all.
        size: The size of each; None: as above, of rows of `Split.parts`.
    """
    if size is None:
        by_delta = col.dollar_delta.abs()
        has_deltas = (by_delta.is_not_null() | ~counted).all()
        size = when(has_deltas).then(by_delta).otherwise(stands_for())

    # What has no size at all counts as one of usual size.
    usual = size.filter(counted).mean().fill_null(1.0)
    sizes = size.fill_null(usual)
    known = sizes.filter(counted & is_known).sum()
    return known >= LEAST_KNOWN * sizes.filter(counted).sum()


def stands_for() -> Expr:
    """Return the value of what each part is on: of an option at its strike, else its own."""
    units = col.position * col.multiplier * col.share
    # Nearly all contracts are quoted in the major unit, and a weight is no money.
    at_strike = units * col.strike / col.magnifier.fill_null(1)
    value = pl.coalesce("market_value", "notional")
    return when(col.right.is_null()).then(value).otherwise(at_strike).abs()
