"""The payoff of strategies at their next expiry: break-evens, greatest profit and greatest loss.

With one expiry this is arithmetic, whatever the model says. With `q` units of each leg, `c` what
they cost and `S` the price of the underlying,

    profit(S) = Σ q · worth(S) − Σ c,    worth(S) = S, or max(0, ±(S − strike)) of an option

which is a line between its corners at zero and at the strikes. Beyond the last corner its slope is
the sum of `q` over shares, futures and calls.

Where legs live on after the first expiry, as in a calendar, the model says what they are worth on
that day. The profit between two corners is then a curve, which is searched to a cent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date, datetime, timedelta
from itertools import pairwise, repeat
from operator import itemgetter
from typing import Any

import numpy as np

from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.money.past.movements import first_reasons, known_sum
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.priced_legs import PricedLeg, PricedLegs
from position_sync_dagster.money.risk.terms import ExerciseTerms, NotPriced, OptionTerms, as_options

# Amounts and prices below this are the rounding of sums.
ROUNDING_DIGITS = 6

# What is smaller than this part of the gross amount is zero.
ZERO = 1e-10

# Standard deviations beyond the last corner at which a curve is as straight as its limit.
FAR = 8.0

# How many prices are tried between two corners, and between two prices that were tried.
TRIED = 48
TRIED_AGAIN = 16

# The search for a price ends when two of them are as near as this part of it.
NEAR = 1e-8

# How many of the highest and the lowest prices that were tried are searched around.
MOST_PEAKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Corner:
    """A price of the underlying, and the profit there."""

    price: float
    profit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Payoff:
    """The profit of a strategy at its next expiry, over the price of one underlying.

    Attributes:
        strategy: None: of several.
        underlying: The symbol.
        under: The name of the underlying, as `PricedLegs.parts` has it: of a future with its month.
        expiry: The first day on which a leg expires, in New York; None: none does.
        break_evens: The prices at which the profit is 0, ascending; None: not known.
        greatest_profit, greatest_loss: The highest and the lowest profit; None: unbounded, or not
            known.
        why: What is unbounded or not known; None: nothing.
        note: What is wrong with the legs; None: nothing.
        corners: The profit at zero, at each strike, and at its extremes; none if it is not known.
        legs: The contracts, with their quantities.
        profit_at: Returns the profit at some prices; None: it is not known.
    """

    strategy: str | None
    account: str
    underlying: str
    currency: str
    under: str
    expiry: date | None
    break_evens: tuple[float, ...] | None = None
    greatest_profit: float | None = None
    greatest_loss: float | None = None
    why: str | None = None
    note: str | None = None
    corners: tuple[Corner, ...] = ()
    legs: tuple[str, ...] = ()
    profit_at: Callable[[model.Array], model.Array] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def row(self) -> dict[str, Any]:
        """The payoff for a program."""
        row = {part.name: getattr(self, part.name) for part in fields(self)}
        del row["under"], row["profit_at"]
        return row | {"corners": [asdict(corner) for corner in self.corners]}


def payoffs(legs: PricedLegs, notes: Mapping[str, Sequence[str]] | None = None) -> list[Payoff]:
    """Return the payoff of each strategy, account, underlying and currency.

    Args:
        legs: The parts of the holdings.
        notes: What is wrong with the legs of strategies, by the name of the strategy.
    """
    group_of = itemgetter("strategy_id", "account", "under", "currency")
    groups = grouped(lambda leg: group_of(leg.row), legs)
    notes_of = notes or {}
    settled = grouped(group_of, legs.settled.to_dicts())

    result = []
    for key in sorted(groups, key=str):
        strategy, _account, _under, _currency = key
        notes_of_strategy = notes_of.get(strategy, ())
        realised = known_sum(row["realised"] for row in settled[key])
        result.append(payoff_of(groups[key], legs.given.now, notes_of_strategy, realised=realised))
    return result


def payoff_of(
    legs: Sequence[PricedLeg],
    now: datetime,
    notes: Sequence[str] = (),
    steps: model.Steps = model.FINE,
    realised: float | None = 0.0,
) -> Payoff:
    """Return the payoff of legs of one account and underlying, of one strategy or of several.

    Args:
        legs: At least one.
        now: The present moment.
        notes: What is wrong with them.
        steps: Steps of the lattices of those that live on.
        realised: What trades realise that closed others of the strategy; None: not known.
    """
    expiry = min(filter(None, map(_expiry_of, legs)), default=None)
    first = legs[0].row
    strategies = {leg.row["strategy_id"] for leg in legs}
    payoff = Payoff(
        strategy=first["strategy_id"] if len(strategies) == 1 else None,
        account=first["account"],
        underlying=first["symbol"],
        currency=first["currency"],
        under=first["under"],
        expiry=expiry,
        note="; ".join(notes) or None,
        legs=tuple(leg.text for leg in legs),
    )
    unknown = list(_unknown(legs, expiry))
    if realised is None:
        unknown.append("the average cost of what trades close")
    if realised is None or unknown:
        return replace(payoff, why=f"not known: {first_reasons(unknown)}")

    profit = _profit_of(legs, expiry, now, steps)
    profit = replace(profit, cost=profit.cost - realised)
    if profit.living:
        break_evens, prices, profits = _search_curve(profit)
    else:
        break_evens, prices, profits = _solve_lines(profit)

    slope = profit.slope_beyond
    unbounded = []
    if slope > 0:
        unbounded.append("the greatest profit is unbounded")
    if slope < 0:
        unbounded.append("the greatest loss is unbounded")

    corners = [
        Corner(price=_rounded(price), profit=_rounded(amount))
        for price, amount in zip(prices.tolist(), profits.tolist(), strict=True)
    ]
    return replace(
        payoff,
        break_evens=tuple(sorted(set(map(_rounded, break_evens)))),
        greatest_profit=None if slope > 0 else _rounded(profits.max()),
        greatest_loss=None if slope < 0 else _rounded(profits.min()),
        why="; ".join(unbounded) or None,
        corners=tuple(corners),
        profit_at=profit.at,
    )


def _expiry_of(leg: PricedLeg) -> date | None:
    """Return the day on which an option expires, in New York; None: it is none, or not known."""
    if leg.delivered is None:
        return None
    return exchange_date(leg.delivered.expires_at)


def _unknown(legs: Iterable[PricedLeg], expiry: date | None) -> Iterable[str]:
    """Yield what the payoff needs of legs and is not known."""
    for leg in legs:
        if leg.row["average_cost"] is None:
            yield f"the average cost of {leg.name}"
        if isinstance(leg.terms, NotPriced):
            yield f"{leg.name}: {leg.terms}"
            continue

        lives_on = leg.delivered is not None and _expiry_of(leg) != expiry
        if lives_on and not leg.row["implied_vol"]:
            yield f"{leg.name}, which lives on: {NotPriced.NO_VOLATILITY}"
        elif lives_on and leg.priced is None:
            yield f"{leg.name}, which lives on: {NotPriced.NO_RATE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Profit:
    """The profit of some legs on the day of their first expiry.

    Attributes:
        cost: What they cost.
        linear: The units of shares and futures.
        ending: The options that expire on that day, with their units.
        slope: That of the profit above `top`.
        top: A price above all corners, from which on the profit is a line.
        living: The options that live on, with their units.
        values: Returns what one unit of each living option is worth at some prices.
    """

    cost: float
    linear: float
    ending: Sequence[tuple[float, ExerciseTerms]]
    slope: float
    top: float
    living: Sequence[tuple[float, OptionTerms]] = ()
    values: Callable[[model.Array], model.Array] = np.zeros_like

    @property
    def corner_prices(self) -> list[float]:
        """The price zero, and each strike."""
        corners = {0.0}
        for _size, terms in (*self.ending, *self.living):
            corners.add(terms.strike)
        return sorted(corners)

    @property
    def slope_beyond(self) -> float:
        """The slope beyond the last corner; 0 if it is the rounding of a sum."""
        units = abs(self.linear)
        for size, _terms in (*self.ending, *self.living):
            units += abs(size)
        if abs(self.slope) <= 1e-9 * units:
            return 0.0
        return self.slope

    def at(self, prices: model.Array) -> model.Array:
        """Return the profit at some prices of the underlying."""
        total = self.linear * prices - self.cost
        for size, terms in self.ending:
            worth = np.maximum(0.0, terms.side * (prices - terms.strike))
            total = total + size * worth

        if self.living:
            sizes = np.array([size for size, _terms in self.living])
            total = total + sizes @ self.values(prices)
        return total


def _profit_of(
    legs: Sequence[PricedLeg], expiry: date | None, now: datetime, steps: model.Steps
) -> _Profit:
    """Return the profit of legs whose costs and terms are known."""
    cost = 0.0
    linear = 0.0
    ending = []
    living = []
    volatilities = []
    spots = []

    for leg in legs:
        cost += leg.quantity * leg.row["average_cost"]
        if leg.delivered is None:
            linear += leg.size
        elif _expiry_of(leg) == expiry:
            ending.append((leg.size, leg.delivered))
        elif leg.priced is not None:
            living.append((leg.size, leg.priced))
            volatilities.append(leg.row["implied_vol"])
            # The forecast of a dividend is a part of the price; without a price it stays an amount.
            spots.append(leg.row["spot"] or leg.priced.strike)

    slope = linear
    top = 0.0
    for size, terms in ending:
        top = max(top, terms.strike)
        if terms.side > 0:
            slope += size
    profit = _Profit(cost=cost, linear=linear, ending=ending, slope=slope, top=top)
    if not living:
        return profit

    first_end = max(terms.expires_at for _size, terms in ending)
    days = (max(first_end, now) - now) / timedelta(days=1)
    today = as_options([terms for _size, terms in living], repeat(now), spots)
    later = today.later(days)
    volatility = np.array(volatilities)

    def values(prices: model.Array) -> model.Array:
        """Return a row of prices for each option that lives on."""
        rows = np.tile(prices, (len(living), 1))
        return model.prices(later, rows, volatility, steps)

    sizes = np.array([size for size, _terms in living])
    highest_strike = max(top, later.strike.max())
    widest = (volatility * np.sqrt(later.time_left)).max()
    straight_above = highest_strike * np.exp(FAR * widest)
    return replace(
        profit,
        living=living,
        values=values,
        slope=slope + float(sizes @ later.slope_far_above()),
        top=float(straight_above),
    )


# The prices at which a profit is zero; the corners, among which are the extremes, and the profits
# there.
_Solution = tuple[list[float], model.Array, model.Array]


def _solve_lines(profit: _Profit) -> _Solution:
    """Return the exact solution of a profit that is a line between its corners."""
    prices = np.array(profit.corner_prices)
    profits = profit.at(prices)
    largest = float(np.abs(profits).max())
    zero = ZERO * max(1.0, largest, abs(profit.cost))
    profits = np.where(np.abs(profits) <= zero, 0.0, profits)

    break_evens = prices[profits == 0].tolist()
    corners = zip(prices.tolist(), profits.tolist(), strict=True)
    for (low, profit_low), (high, profit_high) in pairwise(corners):
        if profit_low * profit_high < 0:
            part = profit_low / (profit_low - profit_high)
            break_evens.append(low + part * (high - low))
    break_evens += _crossing_beyond(profit, prices, profits)
    return break_evens, prices, profits


def _crossing_beyond(profit: _Profit, prices: model.Array, profits: model.Array) -> list[float]:
    """Return the price beyond the last corner at which the profit is zero; empty: it is nowhere."""
    slope = profit.slope_beyond
    if slope * profits[-1] >= 0:
        return []
    return [float(prices[-1] - profits[-1] / slope)]


def _rounded(number: float) -> float:
    return round(float(number), ROUNDING_DIGITS) + 0.0


def _search_curve(profit: _Profit) -> _Solution:
    """Return the solution of a profit with legs that live on, searched to a cent."""
    prices = _tried_prices(profit)
    profits = profit.at(prices)

    extremes = _extreme_prices(profit, prices, profits)
    changes_sign = profits[:-1] * profits[1:] < 0
    crossings = np.flatnonzero(changes_sign)
    break_evens = prices[profits == 0].tolist()
    if crossings.size:
        above = prices[crossings + 1]
        low, high = _narrowed(profit.at, prices[crossings], above, _around_the_crossing)
        break_evens += ((low + high) / 2).tolist()
    break_evens += _crossing_beyond(profit, prices, profits)

    at_top = [] if profit.slope_beyond else [profit.top]
    corners = np.unique([*profit.corner_prices, *extremes, *at_top])
    return break_evens, corners, profit.at(corners)


def _tried_prices(profit: _Profit) -> model.Array:
    """Return prices from zero to the top, the corners among them."""
    corners = profit.corner_prices
    tried = []
    for low, high in pairwise(corners):
        between = np.linspace(low, high, TRIED, endpoint=False)
        tried.append(between)

    above = np.geomspace(corners[-1], profit.top, 2 * TRIED)
    tried.append(above)
    return np.concatenate(tried)


def _extreme_prices(profit: _Profit, prices: model.Array, profits: model.Array) -> list[float]:
    """Return the prices of the highest and the lowest profit."""
    extremes = []
    for sign in (1.0, -1.0):
        heights = sign * profits
        inner = heights[1:-1]
        is_peak = (inner >= heights[:-2]) & (inner >= heights[2:])
        peaks = 1 + np.flatnonzero(is_peak)
        descending = np.argsort(-heights[peaks])
        highest = peaks[descending][:MOST_PEAKS]
        if not highest.size:
            continue

        below = prices[highest - 1]
        above = prices[highest + 1]
        around = _around_the_highest if sign > 0 else _around_the_lowest
        low, high = _narrowed(profit.at, below, above, around)
        middle = (low + high) / 2
        extremes += middle.tolist()
    return extremes


_Choice = Callable[[model.Array], tuple[model.Array, model.Array]]


def _narrowed(
    height: Callable[[model.Array], model.Array],
    low: model.Array,
    high: model.Array,
    choose: _Choice,
) -> tuple[model.Array, model.Array]:
    """Return intervals that were narrowed until they are as small as rounding.

    Args:
        height: What is searched, at some prices.
        low: The lower ends of the intervals.
        high: Their upper ends.
        choose: Returns the place of the new lower and upper ends among the prices of each row.
    """  # fmt: skip
    steps = np.linspace(0.0, 1.0, TRIED_AGAIN + 1)
    # Of where the search began: an interval that reaches down to zero stays as wide as its end.
    near_enough = NEAR * high
    while np.any(high - low > near_enough):
        width = high - low
        tried = low[:, None] + width[:, None] * steps
        lower, upper = choose(height(tried.ravel()).reshape(tried.shape))
        rows = np.arange(len(tried))
        low = tried[rows, lower]
        high = tried[rows, upper]
    return low, high


def _around_the_highest(heights: model.Array) -> tuple[model.Array, model.Array]:
    highest = heights.argmax(axis=1)
    lower = np.maximum(highest - 1, 0)
    return lower, np.minimum(highest + 1, TRIED_AGAIN)


def _around_the_lowest(heights: model.Array) -> tuple[model.Array, model.Array]:
    return _around_the_highest(-heights)


def _around_the_crossing(heights: model.Array) -> tuple[model.Array, model.Array]:
    signs = np.sign(heights)
    changes = signs[:, :-1] != signs[:, 1:]
    crossing = changes.argmax(axis=1)
    return crossing, crossing + 1
