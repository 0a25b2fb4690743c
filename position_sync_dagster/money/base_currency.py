"""The one rule of money over currencies: what amounts are in another one, or together; pure."""

from collections.abc import Iterable
from math import fsum

from position_sync_dagster.domain.account_values import AccountSummary

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
