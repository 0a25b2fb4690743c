"""Implied volatilities and greeks of all options of an account, as one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np

from position_sync_dagster.risk import model
from position_sync_dagster.risk.model import NoVolatility
from position_sync_dagster.risk.terms import NotPriced, OptionTerms, as_options

FIRST_GUESS = 0.3


class NoGreeks(StrEnum):
    """Why an option has no modelled greeks, besides `NotPriced` and `NoVolatility`."""

    NO_VALUE = "it has no value with a known time"
    NO_UNDERLYING_PRICE = "the underlying has no price"
    NO_PRICE_THEN = "the underlying had no price when the value was true"
    UNDERLYING_OLD = "the underlying's price is older than a minute in its session"
    FOLLOWS_A_FUTURE = "it follows the future of its month, whose price is not known"
    EXPIRED = "it expired"
    NOT_COMPUTED = "the model has no price for it"


Reason = NoGreeks | NotPriced | NoVolatility


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuedOption:
    """An option with what its greeks follow from.

    Attributes:
        value, value_at: The broker's value of one unit of the underlying, and when it was true.
        spot_then: The price of the underlying at that time; None: unknown.
        spot: The price of the underlying now.
        volatility: What follows from the value, if that is known already; None: to be found.
        near: Where the search for the volatility begins.
    """

    terms: OptionTerms
    value: float
    value_at: datetime
    spot_then: float | None
    spot: float
    volatility: float | Reason | None = None
    near: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledGreeks:
    """Greeks in the gateway's units: vega per point of volatility, theta per calendar day."""

    implied_vol: float
    delta: float
    gamma: float
    vega: float
    theta: float
    underlying_price: float


def greeks_of_account(
    options: Sequence[ValuedOption], now: datetime
) -> tuple[list[float | Reason], list[ModelledGreeks | Reason]]:
    """Return the volatility and the greeks of each option, or why it has none."""
    volatility = _volatilities(options)
    found: list[ModelledGreeks | Reason] = [
        NoGreeks.EXPIRED if one.terms.expires_at <= now
        else vol if isinstance(vol, StrEnum)
        else NoGreeks.NOT_COMPUTED
        for one, vol in zip(options, volatility, strict=True)
    ]  # fmt: skip
    places = [n for n, one in enumerate(found) if one is NoGreeks.NOT_COMPUTED]
    if places:
        chosen = [options[n] for n in places]
        spot = np.array([one.spot for one in chosen])
        known = np.array([volatility[n] for n in places], dtype=float)
        terms = as_options([one.terms for one in chosen], [now] * len(chosen), spot.tolist())
        computed = model.greeks(terms, spot, known, model.COARSE)
        rows = np.stack(
            [known, computed.delta, computed.gamma, computed.vega, computed.theta, spot]
        )
        for n, row in zip(places, rows.T, strict=True):
            if np.isfinite(row).all():
                found[n] = ModelledGreeks(**dict(zip(_FIELDS, row.tolist(), strict=True)))
    return volatility, found


_FIELDS = ("implied_vol", "delta", "gamma", "vega", "theta", "underlying_price")


def _volatilities(options: Sequence[ValuedOption]) -> list[float | Reason]:
    found: list[float | Reason] = []
    places = []
    for n, one in enumerate(options):
        if one.volatility is not None:
            found.append(one.volatility)
        elif one.terms.expires_at <= one.value_at:
            found.append(NoGreeks.EXPIRED)
        elif one.spot_then is None:
            found.append(NoGreeks.NO_PRICE_THEN)
        else:
            places.append(n)
            found.append(NoGreeks.NOT_COMPUTED)
    if places:
        chosen = [options[n] for n in places]
        spots = np.array([one.spot_then for one in chosen], dtype=float)
        times = [one.value_at for one in chosen]
        solved, reasons = model.implied_volatility(
            as_options([one.terms for one in chosen], times, spots.tolist()),
            np.array([one.value for one in chosen]),
            spots,
            np.array([one.near or FIRST_GUESS for one in chosen]),
            model.COARSE,
        )
        for n, volatility, reason in zip(places, solved.tolist(), reasons, strict=True):
            found[n] = reason or volatility
    return found
