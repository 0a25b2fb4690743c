"""The page `/money/risk`: scenarios of strategies and underlyings, curves, and explained profit.

It is made at each request, for a person who asks seldom. The browser draws the header of all pages
above it, which says how old everything is.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import product
from typing import Any
from urllib.parse import quote

from position_sync_dagster.domain.leg import UNATTRIBUTED
from position_sync_dagster.errors import UserError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import BOOKS, PROFIT_EXPLAINED
from position_sync_dagster.risk.curve import Curve, curves_of
from position_sync_dagster.risk.priced_legs import PricedLegs
from position_sync_dagster.risk.proposed_trade import EXAMPLE
from position_sync_dagster.risk.scenario_file import Point
from position_sync_dagster.risk.scenarios import Breakdown, profits
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import known_strategy
from position_sync_dagster.sync.reports.books import EXPLAINS
from position_sync_dagster.sync.reports.profit import PARTS, of_newest_day
from position_sync_dagster.sync.reports.risk import leg_notes, read_risk
from position_sync_dagster.sync.reports.what_if import USUAL_MOVES, read_changes, read_what_if
from position_sync_dagster.terminal.text import amount
from position_sync_dagster.web.page import PageFrame

# The size of the picture of a curve.
WIDTH, HEIGHT = 640, 260


def risk_html(
    lake: Lake,
    settings: Settings,
    now: datetime,
    strategy: str | None,
    trade: str | None = None,
) -> str:
    """Return the page; blocks.

    Args:
        lake: The tables.
        settings: The logins, rates and file of scenarios.
        now: The present moment.
        strategy: The strategy whose curves are drawn; None: none.
        trade: A trade that is thought of, as `parse_trade` reads it; None: none.

    Raises:
        UnknownStrategyError: The strategy is not active.
        PositionSyncError: A table or the file of scenarios cannot be used.
    """
    book, own, legs = read_risk(lake, settings, now)
    if strategy != UNATTRIBUTED:
        known_strategy(strategy, (leg.strategy_id for leg in book.legs), book.unresolved)
    parts = [
        f"<p>{now:%Y-%m-%d %H:%M:%S} UTC, <span id='computed' data-at='{now.isoformat()}'></span>"
        " · <a href='/money'>money</a></p>",
        _scenarios("Strategies", legs, Breakdown.STRATEGY, own.recorded),
        _scenarios("Underlyings", legs, Breakdown.UNDERLYING, own.recorded),
        *(f"<p>{count} left out: {escape(why)}</p>" for why, count in legs.left_out().items()),
    ]
    if strategy is not None:
        parts.append(f"<h2>{escape(strategy)}</h2>")
        notes = leg_notes(book).get(strategy, ())
        curves = curves_of(legs.of_strategy(strategy), Point(), by_underlying=True, notes=notes)
        parts += [_drawn(curve) for curve in curves]
    parts.append(_trade_form(trade))
    if trade:
        parts.append(_compared(lake, settings, now, trade))
    table = lake.derived_table(PROFIT_EXPLAINED)
    if table.exists():
        parts.append(_explained(of_newest_day(table.rows()).to_dicts()))
    books = lake.derived_table(BOOKS)
    if books.exists():
        parts.append(_books(of_newest_day(books.rows()).to_dicts()))
    content = f"<div id='report'>{''.join(parts)}</div>"
    frame = PageFrame(title="Risk", path="/money/risk", module="risk_page")
    return frame.html(content)


def _table(title: str, head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a table of cells that are HTML already."""
    rows = "".join(f"<tr><td>{'</td><td>'.join(cells)}</td></tr>" for cells in lines)
    return f"<h2>{title}</h2><table><tr><th>{'</th><th>'.join(head)}</th></tr>{rows}</table>"


def _scenarios(title: str, legs: PricedLegs, level: Breakdown, points: Sequence[Point]) -> str:
    """Return the profit of each group of a level in each scenario."""
    lines = []
    for row in profits(legs, points, level):
        name, *rest = (escape(str(row[key])) for key in ("name", "account", "currency"))
        if level is Breakdown.STRATEGY:
            name = f"<a href='/money/risk?strategy={quote(row['name'])}'>{name}</a>"
        cells = map(_starred, row["profits"], row["left_out"])
        lines.append([name, *rest, *cells, str(max(row["left_out"]))])
    names = (escape(one.name or "") for one in points)
    return _table(title, ["", "account", "currency", *names, "left out"], lines)


def _trade_form(trade: str | None) -> str:
    """Return the form for a trade that is thought of."""
    return (
        "<h2>What if</h2><form action='/money/risk'>"
        f"<input name='trade' size='40' value='{escape(trade or '')}' placeholder='{EXAMPLE}'> "
        "<button>Show before and after</button></form>"
    )


