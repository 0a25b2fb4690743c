"""Sums of money: whether what is known carries one, and what amounts are in another currency; pure.

A sum with little behind it is no number. The size of a part is what it would move: its dollar
delta, without a sign, where that is known of every part of the sum; otherwise the value of what it
is on, which is known without any price of an option. The parts of which a figure is known must have
`LEAST_KNOWN` of all sizes.
"""

from collections.abc import Iterable
from math import fsum

import polars as pl
from polars import Expr, col, when

from position_sync_dagster.domain.account_values import AccountSummary

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


# An amount, its currency, and what a unit of that is worth in the base currency; null is unknown.
Rated = tuple[float | None, str | None, float | None]


def rate_of(account: AccountSummary | None, currency: str | None, to: str | None) -> float | None:
    """Return what a unit of a currency is worth in another, by the rates of an account.

    Returns:
        None if the broker has not sent it.
    """
    if currency == to:
        return 1.0
    rates = {} if account is None else account.rates
    rate = rates.get(currency or "")
    rate_to = rates.get(to or "")
    return rate / rate_to if rate and rate_to else None


def in_base(amounts: Iterable[Rated]) -> tuple[float | None, str | None]:
    """Return the sum of amounts in the base currency of an account, or why there is none.

    >>> in_base([(100.0, "EUR", 1.0), (50.0, "USD", 0.8)])
    (140.0, None)
    >>> in_base([(100.0, "EUR", 1.0), (50.0, "USD", None)])
    (None, 'no exchange rate of USD is known')
    """
    products = []
    without_rate: set[str] = set()
    without_amount: set[str] = set()
    for amount, currency, rate in amounts:
        if rate is None:
            without_rate.add(currency or "an unknown currency")
        elif amount is None:
            without_amount.add(currency or "an unknown currency")
        else:
            products.append(amount * rate)

    if without_rate:
        return None, f"no exchange rate of {', '.join(sorted(without_rate))} is known"
    if without_amount:
        return None, f"the sum in {', '.join(sorted(without_amount))} is not known"
    return fsum(products), None
