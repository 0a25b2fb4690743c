"""Expiries: the profit until the next one, what each leaves, and who may be assigned early."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from operator import attrgetter, itemgetter
from typing import Any

import polars as pl

from position_sync_dagster.risk import model
from position_sync_dagster.risk.scenarios import Breakdown, Point, PricedLegs
from position_sync_dagster.risk.terms import (
    ON_FUTURE,
    OptionTerms,
    years_between,
)

# An option is pinned whose strike is within this share of the price.
PINNED = 0.005


def expiries(legs: PricedLegs, *, until: date) -> list[dict[str, Any]]:
    """Return what each leg leaves that expires until a day, if it ended at the present price.

    A leg without a price is left out.

    Returns:
        Rows with the leg (strategy_id, account, conid, symbol, currency, expires_at, position) and

        - units: Shares or futures that come; below 0 they go. 0 of what is settled in cash.
        - cash: Money that comes, in the currency; below 0 it is needed.
        - is_pinned: The strike is so near to the price that either may happen.
        - is_cash_settled: Money alone changes hands.
        - is_in_the_morning: The settlement follows the open of the day.
        - is_uncovered: Shares must be delivered that the strategy does not have.
        - moneyness: The price above the strike of a call, or below that of a put, as a share of it.
    """
    of = ("strategy_id", "account", "symbol")
    stock = legs.parts.filter(pl.col("sec_type") == "STK").group_by(of)
    held = stock.agg((pl.col("position") * pl.col("share")).sum()).rows_by_key(of, unique=True)
    found = []
    for row, terms in _options(legs):
        if terms.expires_at.date() > until or not row["spot"]:
            continue
        side = 1.0 if terms.right == "CALL" else -1.0
        above = side * (row["spot"] - terms.strike)
        details = legs.given.details.get(row["conid"])
        in_cash = details is not None and details.under_sec_type == "IND"
        quantity = row["position"] * row["share"]
        size = quantity * row["multiplier"]
        units = 0.0 if in_cash or above <= 0 else side * size
        (shares,) = held.get(tuple(row[name] for name in of), (0.0,))
        found.append(
            {name: row[name] for name in (*_LEG, "currency")}
            | {
                "expires_at": terms.expires_at,
                "position": quantity,
                "units": units / row["multiplier"] if terms.exercise in ON_FUTURE else units,
                "cash": size * max(0.0, above) if in_cash else -units * terms.strike,
                "is_pinned": abs(above) <= PINNED * row["spot"],
                "is_cash_settled": in_cash,
                "is_in_the_morning": details is not None and details.is_settled_at_the_open,
                "is_uncovered": units < 0 and shares + units < 0,
                "moneyness": above / terms.strike,
            }
        )
    return sorted(found, key=itemgetter("expires_at", "strategy_id", "conid"))


def early_assignments(legs: PricedLegs) -> list[dict[str, Any]]:
    """Return the short American options whose holder gains more by exercise than they are worth.

    A call is exercised for the dividends before its expiry, a put for the interest on its strike.
    Where no dividend is known, nothing is said of a call.

    Returns:
        Rows with the leg (strategy_id, account, conid, symbol, position), `extrinsic` (what one
        unit is worth above its exercise), `gain` (what its holder gains by exercise: the dividend,
        or the interest until expiry) and `ex_date` (when the dividend goes, of a call).
    """
    found = []
    now = legs.given.now
    for row, terms in _options(legs):
        size = row["position"] * row["multiplier"] * row["share"]
        if size >= 0 or not row["spot"] or row["market_value"] is None:
            continue
        if terms.exercise is not model.Exercise.AMERICAN or terms.expires_at <= now:
            continue
        gain, ex_date = (
            terms.strike * -math.expm1(-terms.rate * years_between(now, terms.expires_at)),
            None,
        )
        worth = terms.strike - row["spot"]
        if terms.right == "CALL":
            coming = [one for one in terms.dividends or () if now < one.ex_date <= terms.expires_at]
            paid = min(coming, key=attrgetter("ex_date"), default=None)
            gain = (paid.amount or paid.share * row["spot"]) if paid is not None else 0.0
            worth, ex_date = -worth, paid.ex_date if paid is not None else None
        extrinsic = row["market_value"] / size - worth
        if worth > 0 and gain > 0 and extrinsic < gain:
            found.append(
                {name: row[name] for name in _LEG}
                | {
                    "position": row["position"] * row["share"],
                    "extrinsic": max(0.0, extrinsic),
                    "gain": gain,
                    "ex_date": ex_date,
                }
            )
    return found


_LEG = ("strategy_id", "account", "conid", "symbol")


def _options(legs: PricedLegs) -> list[tuple[dict[str, Any], OptionTerms]]:
    """Return each part of an option whose terms are known, with these."""
    pairs = ((row, legs.terms[row["unit"]]) for row in legs.parts.iter_rows(named=True))
    return [(row, terms) for row, terms in pairs if terms is not None]


SPOTS = tuple(float(percent) for percent in range(-30, 31))
# Moves in percent at which only the slope of the profit is left.
FAR_DOWN, FAR_UP, FURTHER_UP = -99.9, 400.0, 401.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The profit since the legs were opened, over the price of one underlying.

    Attributes:
        spot: The price now.
        prices: The prices of the underlying.
        today, at_expiry: The profit at each of them now, and at the next expiry.
        days: The days until that expiry.
        break_evens: The prices at which the profit at the expiry is 0.
        greatest_profit, greatest_loss: At the expiry; None: unbounded.
        left_out: Legs that are in no number.
    """

    symbol: str
    currency: str
    spot: float
    prices: tuple[float, ...]
    today: tuple[float, ...]
    at_expiry: tuple[float, ...]
    days: float
    break_evens: tuple[float, ...]
    greatest_profit: float | None
    greatest_loss: float | None
    left_out: int


