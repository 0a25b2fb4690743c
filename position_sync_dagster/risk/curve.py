"""The profit of a strategy over the price of its underlying, today and at its next expiry."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import polars as pl

from position_sync_dagster.risk.scenarios import Breakdown, Point, PricedLegs

SPOTS = tuple(float(percent) for percent in range(-30, 31))
FAR_DOWN, FAR_UP, FURTHER_UP = -99.9, 400.0, 401.0
"""Moves in percent at which only the slope of the profit is left."""

WIDTH, HEIGHT = 640, 260


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


def as_svg(curve: Curve) -> str:
    """Return the curve as a picture: today dashed, at the expiry solid."""
    low, high = min(*curve.today, *curve.at_expiry, 0.0), max(*curve.today, *curve.at_expiry, 0.0)
    span, first, last = (high - low) or 1.0, curve.prices[0], curve.prices[-1]

    def x(price: float) -> float:
        return WIDTH * (price - first) / (last - first)

    def y(profit: float) -> float:
        return HEIGHT * (high - profit) / span

    def line(profits: Sequence[float], more: str) -> str:
        points = " ".join(
            f"{x(price):.1f},{y(profit):.1f}"
            for price, profit in zip(curve.prices, profits, strict=True)
        )
        return f'<polyline points="{points}" fill="none" stroke="currentColor" {more}/>'

    marks = "".join(
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="0" y2="{HEIGHT}" stroke="gray"/>'
        f'<text x="{x(at) + 3:.1f}" y="12" font-size="11" fill="currentColor">{at:,.2f}</text>'
        for at in curve.break_evens
        if first <= at <= last
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
        f'<line x1="0" x2="{WIDTH}" y1="{y(0.0):.1f}" y2="{y(0.0):.1f}" stroke="gray"/>'
        f'<line x1="{x(curve.spot):.1f}" x2="{x(curve.spot):.1f}" y1="0" y2="{HEIGHT}" '
        'stroke="gray" stroke-dasharray="2 4"/>'
        f"{marks}{line(curve.today, 'stroke-dasharray=' + chr(34) + '5 4' + chr(34))}"
        f"{line(curve.at_expiry, 'stroke-width=' + chr(34) + '2' + chr(34))}</svg>"
    )
