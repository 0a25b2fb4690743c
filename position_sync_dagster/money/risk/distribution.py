"""The prices that our model thinks possible at an expiry, and what a payoff brings over them.

The model is the one that prices the options: the logarithm of the price is normal around the
forward `F`, with the deviation `d = σ √T` of the option that is nearest to the money. Below a price
`S`, with `z = ln(S / F) / d + d / 2`,

    probability = N(z)    mean of the prices there = F N(z − d)

A payoff is a line between two of its corners, so that its mean is exact. No drift but that of the
forward, and no smile: it is a number of the model, not a forecast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.payoff import Payoff
from position_sync_dagster.money.risk.priced_legs import PricedLeg
from position_sync_dagster.money.risk.proposed_trade import nearest_option
from position_sync_dagster.money.risk.terms import as_options

# Where legs live on, a payoff is a curve: so many prices within these deviations make it lines.
PRICES, DEVIATIONS = 97, 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The distribution of the price of an underlying at an expiry.

    Attributes:
        forward: Its mean.
        deviation: The standard deviation of its logarithm.
    """

    forward: float
    deviation: float

    def below(self, prices: model.Array) -> tuple[model.Array, model.Array]:
        """Return the probability of less than each price, and the part of the mean from there."""
        logarithms = np.log(np.maximum(prices, 1e-300) / self.forward)
        z = logarithms / self.deviation + self.deviation / 2
        return model.normal(z), self.forward * model.normal(z - self.deviation)

    @property
    def typical_prices(self) -> model.Array:
        """Prices within some deviations, evenly in their logarithm."""
        z = np.linspace(-DEVIATIONS, DEVIATIONS, PRICES)
        return self.forward * np.exp(self.deviation * (z - self.deviation / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """What the distribution says of a payoff: how likely a profit is, and the mean profit."""

    probability_of_profit: float
    expected_value: float


def distribution_at_expiry(
    legs: Sequence[PricedLeg], spot: float, now: datetime
) -> Distribution | None:
    """Return the distribution at the first expiry of legs; None: the model does not price it."""
    first = min((leg.delivered.expires_at for leg in legs if leg.delivered), default=None)
    if first is None or first <= now:
        return None
    nearest = nearest_option(legs, spot, first, now)
    terms = None if nearest is None else nearest.priced
    if nearest is None or terms is None or terms.expires_at != first:
        return None

    options = as_options([terms], [now], [spot])
    forward = float(options.forwards(np.array([[spot]]))[0, 0])
    deviation = nearest.row["implied_vol"] * float(options.years[0]) ** 0.5
    return Distribution(forward=forward, deviation=deviation)


def odds_of(payoff: Payoff, distribution: Distribution) -> Odds | None:
    """Return the odds of a payoff; None: its profit is not known."""
    if payoff.profit_at is None:
        return None

    corners = [corner.price for corner in payoff.corners]
    inner = [*corners, *(payoff.break_evens or ()), *distribution.typical_prices]
    low = np.unique([0.0, *inner])
    high = np.append(low[1:], 2 * low[-1])
    profit_low = payoff.profit_at(low)
    profit_high = payoff.profit_at(high)

    below, mean_below = distribution.below(low)
    probability = np.diff(below, append=1.0)
    mean = np.diff(mean_below, append=distribution.forward)
    slope = (profit_high - profit_low) / (high - low)
    at_zero = profit_low - slope * low
    is_gain = profit_low + profit_high > 0
    return Odds(
        probability_of_profit=float(probability[is_gain].sum()),
        expected_value=float(at_zero @ probability + slope @ mean),
    )
