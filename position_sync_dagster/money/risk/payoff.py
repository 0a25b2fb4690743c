"""The payoff of strategies at their next expiry: break-evens, greatest profit and greatest loss.

With one expiry this is arithmetic, whatever the model says. With `q` units of each leg, `c` what
they cost and `S` the price of the underlying,

    profit(S) = Σ q · worth(S) − Σ c,    worth(S) = S, or max(0, ±(S − strike)) of an option

which is a line between its corners at zero and at the strikes. Beyond the last corner its slope is
the sum of `q` over shares, futures and calls.

Where legs live on after the first expiry, as in a calendar, the model says what they are worth on
that day. The profit is then a curve, whose extremes are those of many prices.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np

from position_sync_dagster.domain.clock import A_DAY
from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.money.past.movements import first_reasons, known_sum
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.priced_legs import PricedLeg, PricedLegs
from position_sync_dagster.money.risk.terms import NotPriced, as_options

# Amounts and prices below this are the rounding of sums.
ROUNDING_DIGITS = 6

# Where legs live on, the profit is computed at so many prices, in even steps of their logarithm,
# from the lowest strike divided by `FAR` to the highest one times it.
TRIED = 1_500
FAR = 10.0

# The profit at some prices of the underlying.
ProfitAt = Callable[[model.Array], model.Array]


@dataclass(frozen=True, slots=True)
class Corner:
    """A price of the underlying, and the profit there."""

    price: float
    profit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Payoff:
    """The profit of a strategy at its next expiry, over the price of one underlying.

    Attributes:
        strategy: That of the first leg, if they are of several.
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

    strategy: str
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
    profit_at: ProfitAt | None = field(default=None, repr=False, compare=False)

    @property
    def row(self) -> dict[str, Any]:
        """The payoff for a program."""
        row = asdict(self)
        del row["under"], row["profit_at"]
        return row | {"corners": [*row["corners"]]}


def payoffs(legs: PricedLegs, notes: Mapping[str, Sequence[str]] | None = None) -> list[Payoff]:
    """Return the payoff of each strategy, account, underlying and currency.

    Args:
        legs: The parts of the holdings.
        notes: What is wrong with the legs of strategies, by the name of the strategy.
    """
    group_of = itemgetter("strategy_id", "account", "under", "currency")
    groups = grouped(lambda leg: group_of(leg.row), legs)
    settled = grouped(group_of, legs.settled.to_dicts())
    now = legs.given.now
    result = []
    for key in sorted(groups, key=str):
        notes_of_strategy = (notes or {}).get(key[0], ())
        realised = known_sum(row["realised"] for row in settled[key])
        result.append(payoff_of(groups[key], now, notes_of_strategy, realised))
    return result


def payoff_of(
    legs: Sequence[PricedLeg],
    now: datetime,
    notes: Sequence[str] = (),
    realised: float | None = 0.0,
) -> Payoff:
    """Return the payoff of legs of one account and underlying, of one strategy or of several.

    Args:
        legs: At least one.
        now: The present moment.
        notes: What is wrong with them.
        realised: What trades realise that closed others of the strategy; None: not known.
    """
    days = [*map(_expiry_of, legs)]
    expiry = min(filter(None, days), default=None)
    lives_on = [day not in (None, expiry) for day in days]
    first = legs[0].row
    payoff = Payoff(
        strategy=first["strategy_id"],
        account=first["account"],
        underlying=first["symbol"],
        currency=first["currency"],
        under=first["under"],
        expiry=expiry,
        note="; ".join(notes) or None,
        legs=tuple(leg.text for leg in sorted(legs, key=attrgetter("order"))),
    )
    unknown = [*chain.from_iterable(map(_unknown, legs, lives_on))]
    if realised is None:
        unknown.append("the average cost of what trades close")
    if realised is None or unknown:
        return replace(payoff, why=f"not known: {first_reasons(unknown)}")

    profit_at = _profit_of(legs, lives_on, now, realised)
    strikes = {leg.delivered.strike for leg in legs if leg.delivered}
    corners = np.array(sorted({0.0, *strikes}))
    prices = corners
    if any(lives_on):
        lowest = corners[1] / FAR
        highest = corners[-1] * FAR
        prices = np.union1d(corners, np.geomspace(lowest, highest, TRIED))

    profits = np.round(profit_at(prices), ROUNDING_DIGITS) + 0.0
    # Far above all strikes a call is worth its exercise, also one that lives on.
    rising = [leg for leg in legs if not leg.delivered or leg.delivered.is_call]
    slope = _rounded(sum(leg.size for leg in rising))
    payoff = replace(payoff, why=_UNBOUNDED.get(np.sign(slope)), profit_at=profit_at)
    is_corner = np.isin(prices, corners)
    if slope <= 0:
        is_corner[profits.argmax()] = True
        payoff = replace(payoff, greatest_profit=float(profits.max()))
    if slope >= 0:
        is_corner[profits.argmin()] = True
        payoff = replace(payoff, greatest_loss=float(profits.min()))

    shown = map(Corner, prices[is_corner].tolist(), profits[is_corner].tolist())
    break_evens = _break_evens(prices, profits, slope)
    return replace(payoff, break_evens=tuple(sorted(break_evens)), corners=tuple(shown))


