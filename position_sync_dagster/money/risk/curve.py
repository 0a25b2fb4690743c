"""Profit and greeks of legs over the price of their underlying: now, on a day to come, at expiry.

The profit is that since the legs were opened, so that it compares with the payoff. A leg without a
price of the model makes it unknown, and is listed with the reason.

The odds are of the model that prices the options, no forecast: the logarithm of the price at the
next expiry is normal around the forward `F`, with the deviation `d = σ √T` of the option that is
nearest to the money. Below a price `S`, with `z = ln(S / F) / d + d / 2`,

    probability = N(z)    mean of the prices there = F N(z − d)

A payoff is a line between two of its corners, so that its mean is exact.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

import numpy as np
from polars import col
from pydantic import BaseModel, ConfigDict

from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.payoff import Payoff, payoff_of
from position_sync_dagster.money.risk.priced_legs import NewRow, PricedLeg, PricedLegs
from position_sync_dagster.money.risk.proposed_trade import nearest_option
from position_sync_dagster.money.risk.scenario_file import Point
from position_sync_dagster.money.risk.scenarios import changes
from position_sync_dagster.money.risk.terms import GREEKS, as_options

# The number of prices between the ends of a curve; strikes and break-evens come besides.
PRICES = 61

# A curve reaches beyond its price and strikes by half of their span, which is
# at least this part of the price.
LEAST_SPAN = 0.2

# Where legs live on, a payoff is a curve: so many prices within these deviations make it lines.
WEIGHED = 97
DEVIATIONS = 6.0

NO_PROFIT = "its profit since it was opened is not known"


# What answers for programs have in common: no other names than these, and all of them.
ANSWER = ConfigDict(
    frozen=True,
    extra="forbid",
    use_attribute_docstrings=True,
    json_schema_serialization_defaults_required=True,
)


class AtExpiry(BaseModel):
    """What some legs bring at their next expiry."""

    model_config = ANSWER

    account: str
    currency: str
    break_evens: list[float] | None = None
    """Null: not known."""
    greatest_profit: float | None = None
    """Null with break-evens: unbounded."""
    greatest_loss: float | None = None
    """The lowest profit; null with break-evens: unbounded."""
    why: str | None = None
    """What is unbounded or not known."""
    note: str | None = None
    """What is wrong with the legs of the strategy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpricedLeg:
    """A leg that cannot be priced."""

    leg: str
    strategy: str
    reason: str


class CurveRow(AtExpiry):
    """Profit and greeks of some legs of an account over the price of their underlying.

    The profit is that since the legs were opened. A list that is null is not known.
    """

    underlying: str
    legs: list[str]
    spot: float | None = None
    next_expiry: datetime | None
    last_expiry: datetime | None
    expected_move: float | None = None
    """One standard deviation of the price until the next expiry, by our model."""
    probability_of_profit: float | None = None
    """Of a profit at the next expiry, by the distribution of our model."""
    expected_value: float | None = None
    """The mean profit at the next expiry, by the same distribution."""
    reached: float | None = None
    """The profit now as a part of the greatest profit; null: not known, or unbounded."""
    moves: list[float] = []
    """In percent, ascending; the other lists have a number for each."""
    prices: list[float] | None = None
    """Prices of the underlying; null: not known."""
    now: list[float] | None = None
    """The profit at once."""
    chosen: list[float] | None = None
    """The profit on the chosen day at the chosen volatilities."""
    at_expiry: list[float] | None = None
    """The profit at the next expiry."""
    delta: list[float] | None = None
    """In units of the underlying, on the chosen day as all greeks."""
    dollar_delta: list[float] | None = None
    gamma_1pct: list[float] | None = None
    theta: list[float] | None = None
    vega: list[float] | None = None
    left_out: list[UnpricedLeg]
    """The legs that cannot be priced: with one of them, profits are not known."""


# Which legs have a curve of their own.
CURVE_KEY = ("account", "currency", "under")
CurveKey = tuple[str, str, str]


def curve_keys(legs: PricedLegs) -> list[CurveKey]:
    """Return the account, the currency and the underlying of each curve of legs, in order."""
    return legs.parts.select(CURVE_KEY).unique().sort(CURVE_KEY).rows()


