"""The command `why`: where the profit of today of each strategy came from so far."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.sync.reports.figures import read_figures
from position_sync_dagster.sync.reports.profit import PARTS
from position_sync_dagster.sync.reports.todays_profit import (
    TodaysProfit,
    explain_today,
    of_strategy,
)
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import amount


def why(
    strategy: options.Strategy = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show why today's profit of each strategy is what it is, since the close before.

    The number is today's of `figures`, of what is open; the parts add up to it. Near the expiry,
    and where the close has no greeks, they come from full revaluation: spot, then volatility, then
    time. What closed today is named beside. An unknown part is a dash, with the reason below.
    """
    settings, lake = options.opened(home)
    figures = read_figures(lake, settings, utc_now())
    rows = of_strategy(explain_today(lake, settings, figures), strategy, figures.book)
    if rows and not json:
        output.print_table([*map(_line, rows)], right=_NUMBERS)
    lines = _reasons(rows) if rows else ["Nothing is held."]
    output.show(rows, lines, json=json)


# A column of zeros alone says nothing: these parts are shown where one of them is not 0.
_NUMBERS = ("today", *PARTS, "closed")


def _line(row: TodaysProfit) -> dict[str, str]:
    """Return the cells of a strategy."""
    cells = {"strategy": row.strategy, "account": row.account, "": row.currency}
    cells["today"] = amount(row.profit)
    for name in PARTS:
        cells[name] = amount(getattr(row, name))
    cells["closed"] = amount(row.closed) if row.closed_legs else ""
    return cells


def _reasons(rows: Sequence[TodaysProfit]) -> Iterator[str]:
    """Yield the largest legs of the largest part of each strategy, and what is not known."""
    since: datetime | None = None
    for row in rows:
        since = row.since
        if row.largest:
            name = max(row.largest, key=lambda part: abs(getattr(row, part)))
            legs = ", ".join(f"{leg.leg} {amount(leg.amount)}" for leg in row.largest[name])
            yield f"{row.strategy}: {name} {amount(getattr(row, name))}, most by {legs}"
        if row.revalued:
            yield f"{row.strategy}: revalued in steps: {', '.join(row.revalued)}"
        if row.without_greeks:
            yield f"{row.strategy}: repricing alone: {', '.join(row.without_greeks)}"
        if row.closed_legs:
            closed = ", ".join(f"{leg.leg} {amount(leg.profit)}" for leg in row.closed_legs)
            yield f"{row.strategy}: closed today, not in the number: {closed}"
        if row.why_unknown:
            yield f"{row.strategy}: not known: {row.why_unknown}"
    if since is not None:
        yield f"Since the close of {since:%Y-%m-%d %H:%M} UTC; commissions are in no part."
