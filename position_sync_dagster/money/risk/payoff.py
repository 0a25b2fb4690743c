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
from position_sync_dagster.money.risk.terms import ExerciseTerms, NotPriced, as_options

# Amounts and prices below this are the rounding of sums.
ROUNDING_DIGITS = 6

# What is smaller than this part of the gross amount is zero.
ZERO = 1e-10

# Standard deviations beyond the last corner at which a curve is as straight as its limit.
FAR = 8.0

# How many prices are tried between two corners, and around a price that is searched. Each search
# is as much nearer.
TRIED = 96
TRIED_AGAIN = 17
SEARCHES = 5


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
    settled = grouped(group_of, legs.settled.to_dicts())
    result = []
    for key in sorted(groups, key=str):
        notes_of_strategy = notes.get(key[0], ()) if notes else ()
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

    profit = _profit_of(legs, expiry, now, steps, realised)
    prices = _searched_prices(profit) if profit.living else np.array(profit.corners)
    profits = profit.at(prices)
    largest = float(np.abs(profits).max())
    zero = ZERO * max(1.0, largest, abs(profit.cost))
    profits = np.where(np.abs(profits) <= zero, 0.0, profits)

    slope = profit.slope
    is_corner = np.isin(prices, profit.corners)
    is_corner[profits.argmax()] |= slope <= 0
    is_corner[profits.argmin()] |= slope >= 0
    corners = [
        Corner(price=_rounded(price), profit=_rounded(amount))
        for price, amount in zip(prices[is_corner], profits[is_corner], strict=True)
    ]
    side = "profit" if slope > 0 else "loss"
    break_evens = set(map(_rounded, _break_evens(prices, profits, slope)))
    return replace(
        payoff,
        break_evens=tuple(sorted(break_evens)),
        greatest_profit=None if slope > 0 else _rounded(profits.max()),
        greatest_loss=None if slope < 0 else _rounded(profits.min()),
        why=f"the greatest {side} is unbounded" if slope else None,
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
        cost: What they cost, less what trades realised.
        linear: The units of shares and futures.
        ending: The options that expire on that day, with their units.
        living: Returns what the options that live on are worth at some prices; None: none does.
        corners: The price zero, and each strike.
        slope: That of the profit above `top`.
        top: A price above all corners, from which on the profit is a line.
    """

    cost: float
    linear: float
    ending: Sequence[tuple[float, ExerciseTerms]]
    living: Callable[[model.Array], model.Array] | None = None
    corners: Sequence[float]
    slope: float
    top: float

    def at(self, prices: model.Array) -> model.Array:
        """Return the profit at some prices of the underlying."""
        total = self.linear * prices - self.cost
        for size, terms in self.ending:
            worth = np.maximum(0.0, terms.side * (prices - terms.strike))
            total = total + size * worth
        if self.living is None:
            return total
        return total + self.living(prices)


def _profit_of(
    legs: Sequence[PricedLeg],
    expiry: date | None,
    now: datetime,
    steps: model.Steps,
    realised: float,
) -> _Profit:
    """Return the profit of legs whose costs and terms are known."""
    options = [(leg, leg.delivered) for leg in legs if leg.delivered is not None]
    ending = [(leg.size, terms) for leg, terms in options if _expiry_of(leg) == expiry]
    linear = sum(leg.size for leg in legs if leg.delivered is None)
    calls = sum(size for size, terms in ending if terms.side > 0)
    slope = linear + calls
    corners = sorted({0.0, *(terms.strike for _leg, terms in options)})
    profit = _Profit(
        cost=sum(leg.quantity * leg.row["average_cost"] for leg in legs) - realised,
        linear=linear,
        ending=ending,
        corners=corners,
        slope=_rounded(slope),
        top=corners[-1],
    )

    later = [
        (leg, leg.priced)
        for leg in legs
        if leg.priced is not None and _expiry_of(leg) != expiry
    ]  # fmt: skip
    if not later:
        return profit

    first_end = max(terms.expires_at for _size, terms in ending)
    days = (max(first_end, now) - now) / timedelta(days=1)
    # The forecast of a dividend is a part of the price; without a price it stays an amount.
    spots = [leg.row["spot"] or terms.strike for leg, terms in later]
    today = as_options([terms for _leg, terms in later], repeat(now), spots)
    living = today.later(days)
    sizes = np.array([leg.size for leg, _terms in later])
    volatility = np.array([leg.row["implied_vol"] for leg, _terms in later])

    def worth(prices: model.Array) -> model.Array:
        rows = np.tile(prices, (len(later), 1))
        total: model.Array = sizes @ model.prices(living, rows, volatility, steps)
        return total

    widest = (volatility * np.sqrt(living.time_left)).max()
    straight_above = corners[-1] * np.exp(FAR * widest)
    slope_of_living = float(sizes @ living.slope_far_above())
    return replace(
        profit,
        living=worth,
        slope=_rounded(slope + slope_of_living),
        top=float(straight_above),
    )


def _break_evens(prices: model.Array, profits: model.Array, slope: float) -> list[float]:
    """Return the prices of no profit, which is a line between two prices and beyond the last."""
    break_evens: list[float] = prices[profits == 0].tolist()
    for low in np.flatnonzero(profits[:-1] * profits[1:] < 0):
        part = profits[low] / (profits[low] - profits[low + 1])
        width = prices[low + 1] - prices[low]
        break_evens.append(prices[low] + part * width)
    if slope * profits[-1] < 0:
        break_evens.append(prices[-1] - profits[-1] / slope)
    return break_evens


def _rounded(number: float) -> float:
    return round(float(number), ROUNDING_DIGITS) + 0.0


def _searched_prices(profit: _Profit) -> model.Array:
    """Return prices of a curve, ever nearer to its extremes and to where it is zero."""
    between = [np.linspace(low, high, TRIED) for low, high in pairwise(profit.corners)]
    above = np.geomspace(profit.corners[-1], profit.top, TRIED)
    prices = np.unique(np.concatenate([*between, above]))
    for _search in range(SEARCHES):
        profits = profit.at(prices)
        changes_sign = profits[:-1] * profits[1:] < 0
        crossings = np.flatnonzero(changes_sign)
        searched = [profits.argmax(), profits.argmin(), *crossings, *(crossings + 1)]
        last = len(prices) - 1
        nearer = [
            np.linspace(prices[max(place - 1, 0)], prices[min(place + 1, last)], TRIED_AGAIN)
            for place in searched
        ]
        prices = np.unique(np.concatenate([prices, *nearer]))
    return prices
