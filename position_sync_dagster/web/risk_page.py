"""The page `/money/risk`: scenarios of strategies and underlyings, and explained profit.

It is made at each request, for a person who asks seldom; the browser runs no program for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.tables import PROFIT_EXPLAINED
from position_sync_dagster.risk.scenarios import Breakdown, Point, PricedLegs
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.risk import PARTS, of_newest_day, read_risk

STYLE = (
    "body{font:14px system-ui;margin:1.5em;color-scheme:light dark}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .7em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#8882}"
    ".bar{display:inline-block;height:.7em;background:currentColor;opacity:.5}"
)


def risk_html(lake: Lake, settings: Settings, now: datetime) -> str:
    """Return the page; blocks.

    Raises:
        PositionSyncError: A table or the file of scenarios cannot be used.
    """
    _book, own, legs = read_risk(lake, settings, now)
    parts = [
        f"<p>{now:%Y-%m-%d %H:%M} UTC · <a href='/money'>money</a></p>",
        _scenarios("Strategies", legs, Breakdown.STRATEGY, own.recorded),
        _scenarios("Underlyings", legs, Breakdown.UNDERLYING, own.recorded),
        *(f"<p>{count} left out: {escape(why)}</p>" for why, count in legs.left_out().items()),
    ]
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
    rows, lines = legs.rows(points, level), []
    for start in range(0, len(rows), len(points)):
        of_group = rows[start : start + len(points)]
        names = (escape(str(of_group[0][key])) for key in ("name", "account", "currency"))
        left_out = max(row["left_out"] for row in of_group)
        lines.append([*names, *(_money(row["profit"]) for row in of_group), str(left_out)])
    names = (escape(one.name or "") for one in points)
    return _table(title, ["", "account", "currency", *names, "left out"], lines)


def _explained(rows: Sequence[Mapping[str, Any]]) -> str:
    largest = max((abs(row[name]) for row in rows for name in PARTS), default=0.0) or 1.0

    def bar(amount: float) -> str:
        width = f"{60 * abs(amount) / largest:.0f}px"
        return f"{_money(amount)}<br><span class='bar' style='width:{width}'></span>"

    lines = [
        [
            escape(row["strategy_id"]),
            escape(row["account"]),
            f"{_money(row['profit'])} {escape(row['currency'])}",
            *(bar(row[name]) for name in PARTS),
        ]
        for row in rows
    ]
    title = f"Where the profit of {rows[0]['session_date'] if rows else ''} came from"
    return _table(title, ["", "account", "profit", *PARTS], lines)


def _money(amount: float | None) -> str:
    return "–" if amount is None else f"{round(amount):,}"
