"""Profit and greeks of legs over the price of their underlying: now, on a day to come, at expiry.

Over one underlying the profit is that since the legs were opened, so that it compares with the
payoff; a leg without a price of the model makes it unknown. Over several underlyings, which all
move by the same percentage, it is the change from now; legs that cannot be priced are left out.
Either way they are listed with the reason.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import repeat
from typing import Any

import numpy as np
import polars as pl
from polars import col
from pydantic import BaseModel, ConfigDict

from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.coverage import carries
from position_sync_dagster.money.risk.distribution import (
    distribution_at_expiry,
    odds_of,
)
from position_sync_dagster.money.risk.payoff import Payoff, payoff_of
from position_sync_dagster.money.risk.priced_legs import SIZE, PricedLeg, PricedLegs
from position_sync_dagster.money.risk.scenario_file import Point
from position_sync_dagster.money.risk.scenarios import changes
from position_sync_dagster.money.risk.terms import as_options

# The number of prices between the ends of a curve; strikes and break-evens come besides.
PRICES = 61

# The largest move in percent over several underlyings, and over shares alone.
USUAL_REACH = 20.0

# A curve over one underlying has its strikes, and around the price so many expected moves until the
# next expiry; but beyond the strikes at most their span, or this part of the price.
EXPECTED_MOVES = 2.0
LEAST_SPAN = 0.1

NO_PROFIT = "its profit since it was opened is not known"
NO_MARK = "what it was worth before it was closed is not known"


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

    Over one underlying the profit is that since the legs were opened; over several, which all move
    by the same percentage, it is the change from now. A list that is null is not known.
    """

    underlying: str | None
    """Null: several."""
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
    """Prices of the underlying; null: several, or not known."""
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
    """The legs that cannot be priced: over one underlying nothing is known, over several the sums
    leave them out, and are null where the others do not carry them."""
    known: int
    """The legs that can be priced."""
    of: int
    """All legs."""


def curves_of(
    legs: PricedLegs,
    shift: Point,
    *,
    by_underlying: bool,
    notes: Sequence[str] = (),
) -> list[CurveRow]:
    """Return the curves of legs, for each account and currency.

    Args:
        legs: The chosen parts of holdings.
        shift: The days that have passed, and the change of the volatilities, of `chosen`.
        by_underlying: Whether there is a curve for each underlying; else there is one over all.
        notes: What is wrong with the legs of their strategy.
    """
    by = ["account", "currency", "under"] if by_underlying else ["account", "currency"]
    curves = []
    for key in legs.parts.select(by).unique().sort(by).iter_rows(named=True):
        of_key = legs.where(pl.all_horizontal(pl.col(name) == key[name] for name in by))
        has_one = of_key.parts["under"].n_unique() == 1
        curves.append(_over_prices(of_key, shift, notes) if has_one else _over_moves(of_key, shift))
    return curves


def _over_moves(legs: PricedLegs, shift: Point) -> CurveRow:
    """Return the curve of several underlyings, which all move by the same percentage."""
    curve = CurveRow(**_described(legs, _left_out(legs)), underlying=None)
    is_carried = legs.parts.select(carries(col.reason.is_null())).item()
    if not is_carried:
        return curve

    moves = np.linspace(-USUAL_REACH, USUAL_REACH, PRICES)
    now, chosen = _profits(legs, moves, shift)
    along = _greeks_along(legs, moves, shift)
    del along["delta"]  # shares of several underlyings have no sum
    greeks = {name: _sum_of_known(rows) for name, rows in along.items()}
    of_trades = sum(legs.settled["against_mark"].drop_nulls())
    return curve.model_copy(
        update={
            "moves": moves.tolist(),
            "now": _sum_of_known(now, of_trades),
            "chosen": _sum_of_known(chosen, of_trades),
            **greeks,
        }
    )