def first_drawn(legs: PricedLegs) -> CurveKey | None:
    """Return the first key whose curve can be drawn, since all of its legs can be priced."""
    has_prices = (col.spot > 0).fill_null(value=False)
    is_known = col.reason.is_null() & col.unrealized_pnl.is_not_null()
    is_drawn = (has_prices & is_known).all().over(CURVE_KEY)
    drawn = legs.parts.filter(is_drawn).select(CURVE_KEY).sort(CURVE_KEY)
    return next(drawn.iter_rows(), None)


def curves_of(
    legs: PricedLegs,
    shift: Point,
    notes: Sequence[str] = (),
    keys: Iterable[CurveKey] | None = None,
) -> list[CurveRow]:
    """Return the curves of legs, for each account, currency and underlying.

    Args:
        legs: The chosen parts of holdings.
        shift: The days that have passed, and the change of the volatilities, of `chosen`.
        notes: What is wrong with the legs of their strategy.
        keys: Those of the wanted curves; None: all.
    """
    curves = []
    for key in curve_keys(legs) if keys is None else keys:
        of_key = dict(zip(CURVE_KEY, key, strict=True))
        curves.append(_curve_of(legs.where(**of_key), shift, notes))
    return curves


def _curve_of(legs: PricedLegs, shift: Point, notes: Sequence[str]) -> CurveRow:
    """Return the curve of one underlying."""
    each = sorted(legs, key=attrgetter("order"))
    realised = known_sum(legs.settled["realised"])
    payoff = payoff_of(each, legs.given.now, notes, realised)
    left_out = [*_left_out(each)]
    to_come = expiries_to_come(legs)
    curve: NewRow = {name: getattr(payoff, name) for name in _OF_PAYOFF}
    curve |= {"underlying": payoff.under, "left_out": left_out}
    curve |= {"next_expiry": min(to_come, default=None), "last_expiry": max(to_come, default=None)}
    spot = legs.parts["spot"].median()
    if not isinstance(spot, float) or spot <= 0:  # a future may cost less than nothing
        return CurveRow(**curve)

    prices = _prices(each, payoff, spot)
    moves = 100 * (prices / spot - 1)
    curve |= {"spot": spot, "moves": moves.tolist(), "prices": prices.tolist()}
    if payoff.profit_at is not None:
        curve["at_expiry"] = payoff.profit_at(prices).tolist()

    distribution = distribution_at_expiry(each, spot, legs.given.now)
    if distribution is not None:
        curve["expected_move"] = spot * distribution.deviation
        curve |= odds_of(payoff, distribution)

    if left_out or realised is None:
        return CurveRow(**curve)

    gained = realised + float(legs.parts["unrealized_pnl"].sum())
    curve["now"], curve["chosen"] = _profits(legs, moves, shift, gained)
    curve |= _greeks_along(legs, moves, shift)
    greatest = payoff.greatest_profit or 0.0
    if greatest > 0:
        curve["reached"] = gained / greatest
    return CurveRow(**curve)


# What a curve has of a payoff.
_OF_PAYOFF = (
    "account", "currency", "legs", "break_evens", "greatest_profit", "greatest_loss", "why", "note",
)  # fmt: skip


def expiries_to_come(legs: PricedLegs) -> list[datetime]:
    """Return when each of the legs expires that has not yet."""
    return [moment for moment in _expiries(legs) if moment > legs.given.now]


def _expiries(legs: Iterable[PricedLeg]) -> list[datetime]:
    """Return when each of the options expires."""
    return [leg.delivered.expires_at for leg in legs if leg.delivered]


def _left_out(legs: Iterable[PricedLeg]) -> Iterator[UnpricedLeg]:
    """Yield the legs that cannot be priced, or whose profit since they were opened is unknown."""
    for leg in legs:
        reason = leg.row["reason"]
        if not reason and leg.row["unrealized_pnl"] is None:
            reason = NO_PROFIT
        if reason:
            yield UnpricedLeg(leg=leg.name, strategy=leg.row["strategy_id"], reason=reason)


