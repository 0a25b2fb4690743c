"""The value of one option: its volatility from a price, and price and greeks from a volatility."""

from datetime import datetime

import numpy as np

from position_sync_dagster.risk import model
from position_sync_dagster.risk.terms import FIRST_GUESS, OptionTerms, as_options


def volatility_of(terms: OptionTerms, price: float, spot: float, now: datetime) -> float | None:
    """Return the volatility that a price shows; None: it shows none."""
    volatility, _reasons = model.implied_volatility(
        as_options([terms], [now], [spot]),
        np.array([price]),
        np.array([spot]),
        np.array([FIRST_GUESS]),
    )
    return None if np.isnan(volatility[0]) else float(volatility[0])


def greeks_of(
    terms: OptionTerms, spot: float, volatility: float, now: datetime
) -> dict[str, float]:
    """Return `price`, `delta`, `gamma`, `vega` and `theta` of one unit, in the major unit."""
    options = as_options([terms], [now], [spot])
    greeks = model.greeks(options, np.array([spot]), np.array([volatility]))
    names = ("price", "delta", "gamma", "vega", "theta")
    return {name: float(getattr(greeks, name)[0]) for name in names}
