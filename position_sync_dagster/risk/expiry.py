"""Expiries: the profit until the next one, what each leaves, and who may be assigned early."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl

from position_sync_dagster.risk import model
from position_sync_dagster.risk.scenarios import Breakdown, Point, PricedLegs
from position_sync_dagster.risk.terms import (
    ON_FUTURE,
    DatedDividend,
    OptionTerms,
    years_between,
)

# An option is pinned whose strike is within this share of the price.
PINNED = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """What one leg of a strategy leaves if it ended at the present price.

    Attributes:
        units: Shares or futures that come; below 0 they go. 0 of what is settled in cash.
        cash: Money that comes, in the currency; below 0 it is needed.
        is_pinned: Whether the strike is so near to the price that either may happen.
        is_cash_settled: Whether money alone changes hands.
        is_in_the_morning: Whether the settlement follows the open of the day.
        is_uncovered: Whether shares must be delivered that the strategy does not have.
        moneyness: The price above the strike of a call, or below that of a put, as a share of it.
    """

    strategy_id: str
    account: str
    conid: int
    symbol: str
    currency: str
    expires_at: datetime
    position: float
    units: float
    cash: float
    is_pinned: bool
    is_cash_settled: bool
    is_in_the_morning: bool
    is_uncovered: bool
    moneyness: float


def expiries(legs: PricedLegs, *, until: date) -> list[Expiry]:
    """Return what each leg leaves that expires until a day; one without a price is left out."""
    shares: dict[tuple[str, str, str], float] = {}
    for row in legs.parts.filter(pl.col("sec_type") == "STK").iter_rows(named=True):
        key = (row["strategy_id"], row["account"], row["symbol"])
        shares[key] = shares.get(key, 0.0) + row["position"] * row["share"]
    found = []
    for row, terms in _options(legs):
        if terms.expires_at.date() > until or not row["spot"]:
            continue
        side = 1.0 if terms.right == "CALL" else -1.0
        quantity, spot = row["position"] * row["share"], row["spot"]
        worth = max(0.0, side * (spot - terms.strike))
        details = legs.given.details.get(row["conid"])
        in_cash = details is not None and details.under_sec_type == "IND"
        size = quantity * row["multiplier"]
        units = 0.0 if in_cash or not worth else side * size
        held = shares.get((row["strategy_id"], row["account"], row["symbol"]), 0.0)
        found.append(
            Expiry(
                **{name: row[name] for name in (*_LEG, "currency")},
                expires_at=terms.expires_at,
                position=quantity,
                units=units / row["multiplier"] if terms.exercise in ON_FUTURE else units,
                cash=size * worth if in_cash else -units * terms.strike,
                is_pinned=abs(spot - terms.strike) <= PINNED * spot,
                is_cash_settled=in_cash,
                is_in_the_morning=details is not None and details.is_settled_at_the_open,
                is_uncovered=units < 0 and held + units < 0,
                moneyness=side * (spot - terms.strike) / terms.strike,
            )
        )
    return sorted(found, key=lambda one: (one.expires_at, one.strategy_id, one.conid))


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyAssignment:
    """A short option that its holder may exercise early.

    Attributes:
        extrinsic: What the option is worth above its exercise, for one unit.
        gain: What its holder gains by exercise: the dividend, or the interest until expiry.
        ex_date: When the dividend goes, of a call.
    """

    strategy_id: str
    account: str
    conid: int
    symbol: str
    position: float
    extrinsic: float
    gain: float
    ex_date: datetime | None


def early_assignments(legs: PricedLegs) -> list[EarlyAssignment]:
    """Return the short American options whose holder gains more by exercise than they are worth.

    A call is exercised for the dividends before its expiry, a put for the interest on its strike.
    Where no dividend is known, nothing is said of a call.
    """
    found = []
    now = legs.given.now
    for row, terms in _options(legs):
        price = _price(row)
        if row["position"] >= 0 or not row["spot"] or price is None:
            continue
        if terms.exercise is not model.Exercise.AMERICAN or terms.expires_at <= now:
            continue
        side = 1.0 if terms.right == "CALL" else -1.0
        worth = side * (row["spot"] - terms.strike)
        paid = next_dividend(terms.dividends or (), now, terms.expires_at)
        if side > 0:
            gain = paid.amount or paid.share * row["spot"] if paid is not None else 0.0
        else:
            years = years_between(now, terms.expires_at)
            gain = terms.strike * (1 - math.exp(-terms.rate * years))
        if worth > 0 and gain > 0 and price - worth < gain:
            found.append(
                EarlyAssignment(
                    **{name: row[name] for name in _LEG},
                    position=row["position"] * row["share"],
                    extrinsic=max(0.0, price - worth),
                    gain=gain,
                    ex_date=paid.ex_date if side > 0 and paid is not None else None,
                )
            )
    return found


def next_dividend(
    dividends: Sequence[DatedDividend], now: datetime, until: datetime
) -> DatedDividend | None:
    """Return the next dividend before an expiry."""
    coming = [one for one in dividends if now < one.ex_date <= until]
    return min(coming, key=lambda one: one.ex_date, default=None)


_LEG = ("strategy_id", "account", "conid", "symbol")


def _options(legs: PricedLegs) -> list[tuple[dict[str, Any], OptionTerms]]:
    """Return each part of an option whose terms are known, with these."""
    rows = legs.with_units.iter_rows(named=True)
    pairs = ((row, legs.terms[row["unit"]]) for row in rows)
    return [(row, terms) for row, terms in pairs if terms is not None]


def _price(row: Mapping[str, Any]) -> float | None:
    """Return the price of one unit, from the value of the part."""
    size = row["position"] * row["multiplier"] * row["share"]
    value = row["market_value"]
    return None if value is None or not size else value / size


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
        one = PricedLegs(legs.parts.filter(of), legs.given)
        curve = _curve(one, symbol, currency)
        if curve is not None:
            found.append(curve)
    return found


def _curve(legs: PricedLegs, symbol: str, currency: str) -> Curve | None:
    spot = legs.units.get_column("spot").drop_nulls().median()
    if not isinstance(spot, float):
        return None
    ends = [one.expires_at for one in legs.terms if one is not None]
    now = legs.given.now
    left = (min(ends) - now) / timedelta(days=1) if ends else 0.0
    days = max(left, 0.0) + 1e-6
    strikes = {one.strike for one in legs.terms if one is not None}
    kinks = {100 * (strike / spot - 1) for strike in strikes}
    moves = sorted({FAR_DOWN, *SPOTS, *kinks, FAR_UP, FURTHER_UP})
    known = _known(legs)
    opened = float(known.parts.get_column("unrealized_pnl").sum())
    today = _profits(known, [Point(spot=move) for move in moves], opened)
    ended = _profits(known, [Point(spot=move, days=days) for move in moves], opened)
    if today is None or ended is None:
        return None
    pairs = list(zip(moves, ended, strict=True))
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
        days=left,
        break_evens=tuple(spot * (1 + move / 100) for move in _zeros(pairs)),
        greatest_profit=None if slope > flat else max(ended),
        greatest_loss=None if slope < -flat else min(ended),
        left_out=legs.parts.height - known.parts.height,
    )


def _known(legs: PricedLegs) -> PricedLegs:
    """Return the legs that can be priced, and whose profit since their opening is known."""
    priced = legs.units.filter(pl.col("reason").is_null())
    parts = legs.with_units.join(priced.select("unit"), on="unit", how="semi")
    return PricedLegs(parts.filter(pl.col("unrealized_pnl").is_not_null()).drop("unit"), legs.given)


def _profits(legs: PricedLegs, points: Sequence[Point], opened: float) -> list[float] | None:
    """Return the profit since the opening at each point; None if no leg can be priced."""
    rows = (
        legs.scenarios(points, Breakdown.UNDERLYING).group_by("point").agg(pl.col("profit").sum())
    )
    found = dict(rows.iter_rows())
    known = legs.units.get_column("reason").null_count()
    return [opened + found[n] for n in range(len(points))] if known else None


def _zeros(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Return where a line through points crosses 0."""
    return [
        at + (later - at) * value / (value - after)
        for (at, value), (later, after) in pairwise(pairs)
        if value * after < 0
    ]