def _prices(legs: Iterable[PricedLeg], payoff: Payoff, spot: float) -> model.Array:
    """Return the prices of a curve: even ones, the strikes and the break-evens between them."""
    corners = [spot, *(leg.delivered.strike for leg in legs if leg.delivered)]
    lowest = min(corners)
    highest = max(corners)
    beyond = max(highest - lowest, LEAST_SPAN * spot) / 2
    low = max(lowest - beyond, spot / 100)
    high = highest + beyond

    even = np.linspace(low, high, PRICES)
    prices = np.array([*even, *corners, *(payoff.break_evens or ())])
    return np.unique(prices[(prices >= low) & (prices <= high)])


def _profits(
    legs: PricedLegs, moves: model.Array, shift: Point, gained: float
) -> tuple[list[float], list[float]]:
    """Return the profit at each move, now and later.

    Args:
        legs: Parts that can all be priced.
        moves: Moves of the underlying, in percent.
        shift: What has changed later.
        gained: The profit without a move.
    """
    points = [Point(spot=move) for move in moves.tolist()]
    if shift.vol or shift.days:
        points += [Point(spot=move, vol=shift.vol, days=shift.days) for move in moves.tolist()]

    changed = legs.sizes * changes(legs, points)
    profits = (changed.sum(axis=0) + gained).tolist()
    count = len(moves)
    return profits[:count], profits[-count:]


def _greeks_along(legs: PricedLegs, moves: model.Array, shift: Point) -> dict[str, list[float]]:
    """Return the greeks of parts that can all be priced at each move, on the chosen day."""
    spots = legs.parts.select("spot").to_numpy() * (1 + moves / 100)

    # A share or a future moves with its price, and has no other greek.
    of_parts = {name: np.zeros(spots.shape) for name in GREEKS}
    of_parts["delta"] += 1.0

    places = legs.options
    options, _spot, volatility = legs.modelled(places)
    later_volatility = model.within_bounds(volatility + shift.vol / 100)
    later = options.later(shift.days)
    greeks = model.greeks(later, spots[places], later_volatility, model.COARSE)
    for name, rows in of_parts.items():
        rows[places] = getattr(greeks, name)

    of_parts["dollar_delta"] = of_parts["delta"] * spots
    of_parts["gamma_1pct"] = of_parts.pop("gamma") * spots**2 / 100
    sizes = legs.sizes
    return {name: (sizes * rows).sum(axis=0).tolist() for name, rows in of_parts.items()}


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
        z = np.linspace(-DEVIATIONS, DEVIATIONS, WEIGHED)
        return self.forward * np.exp(self.deviation * (z - self.deviation / 2))


def distribution_at_expiry(
    legs: Sequence[PricedLeg], spot: float, now: datetime
) -> Distribution | None:
    """Return the distribution at the first expiry of legs; None: the model does not price it."""
    first = min(_expiries(legs), default=None)
    if first is None or first <= now:
        return None

    nearest = nearest_option(legs, spot, first, now)
    if not (nearest and nearest.priced and nearest.priced.expires_at == first):
        return None

    options = as_options([nearest.priced], [now], [spot])
    forward = options.forwards(np.array([[spot]])).item()
    deviation = nearest.row["implied_vol"] * options.years.item() ** 0.5
    return Distribution(forward=forward, deviation=deviation)


def odds_of(payoff: Payoff, distribution: Distribution) -> dict[str, float]:
    """Return how likely a profit of a payoff is, and the mean; empty: its profit is not known."""
    if payoff.profit_at is None:
        return {}

    corners = [corner.price for corner in payoff.corners]
    inner = [*corners, *(payoff.break_evens or ()), *distribution.typical_prices]
    low = np.unique([0.0, *inner])
    edges = np.append(low, 2 * low[-1])
    profits = payoff.profit_at(edges)
    profit_low = profits[:-1]
    profit_high = profits[1:]

    below, mean_below = distribution.below(low)
    probability = np.diff(below, append=1.0)
    mean = np.diff(mean_below, append=distribution.forward)
    slope = (profit_high - profit_low) / np.diff(edges)
    at_zero = profit_low - slope * low
    is_gain = profit_low + profit_high > 0
    probability_of_profit = float(probability[is_gain].sum())
    expected_value = float(at_zero @ probability + slope @ mean)
    return {"probability_of_profit": probability_of_profit, "expected_value": expected_value}
