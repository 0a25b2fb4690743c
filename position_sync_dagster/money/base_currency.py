"""The one rule of totals over currencies: what amounts are together in one of them; pure."""

from collections.abc import Iterable, Mapping
from math import fsum

Rates = Mapping[str, float]


def in_base(
    amounts: Iterable[tuple[float | None, str | None]], rates: Rates
) -> tuple[float | None, str | None]:
    """Return the sum of amounts in the base currency of an account, or why there is none.

    Args:
        amounts: Each with its currency; null is unknown.
        rates: What a unit of each currency was worth in the base currency, which has 1.

    >>> in_base([(100.0, "EUR"), (50.0, "USD")], {"EUR": 1.0, "USD": 0.8})
    (140.0, None)
    >>> in_base([(100.0, "EUR"), (50.0, "USD")], {"EUR": 1.0})
    (None, 'no exchange rate of USD is known')
    """
    listed = [(amount, currency or "an unknown currency") for amount, currency in amounts]
    without_rate = {currency for _amount, currency in listed} - rates.keys()
    if without_rate:
        return None, f"no exchange rate of {', '.join(sorted(without_rate))} is known"

    without_amount = {currency for amount, currency in listed if amount is None}
    if without_amount:
        return None, f"the sum in {', '.join(sorted(without_amount))} is not known"
    return fsum(amount * rates[currency] for amount, currency in listed if amount), None
