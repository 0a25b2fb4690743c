"""Why the price of an option moved, by full revaluation in steps: spot, then volatility, then time.

Greeks describe small moves. Near the expiry they change faster than the price does; the model at
both ends says the same without them, and its steps add up to what the price moved by.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import repeat
from typing import NamedTuple

import numpy as np

from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.model import Array, VanillaOptions
from position_sync_dagster.money.risk.terms import FIRST_GUESS, OptionTerms, as_options

# Steps of a lattice, by the greatest time to expiry: near it as for prices, else as for the greeks
# of a whole account. Both ends of a move have the same, so that their error is in no step.
STEPS = {0.25: model.STEPS[0.25], math.inf: model.COARSE[math.inf]}


class OptionValues(NamedTuple):
    """What options were worth at a moment, in the major unit.

    Attributes:
        price: The price of one unit of the underlying of each option.
        spot: The price of its underlying.
    """

    at: datetime
    price: Array
    spot: Array


class PriceSteps(NamedTuple):
    """By how much each step moved the price of one unit of options, in the major unit.

    Attributes:
        spot: The move of the underlying, at the volatility and the time of the start.
        volatility: The change of the volatility, at the time of the start.
        time: What passed until the end, dividends among it.
    """

    spot: Array
    volatility: Array
    time: Array


def price_steps(terms: Sequence[OptionTerms], start: OptionValues, end: OptionValues) -> PriceSteps:
    """Return the steps of each option between two moments.

    Each end has the volatility that its price shows. A price that shows none, as deep in the money,
    hardly depends on it: there the volatility of the other end counts, and the lowest one where
    neither end shows any. What the steps then leave of the move is the caller's to name.
    """
    if not terms:
        return PriceSteps(*np.empty((3, 0)))

    first = as_options(terms, repeat(start.at), start.spot.tolist())
    last = as_options(terms, repeat(end.at), end.spot.tolist())
    shown_before = _shown_volatility(first, start)
    shown_after = _shown_volatility(last, end)
    before = _first_known(shown_before, shown_after)
    after = _first_known(shown_after, shown_before)

    at_start = _prices(first, start.spot, before)
    after_spot = _prices(first, end.spot, before)
    after_volatility = _prices(first, end.spot, after)
    at_end = _prices(last, end.spot, after)
    return PriceSteps(
        spot=after_spot - at_start,
        volatility=after_volatility - after_spot,
        time=at_end - after_volatility,
    )


def _shown_volatility(options: VanillaOptions, values: OptionValues) -> Array:
    """Return the volatility that each price shows; NaN where it shows none, as at the expiry."""
    shown = np.full(len(options), np.nan)
    alive = np.flatnonzero(options.years > 0)
    if alive.size:
        near = np.full(alive.size, FIRST_GUESS)
        shown[alive], _reasons = model.implied_volatility(
            options.at(alive), values.price[alive], values.spot[alive], near, STEPS
        )
    return shown


def _first_known(volatility: Array, otherwise: Array) -> Array:
    """Return each volatility; the other one where it is not known, and the lowest without both."""
    known = np.where(np.isnan(volatility), otherwise, volatility)
    return np.where(np.isnan(known), model.LOWEST_VOLATILITY, known)


def _prices(options: VanillaOptions, spot: Array, volatility: Array) -> Array:
    return model.prices(options, spot[:, None], volatility, STEPS)[:, 0]
