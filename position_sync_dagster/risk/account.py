"""Implied volatilities and greeks of all options of an account, as one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np

from position_sync_dagster.domain.broker_position import HoldingGreeks
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


@dataclass(slots=True, kw_only=True)
class ModelledLeg:
    """An option: what its greeks follow from, and its newest greeks, or why it has none.

    Attributes:
        value, value_at: The broker's value of one unit of the underlying, and when it was true;
            None before the first.
        spot_then: The price of the underlying at that time; None: unknown.
        spot, spot_at: The newest price of the underlying, and when it came.
        volatility: What follows from value and `spot_then`, or why nothing does; None: not
            computed.
        near: Where the search for the volatility begins.
        used: The price `spot` of the last batch; None before the first.
        greeks: Those of the last batch, with `spot` as the price of the underlying.
    """

    conid: int
    terms: OptionTerms | Reason
    underlying: int
    value: float = 0.0
    value_at: datetime | None = None
    spot_then: float | None = None
    spot: float | None = None
    spot_at: datetime | None = None
    volatility: float | Reason | None = None
    near: float = FIRST_GUESS
    used: float | None = None
    greeks: HoldingGreeks | None = None
    reason: Reason | None = None


def compute(legs: Sequence[ModelledLeg], now: datetime) -> None:
    """Find the volatility and the greeks of options with a value and a price, or the reasons."""
    priced = [(leg, leg.terms) for leg in legs if isinstance(leg.terms, OptionTerms)]
    _find_volatilities([one for one in priced if one[0].volatility is None])
    alive = []
    for leg, terms in priced:
        leg.greeks, leg.reason, leg.used = None, NoGreeks.NOT_COMPUTED, leg.spot
        if terms.expires_at <= now:
            leg.reason = NoGreeks.EXPIRED
        elif isinstance(leg.volatility, StrEnum):
            leg.reason = leg.volatility
        else:
            alive.append((leg, terms))
    if not alive:
        return
    spot = np.array([leg.spot for leg, _terms in alive], dtype=float)
    volatility = np.array([leg.volatility for leg, _terms in alive], dtype=float)
    options = as_options([terms for _leg, terms in alive], [now] * len(alive), spot.tolist())
    found = model.greeks(options, spot, volatility, model.COARSE)
    rows = np.stack([volatility, found.delta, found.gamma, found.vega, found.theta, spot])
    for (leg, terms), row in zip(alive, rows.T, strict=True):
        if np.isfinite(row).all() and leg.value_at is not None:
            leg.reason = None
            leg.greeks = HoldingGreeks(
                **dict(zip(_NUMBERS, row.tolist(), strict=True)),
                greeks_time=leg.spot_at,
                greeks_method=terms.text,
                volatility_time=leg.value_at,
            )


_NUMBERS = ("implied_vol", "delta", "gamma", "vega", "theta", "underlying_price")


def _find_volatilities(legs: Sequence[tuple[ModelledLeg, OptionTerms]]) -> None:
    asked = []
    for leg, terms in legs:
        if leg.value_at is None or terms.expires_at <= leg.value_at:
            leg.volatility = NoGreeks.EXPIRED
        elif leg.spot_then is None:
            leg.volatility = NoGreeks.NO_PRICE_THEN
        else:
            asked.append((leg, terms, leg.value_at, leg.spot_then))
    if not asked:
        return
    legs_asked, terms_of, times, spots = zip(*asked, strict=True)
    found, reasons = model.implied_volatility(
        as_options(terms_of, times, spots),
        np.array([leg.value for leg in legs_asked]),
        np.array(spots),
        np.array([leg.near for leg in legs_asked]),
        model.COARSE,
    )
    for leg, volatility, reason in zip(legs_asked, found.tolist(), reasons, strict=True):
        leg.volatility = reason or volatility
        leg.near = leg.near if reason else volatility
