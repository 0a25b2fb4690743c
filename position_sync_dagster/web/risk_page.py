"""The page `/money/risk`: scenarios of strategies and underlyings, curves, and explained profit.

It is made at each request, for a person who asks seldom; the browser runs no program for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import quote

from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import PROFIT_EXPLAINED
from position_sync_dagster.risk.scenario_file import Point
from position_sync_dagster.risk.scenarios import Breakdown, Curve, PricedLegs, curves
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import known_strategy
from position_sync_dagster.sync.reports.risk import PARTS, of_newest_day, read_risk
from position_sync_dagster.terminal.text import amount

STYLE = (
    "body{font:14px system-ui;margin:1.5em;color-scheme:light dark}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .7em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#8882}"
    ".bar{display:inline-block;height:.7em;background:currentColor;opacity:.5}"
)


# The size of the picture of a curve.
WIDTH, HEIGHT = 640, 260


def risk_html(lake: Lake, settings: Settings, now: datetime, strategy: str | None) -> str:
    """Return the page; blocks.

    Args:
        lake: The tables.
        settings: The logins, rates and file of scenarios.
        now: The present moment.
        strategy: The strategy whose curves are drawn; None: none.

    Raises:
        UnknownStrategyError: The strategy is not active.
        PositionSyncError: A table or the file of scenarios cannot be used.
    """
    book, own, legs = read_risk(lake, settings, now)
    known_strategy(strategy, (leg.strategy_id for leg in book.legs), book.unresolved)
    parts = [
        f"<p>{now:%Y-%m-%d %H:%M} UTC · <a href='/money'>money</a></p>",
        _scenarios("Strategies", legs, Breakdown.STRATEGY, own.recorded),
        _scenarios("Underlyings", legs, Breakdown.UNDERLYING, own.recorded),
        *(f"<p>{count} left out: {escape(why)}</p>" for why, count in legs.left_out().items()),
    ]
    if strategy is not None:
        chosen = curves(legs.of_strategy(strategy))
        parts += [f"<h2>{escape(strategy)}</h2>", *map(_drawn, chosen)]
    table = lake.derived_table(PROFIT_EXPLAINED)
    if table.exists():
        parts.append(_explained(of_newest_day(table.rows()).to_dicts()))
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Risk</title>"
        f"<style>{STYLE}</style><body><h1>Risk</h1>{''.join(parts)}</body></html>"
    )


def _table(title: str, head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a table of cells that are HTML already."""
    rows = "".join(f"<tr><td>{'</td><td>'.join(cells)}</td></tr>" for cells in lines)
    return f"<h2>{title}</h2><table><tr><th>{'</th><th>'.join(head)}</th></tr>{rows}</table>"


def _scenarios(title: str, legs: PricedLegs, level: Breakdown, points: Sequence[Point]) -> str:
    """Return the profit of each group of a level in each scenario."""
    lines = []
    for row in legs.profits(points, level):
        name, *rest = (escape(str(row[key])) for key in ("name", "account", "currency"))
        if level is Breakdown.STRATEGY:
            name = f"<a href='/money/risk?strategy={quote(row['name'])}'>{name}</a>"
        lines.append([name, *rest, *map(amount, row["profits"]), str(max(row["left_out"]))])
    names = (escape(one.name or "") for one in points)
    return _table(title, ["", "account", "currency", *names, "left out"], lines)


def _drawn(curve: Curve) -> str:
    profit, loss = (
        "unbounded" if one is None else amount(one)
        for one in (curve.greatest_profit, curve.greatest_loss)
    )
    evens = ", ".join(f"{at:,.2f}" for at in curve.break_evens) or "none"
    return (
        f"<h3>{escape(curve.symbol)} {escape(curve.currency)}</h3>{as_svg(curve)}"
        f"<p>Dashed: today. Solid: in {curve.days:,.1f} days, at the next expiry. "
        f"Break-even: {evens}. Greatest profit: {profit}; greatest loss: {loss}. "
        f"Left out: {curve.left_out}.</p>"
    )


def as_svg(curve: Curve) -> str:
    """Return the curve as a picture: today dashed, at the expiry solid."""
    low, high = min(*curve.today, *curve.at_expiry, 0.0), max(*curve.today, *curve.at_expiry, 0.0)
    span, first, last = (high - low) or 1.0, curve.prices[0], curve.prices[-1]

    def line(prices: Sequence[float], profits: Sequence[float], look: str) -> str:
        points = " ".join(
            f"{WIDTH * (price - first) / (last - first):.1f},{HEIGHT * (high - profit) / span:.1f}"
            for price, profit in zip(prices, profits, strict=True)
        )
        return f'<polyline points="{points}" fill="none" {look}/>'

    marks = [at for at in curve.break_evens if first <= at <= last]
    lines = [
        line((first, last), (0.0, 0.0), 'stroke="gray"'),
        line((curve.spot, curve.spot), (low, high), 'stroke="gray" stroke-dasharray="2 4"'),
        *(line((at, at), (low, high), 'stroke="gray"') for at in marks),
        line(curve.prices, curve.today, 'stroke="currentColor" stroke-dasharray="5 4"'),
        line(curve.prices, curve.at_expiry, 'stroke="currentColor" stroke-width="2"'),
    ]
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg {size} role="img">{"".join(lines)}</svg>'


def _explained(rows: Sequence[Mapping[str, Any]]) -> str:
    largest = max((abs(row[part]) for row in rows for part in PARTS), default=0.0) or 1.0

    def bar(part: float) -> str:
        width = f"{60 * abs(part) / largest:.0f}px"
        return f"{amount(part)}<br><span class='bar' style='width:{width}'></span>"

    lines = []
    for row in rows:
        names = (escape(row[of]) for of in ("strategy_id", "account", "currency"))
        lines.append([*names, amount(row["profit"]), *(bar(row[part]) for part in PARTS)])
    title = f"Where the profit of {rows[0]['session_date'] if rows else ''} came from"
    return _table(title, ["", "account", "currency", "profit", *PARTS], lines)
