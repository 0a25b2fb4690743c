"""Why the price of an option moved, by full revaluation in steps: spot, then volatility, then time.

Greeks describe small moves. Near the expiry they change faster than the price does; the model at
both ends says the same without them, and its steps add up to what the price moved by.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from position_sync_dagster.risk import model
from position_sync_dagster.risk.model import Array, VanillaOptions
from position_sync_dagster.risk.terms import FIRST_GUESS, OptionTerms, as_options

# Steps of a lattice, by the greatest time to expiry: near it as for prices, else as for the greeks
# of a whole account. Both ends of a move have the same, so that their error is in no step.
STEPS = {0.25: model.STEPS[0.25], math.inf: model.COARSE[math.inf]}


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedMoment:
    """What an option was worth at a moment, in the major unit.

    Attributes:
        price: The price of one unit of the underlying of the option.
        spot: The price of the underlying.
    """

    at: datetime
    price: float
    spot: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionMove:
    """An option at two moments."""

    terms: OptionTerms
    start: PricedMoment
    end: PricedMoment


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSteps:
    """By how much each step moved the price of one unit, in the major unit.

    Attributes:
        spot: The move of the underlying, at the volatility and the time of the start.
        volatility: The change of the volatility, at the time of the start.
        time: What passed until the end, dividends among it.
    """

    spot: float
    volatility: float
    time: float


def price_steps(moves: Sequence[OptionMove]) -> list[PriceSteps]:
    """Return the steps of each move.

    Each end has the volatility that its price shows. A price that shows none, as deep in the money,
    hardly depends on it: there the volatility of the other end counts, and the lowest one where
    neither end shows any. What the steps then leave of the move is the caller's to name.
    """
    if not moves:
        return []
    first, last = _options(moves)
    spot_before = np.array([move.start.spot for move in moves])
    spot_after = np.array([move.end.spot for move in moves])
    price_before = np.array([move.start.price for move in moves])
    price_after = np.array([move.end.price for move in moves])

    shown_before = _shown_volatility(first, price_before, spot_before)
    shown_after = _shown_volatility(last, price_after, spot_after)
    before = _first_known(shown_before, shown_after)
    after = _first_known(shown_after, shown_before)

    at_start = _prices(first, spot_before, before)
    after_spot = _prices(first, spot_after, before)
    after_volatility = _prices(first, spot_after, after)
    at_end = _prices(last, spot_after, after)
    steps = np.stack(
        [after_spot - at_start, after_volatility - after_spot, at_end - after_volatility], axis=1
    )
    return [
        PriceSteps(spot=spot, volatility=volatility, time=time)
        for spot, volatility, time in steps.tolist()
    ]


def _options(moves: Sequence[OptionMove]) -> tuple[VanillaOptions, VanillaOptions]:
    """Return the options as they are at the start, and at the end."""
    terms = [move.terms for move in moves]
    starts = [move.start for move in moves]
    ends = [move.end for move in moves]
    first = as_options(terms, [start.at for start in starts], [start.spot for start in starts])
    last = as_options(terms, [end.at for end in ends], [end.spot for end in ends])
    return first, last


def _shown_volatility(options: VanillaOptions, price: Array, spot: Array) -> Array:
    """Return the volatility that each price shows; NaN where it shows none, as at the expiry."""
    shown = np.full(len(options), np.nan)
    alive = np.flatnonzero(options.years > 0)
    if alive.size:
        near = np.full(alive.size, FIRST_GUESS)
        volatility, _reasons = model.implied_volatility(
            options.at(alive), price[alive], spot[alive], near, STEPS
        )
        shown[alive] = volatility
    return shown


def _first_known(volatility: Array, otherwise: Array) -> Array:
    """Return each volatility; the other one where it is not known, and the lowest without both."""
    known = np.where(np.isnan(volatility), otherwise, volatility)
    return np.where(np.isnan(known), model.LOWEST_VOLATILITY, known)


def _prices(options: VanillaOptions, spot: Array, volatility: Array) -> Array:
    return model.prices(options, spot[:, None], volatility, STEPS)[:, 0]
