"""The command `why`: where the profit of today of each strategy came from so far."""

from collections.abc import Iterator, Sequence

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
    lines = _notes(rows) if rows else ["Nothing is held."]
    output.show(rows, lines, json=json)


_NUMBERS = ("today", *PARTS, "closed")

# How many legs a line names.
MOST_NAMED = 5


def _line(row: TodaysProfit) -> dict[str, str]:
    """Return the cells of a strategy."""
    cells = {"strategy": row.strategy, "account": row.account, "": row.currency}
    cells["today"] = amount(row.profit)
    for name in PARTS:
        part = getattr(row, name)
        cells[name] = amount(None if part is None else round(part, 2))
    cells["closed"] = amount(row.closed) if row.closed_legs else ""
    return cells


def _notes(rows: Sequence[TodaysProfit]) -> list[str]:
    """Return the largest legs of the largest part of each strategy, and what is not known."""
    notes: list[str] = []
    for row in rows:
        notes += [f"{row.strategy}: {text}" for text in _notes_of(row)]
    since = rows[0].since
    return [*notes, f"Since the close of {since:%Y-%m-%d %H:%M} UTC; commissions are in no part."]


def _notes_of(row: TodaysProfit) -> Iterator[str]:
    """Yield what there is to say of one strategy."""
    if row.largest:
        name = max(row.largest, key=lambda part: abs(getattr(row, part)))
        legs = [f"{leg.leg} {amount(leg.amount)}" for leg in row.largest[name]]
        yield f"{name} {amount(getattr(row, name))}, most by {_listed(legs)}"

    if row.revalued:
        yield f"revalued in steps: {_listed(row.revalued)}"
    if row.without_greeks:
        yield f"repricing alone: {_listed(row.without_greeks)}"

    if row.closed_legs:
        legs = [f"{leg.leg} {amount(leg.profit)}" for leg in row.closed_legs]
        yield f"closed today, not in the number: {_listed(legs)}"
    if row.why_unknown:
        yield f"not known: {_listed(row.why_unknown.split('; '))}"


def _listed(texts: Sequence[str]) -> str:
    """Return the first texts, and how many more there are."""
    named = ", ".join(texts[:MOST_NAMED])
    more = len(texts) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