def _over_prices(legs: PricedLegs, shift: Point, notes: Sequence[str]) -> CurveRow:
    """Return the curve of one underlying."""
    key = (*legs.parts.select("strategy_id", "account", "conid").iter_rows(), *notes)
    if key not in legs.searched:
        legs.searched[key] = _at_expiry(legs, notes)
    curve: CurveRow = legs.searched[key]
    realised = known_sum(legs.settled["realised"])
    if curve.spot is None or curve.left_out or realised is None:
        return curve

    moves = np.array(curve.moves)
    gained = realised + float(legs.parts["unrealized_pnl"].sum())
    greatest = curve.greatest_profit or 0.0
    now, chosen = _profits(legs, moves, shift)
    along = _greeks_along(legs, moves, shift)
    greeks = {name: _sum_of_known(rows) for name, rows in along.items()}
    return curve.model_copy(
        update={
            "reached": gained / greatest if greatest > 0 else None,
            "now": _sum_of_known(now, gained),
            "chosen": _sum_of_known(chosen, gained),
            **greeks,
        }
    )


def _at_expiry(legs: PricedLegs, notes: Sequence[str]) -> CurveRow:
    """Return what of a curve no chosen day changes: its prices, the payoff and its odds."""
    each = list(legs)
    now = legs.given.now
    # All strategies of an underlying may be hundreds of legs that live on.
    is_of_one = legs.parts["strategy_id"].n_unique() == 1
    steps = model.FINE if is_of_one else model.COARSE
    payoff = payoff_of(each, now, notes, steps, known_sum(legs.settled["realised"]))
    described = _described(legs, _left_out(legs, since_opened=True))
    described |= {name: getattr(payoff, name) for name in _OF_PAYOFF}
    spot = legs.parts["spot"].median()
    if not isinstance(spot, float):
        return CurveRow(**described, underlying=payoff.under)

    distribution = distribution_at_expiry(each, spot, now)
    move = spot * distribution.deviation if distribution else None
    odds = odds_of(payoff, distribution) if distribution else None
    chances = asdict(odds) if odds else {}
    prices = _prices(each, payoff, spot, move)
    moves = 100 * (prices / spot - 1)
    return CurveRow(
        **described,
        **chances,
        underlying=payoff.under,
        spot=spot,
        moves=moves.tolist(),
        prices=prices.tolist(),
        at_expiry=payoff.profit_at(prices).tolist() if payoff.profit_at else None,
        expected_move=move,
    )


# What a curve has of a payoff.
_OF_PAYOFF = ("break_evens", "greatest_profit", "greatest_loss", "why", "note")


def _described(legs: PricedLegs, left_out: Sequence[UnpricedLeg]) -> dict[str, Any]:
    """Return whose legs these are, which, when they expire, and which cannot be priced."""
    account, currency = legs.parts.select("account", "currency").row(0)
    to_come = [
        leg.delivered.expires_at
        for leg in legs
        if leg.delivered is not None and leg.delivered.expires_at > legs.given.now
    ]
    return {
        "account": account,
        "currency": currency,
        "legs": tuple(leg.text for leg in legs),
        "next_expiry": min(to_come, default=None),
        "last_expiry": max(to_come, default=None),
        "left_out": left_out,
        "known": legs.parts.height - len(left_out),
        "of": legs.parts.height,
    }


def _left_out(legs: PricedLegs, *, since_opened: bool = False) -> list[UnpricedLeg]:
    """Return the legs that cannot be priced, or whose profit since they were opened is unknown."""
    unknown = []
    for leg in legs:
        reason = leg.row["reason"]
        if since_opened and leg.row["unrealized_pnl"] is None:
            reason = reason or NO_PROFIT
        unknown.append((leg.name, leg.row["strategy_id"], reason))

    if not since_opened:
        traded = legs.settled.filter(col.against_mark.is_null())
        unknown += traded.select("name", "strategy_id", pl.lit(NO_MARK)).rows()
    return [
        UnpricedLeg(leg=leg, strategy=strategy, reason=reason)
        for leg, strategy, reason in unknown
        if reason is not None
    ]