# What is unbounded, by the sign of the slope above all strikes.
_UNBOUNDED = {1: "the greatest profit is unbounded", -1: "the greatest loss is unbounded"}


def _expiry_of(leg: PricedLeg) -> date | None:
    """Return the day on which an option expires, in New York; None: it is none, or not known."""
    if leg.delivered is None:
        return None
    return exchange_date(leg.delivered.expires_at)


def _unknown(leg: PricedLeg, lives_on: bool) -> Iterable[str]:
    """Yield what the payoff needs of a leg and is not known."""
    if leg.row["average_cost"] is None:
        yield f"the average cost of {leg.name}"
    if isinstance(leg.terms, NotPriced):
        yield f"{leg.name}: {leg.terms}"
    elif lives_on and not leg.row["implied_vol"]:
        yield f"{leg.name}, which lives on: {NotPriced.NO_VOLATILITY}"
    elif lives_on and leg.priced is None:
        yield f"{leg.name}, which lives on: {NotPriced.NO_RATE}"


def _profit_of(
    legs: Sequence[PricedLeg], lives_on: Sequence[bool], now: datetime, realised: float
) -> ProfitAt:
    """Return the profit of legs whose costs and terms are known, over prices of the underlying."""
    ending = []
    later = []
    inputs = []
    for leg, is_later in zip(legs, lives_on, strict=True):
        if is_later and leg.priced:
            # The forecast of a dividend is a part of the price; without a price it stays an amount.
            spot = leg.row["spot"] or leg.priced.strike
            later.append(leg.priced)
            inputs.append((leg.size, spot, leg.row["implied_vol"]))
        elif leg.delivered and not is_later:
            ending.append((leg.size, leg.delivered))

    first_end = max((terms.expires_at for _size, terms in ending), default=now)
    days = (max(first_end, now) - now) / A_DAY
    sizes, spots, volatility = np.hsplit(np.reshape(inputs, (-1, 3)), 3)
    living = as_options(later, repeat(now), spots.ravel().tolist()).later(days)
    units = sum(leg.size for leg in legs if leg.delivered is None)
    paid = sum(leg.quantity * leg.row["average_cost"] for leg in legs)
    cost = paid - realised

    def profit_at(prices: model.Array) -> model.Array:
        total: model.Array = units * prices - cost
        for size, terms in ending:
            intrinsic = np.maximum(0.0, terms.side * (prices - terms.strike))
            total += size * intrinsic

        if later:
            rows = np.tile(prices, (len(later), 1))
            total += sizes.ravel() @ model.prices(living, rows, volatility)
        return total

    return profit_at


def _break_evens(prices: model.Array, profits: model.Array, slope: float) -> set[float]:
    """Return the prices of no profit, which is a line between two prices and beyond the last."""
    low = np.flatnonzero(profits[:-1] * profits[1:] < 0)
    price = prices[low]
    profit = profits[low]
    part = profit / (profit - profits[low + 1])
    between = price + part * (prices[low + 1] - price)

    break_evens = [*prices[profits == 0], *between]
    last_profit = profits[-1]
    if slope * last_profit < 0:
        break_evens.append(prices[-1] - last_profit / slope)
    return set(map(_rounded, break_evens))


def _rounded(number: float) -> float:
    return round(float(number), ROUNDING_DIGITS) + 0.0