def _compared(lake: Lake, settings: Settings, now: datetime, trade: str) -> str:
    """Return what strategies are before and after a trade; of a wrong one what is wrong."""
    try:
        compared = read_what_if(lake, settings, now, read_changes([trade], (), ()))
    except UserError as error:
        return f"<p>{escape(str(error))}</p>"

    lines = []
    for row in compared.rows([Point(spot=move) for move in USUAL_MOVES], Breakdown.STRATEGY):
        if row["before"] == row["after"]:
            continue
        sides = (row["before"] or {}, row["after"] or {})
        shown = product(("profit", "dollar_delta", "theta"), sides)
        numbers = [amount(side.get(name)) for name, side in shown]
        names = (escape(str(row[name])) for name in ("name", "account", "currency"))
        lines.append([*names, f"{row['spot']:+g} %", *numbers])
    head = ["", "account", "currency", "move"]
    head += ["profit before", "after", "delta before", "after", "theta before", "after"]
    notes = "".join(f"<p>{escape(note)}</p>" for note in compared.notes)
    return notes + _table("Before and after", head, lines)


def _starred(profit: float | None, left_out: int) -> str:
    """Return an amount; a star marks a sum that leaves out a leg."""
    return amount(profit) + ("*" if left_out and profit is not None else "")


def _drawn(curve: Curve) -> str:
    """Return the payoff of a strategy with its picture."""
    payoff = curve.payoff
    if payoff is None:
        return ""
    title = f"{payoff.underlying} {payoff.currency} {payoff.account}"
    picture = "<p>No picture: a price or a profit is not known.</p>"
    if curve.prices is not None and curve.at_expiry is not None:
        dashed = "today" if curve.now is not None else "not known, a leg has no price"
        day = payoff.expiry or "any day"
        picture = f"{as_svg(curve)}<p>Dashed: {dashed}. Solid: on {day}.</p>"

    evens = "not known"
    bound = "not known"
    if payoff.break_evens is not None:
        evens = ", ".join(f"{price:,.2f}" for price in payoff.break_evens) or "none"
        bound = "unbounded"
    bounds = [
        bound if amount_or_none is None else f"{amount_or_none:,.2f}"
        for amount_or_none in (payoff.greatest_profit, payoff.greatest_loss)
    ]
    notes = "".join(f"<p>{escape(text)}.</p>" for text in (payoff.why, payoff.note) if text)
    return (
        f"<h3>{escape(title)}</h3><p>{escape(', '.join(payoff.legs))}</p>{picture}"
        f"<p>Break-even: {evens}. Greatest profit: {bounds[0]}; greatest loss: {bounds[1]}.</p>"
        f"{notes}"
    )


def as_svg(curve: Curve) -> str:
    """Return the curve as a picture: today dashed, at the expiry solid."""
    today = curve.now or ()
    prices = curve.prices or (0.0, 1.0)
    at_expiry = curve.at_expiry or (0.0, 0.0)
    low = min(*today, *at_expiry, 0.0)
    high = max(*today, *at_expiry, 0.0)
    first, last = prices[0], prices[-1]
    span = (high - low) or 1.0

    def line(prices: Sequence[float], profits: Sequence[float], look: str) -> str:
        points = []
        for price, profit in zip(prices, profits, strict=True):
            x = WIDTH * (price - first) / (last - first)
            y = HEIGHT * (high - profit) / span
            points.append(f"{x:.1f},{y:.1f}")
        return f'<polyline points="{" ".join(points)}" fill="none" {look}/>'

    whole = (low, high)
    spot = curve.spot or 0.0
    lines = [
        line((first, last), (0.0, 0.0), 'stroke="gray"'),
        line((spot, spot), whole, 'stroke="gray" stroke-dasharray="2 4"'),
    ]
    break_evens = (curve.payoff.break_evens if curve.payoff else None) or ()
    shown = [price for price in break_evens if first <= price <= last]
    lines += [line((price, price), whole, 'stroke="gray"') for price in shown]
    if today:
        lines.append(line(prices, today, 'stroke="currentColor" stroke-dasharray="5 4"'))
    lines.append(line(prices, at_expiry, 'stroke="currentColor" stroke-width="2"'))

    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg {size} role="img">{"".join(lines)}</svg>'


def _books(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return why net liquidation moved; a part that is not known is a dash."""
    columns = ("change", *EXPLAINS, "difference")
    lines = []
    for row in rows:
        names = [escape(row["account"]), escape(row["currency"] or "")]
        unknown = escape(row["why_unknown"] or "")
        lines.append([*names, *(amount(row[name]) for name in columns), unknown])

    title = f"The books of {rows[0]['session_date'] if rows else ''}"
    return _table(title, ["", "currency", *columns, "not known"], lines)


def _explained(rows: Sequence[Mapping[str, Any]]) -> str:
    largest = max((abs(row[part] or 0.0) for row in rows for part in PARTS), default=0.0) or 1.0

    def bar(part: float | None) -> str:
        if part is None:
            return amount(None)
        width = f"{60 * abs(part) / largest:.0f}px"
        return f"{amount(part)}<br><span class='amount-bar' style='width:{width}'></span>"

    lines = []
    for row in rows:
        names = (escape(row[of]) for of in ("strategy_id", "account", "currency"))
        lines.append([*names, amount(row["profit"]), *(bar(row[part]) for part in PARTS)])
    title = f"Where the profit of {rows[0]['session_date'] if rows else ''} came from"
    return _table(title, ["", "account", "currency", "profit", *PARTS], lines)