def _prices(
    legs: Iterable[PricedLeg], payoff: Payoff, spot: float, move: float | None
) -> model.Array:
    """Return the prices of a curve: even ones, the strikes and the break-evens between them.

    Args:
        legs: The legs of the curve.
        payoff: Their payoff.
        spot: The price of the underlying.
        move: Its expected move until the next expiry; None: not known, the strikes alone count.
    """
    strikes = [leg.delivered.strike for leg in legs if leg.delivered is not None]
    lowest, highest = min([spot, *strikes]), max([spot, *strikes])
    span = max(highest - lowest, LEAST_SPAN * spot)
    around = EXPECTED_MOVES * (move or span)
    below = max(span / 4, min(span, around - (spot - lowest)))
    above = max(span / 4, min(span, around - (highest - spot)))
    if not strikes:
        below = above = spot * USUAL_REACH / 100

    # To a part of the price, so that the prices stay where they are while time passes.
    step = spot / 100
    low = max(step, math.floor((lowest - below) / step) * step)
    high = math.ceil((highest + above) / step) * step
    even = np.linspace(low, high, PRICES)
    prices = np.array([*even, spot, *strikes, *(payoff.break_evens or ())])
    is_inside = (prices >= low) & (prices <= high)
    return np.unique(prices[is_inside])


def _profits(legs: PricedLegs, moves: model.Array, shift: Point) -> tuple[model.Array, model.Array]:
    """Return by how much each part changes at each move, now and later; NaN: not known."""
    points = [Point(spot=move) for move in moves.tolist()]
    if shift.vol or shift.days:
        points += [Point(spot=move, vol=shift.vol, days=shift.days) for move in moves.tolist()]

    changed = legs.parts.select(SIZE).to_numpy() * changes(legs, points)
    now = changed[:, : len(moves)]
    return now, changed[:, -len(moves) :]


def _greeks_along(legs: PricedLegs, moves: model.Array, shift: Point) -> dict[str, model.Array]:
    """Return the greeks of each part at each move on the chosen day; NaN: unknown."""
    parts = legs.parts
    spot = parts["spot"].fill_null(np.nan).to_numpy()
    spots = spot[:, None] * (1 + moves / 100)

    # A share or a future moves with its price, and has no other greek.
    of_parts = {name: np.zeros(spots.shape) for name in ("delta", "gamma", "theta", "vega")}
    of_parts["delta"] += 1.0

    terms = legs.options
    options = list(terms)
    if options:
        spot_of_options = spot[options].tolist()
        priced = as_options([*terms.values()], repeat(legs.given.now), spot_of_options)
        later = priced.later(shift.days)
        shifted = parts["implied_vol"].to_numpy()[options] + shift.vol / 100
        volatility = model.within_bounds(shifted)
        greeks = model.greeks_along(later, spots[options], volatility, model.COARSE)
        for name, rows in of_parts.items():
            rows[options] = getattr(greeks, name)

    known_size = pl.when(col.reason.is_null()).then(SIZE)
    sizes = parts.select(known_size.fill_null(np.nan)).to_numpy()
    summed = {name: sizes * rows for name, rows in of_parts.items()}
    summed["dollar_delta"] = summed["delta"] * spots
    summed["gamma_1pct"] = summed.pop("gamma") * spots**2 / 100
    return summed


def _sum_of_known(rows: model.Array, more: float = 0.0) -> list[float] | None:
    """Return the sums at each move without the parts that are listed as left out; None: all are.

    Args:
        rows: The numbers of each part at each move.
        more: What is added at each move.
    """
    is_known = ~np.isnan(rows).any(axis=1)
    if not is_known.any():
        return None
    sums: list[float] = (rows[is_known].sum(axis=0) + more).tolist()
    return sums