def curves(legs: PricedLegs) -> list[Curve]:
    """Return the curve of each underlying and currency of some parts of holdings."""
    groups = legs.parts.select("symbol", "currency").unique().sort("symbol", "currency")
    found = []
    for symbol, currency in groups.iter_rows():
        of = (pl.col("symbol") == symbol) & (pl.col("currency") == currency)
        curve = _curve(legs.narrowed(of), symbol, currency)
        if curve is not None:
            found.append(curve)
    return found


def _curve(legs: PricedLegs, symbol: str, currency: str) -> Curve | None:
    known = legs.narrowed(pl.col("reason").is_null() & pl.col("unrealized_pnl").is_not_null())
    spot = known.units.get_column("spot").median()
    if not isinstance(spot, float):
        return None
    options = [one for one in legs.terms if one is not None]
    left = min((one.expires_at - legs.given.now for one in options), default=timedelta())
    days = left / timedelta(days=1)
    kinks = {100 * (one.strike / spot - 1) for one in options}
    moves = sorted({FAR_DOWN, *SPOTS, *(one for one in kinks if one < FAR_UP), FAR_UP, FURTHER_UP})
    points = [Point(spot=move, days=day) for day in (0.0, max(days, 0.0) + 1e-6) for move in moves]
    profits = known.scenarios(points, Breakdown.UNDERLYING).group_by("point")
    opened = known.parts.get_column("unrealized_pnl").sum()
    found = (profits.agg(pl.col("profit").sum()).sort("point")["profit"] + opened).to_list()
    today, ended = found[: len(moves)], found[len(moves) :]
    slope = ended[-1] - ended[-2]
    flat = 1e-6 * max(map(abs, ended))
    shown = [n for n, move in enumerate(moves) if SPOTS[0] <= move <= SPOTS[-1]]
    return Curve(
        symbol=symbol,
        currency=currency,
        spot=spot,
        prices=tuple(spot * (1 + moves[n] / 100) for n in shown),
        today=tuple(today[n] for n in shown),
        at_expiry=tuple(ended[n] for n in shown),
        days=days,
        break_evens=tuple(
            spot * (1 + move / 100) for move in _zeros(list(zip(moves, ended, strict=True)))
        ),
        greatest_profit=None if slope > flat else max(ended),
        greatest_loss=None if slope < -flat else min(ended),
        left_out=legs.parts.height - known.parts.height,
    )


def _zeros(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Return where a line through points crosses 0."""
    return [
        at + (later - at) * value / (value - after)
        for (at, value), (later, after) in pairwise(pairs)
        if value * after < 0
    ]
