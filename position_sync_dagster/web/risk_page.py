"""The page `/money/risk`: scenarios of strategies and underlyings, curves, and explained profit.

It is made at each request, for a person who asks seldom; the browser runs no program for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import quote

from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.tables import PROFIT_EXPLAINED
from position_sync_dagster.risk.expiry import Curve, curves
from position_sync_dagster.risk.explained import PARTS, of_newest_day
from position_sync_dagster.risk.scenarios import Breakdown
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports import risk

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
        PositionSyncError: A table or the file of scenarios cannot be used.
    """
    _book, own, legs = risk.read_risk(lake, settings, now)
    points = own.recorded
    parts = [
        f"<p>{now:%Y-%m-%d %H:%M} UTC · <a href='/money'>money</a></p>",
        _strip(
            "Strategies", legs.rows(points, Breakdown.STRATEGY), [one.name or "" for one in points]
        ),
        _strip(
            "Underlyings", legs.rows(points, Breakdown.UNDERLYING), [p.name or "" for p in points]
        ),
        *(f"<p>{count} left out: {escape(why)}</p>" for why, count in legs.left_out().items()),
    ]
    if strategy is not None:
        chosen = curves(legs.of_strategy(strategy))
        parts += [f"<h2>{escape(strategy)}</h2>", *map(_drawn, chosen)]
    table = lake.derived_table(PROFIT_EXPLAINED)
    if table.exists():
        parts.append(_explained(of_newest_day(table.rows()).to_dicts()))
    body = "".join(parts)
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Risk</title>"
        f"<style>{STYLE}</style><body><h1>Risk</h1>{body}</body></html>"
    )


def _strip(title: str, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> str:
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("name", "account", "currency"))
        cells = found.setdefault(key, {"left out": str(row["left_out"])})
        cells[row["scenario"] or ""] = _money(row["profit"])
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", "account", "currency", *names))
    lines = []
    for (name, account, currency), cells in found.items():
        link = escape(name)
        if title == "Strategies":
            link = f"<a href='/money/risk?strategy={quote(name)}'>{link}</a>"
        values = "".join(f"<td>{cells.get(one, '–')}</td>" for one in names)
        texts = f"<td>{escape(account)}</td><td>{escape(currency)}</td>"
        lines.append(f"<tr><td>{link}</td>{texts}{values}<td>{cells['left out']}</td></tr>")
    return f"<h2>{title}</h2><table><tr>{head}<th>left out</th></tr>{''.join(lines)}</table>"


def _drawn(curve: Curve) -> str:
    profit = "unbounded" if curve.greatest_profit is None else _money(curve.greatest_profit)
    loss = "unbounded" if curve.greatest_loss is None else _money(curve.greatest_loss)
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


def _explained(rows: Sequence[Mapping[str, Any]]) -> str:
    largest = max((abs(row[name]) for row in rows for name in PARTS), default=0.0) or 1.0
    head = "".join(f"<th>{name}</th>" for name in ("", "account", "profit", *PARTS))
    lines = []
    for row in rows:
        bars = "".join(
            f"<td>{_money(row[name])}<br><span class='bar' "
            f"style='width:{60 * abs(row[name]) / largest:.0f}px'></span></td>"
            for name in PARTS
        )
        lines.append(
            f"<tr><td>{escape(row['strategy_id'])}</td><td>{escape(row['account'])}</td>"
            f"<td>{_money(row['profit'])} {escape(row['currency'])}</td>{bars}</tr>"
        )
    day = rows[0]["session_date"] if rows else ""
    return (
        f"<h2>Where the profit of {day} came from</h2><table><tr>{head}</tr>"
        f"{''.join(lines)}</table>"
    )


def _money(amount: float | None) -> str:
    return "–" if amount is None else f"{round(amount):,}"
