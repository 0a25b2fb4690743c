"""The one rule of totals over currencies: what amounts are together in a base currency; pure."""

from collections.abc import Iterable
from math import fsum

# An amount, its currency, and what a unit of that is worth in the base currency; null is unknown.
Rated = tuple[float | None, str | None, float | None]


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
