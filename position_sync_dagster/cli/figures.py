"""The commands `figures` and `why`: all figures, and what explains those of today."""

import sys

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.money.as_of import Past
from position_sync_dagster.money.profit.profit import PROFIT_PARTS
from position_sync_dagster.money.profit.todays_profit import TodaysProfit, of_strategy
from position_sync_dagster.money.reports.book import names_ever
from position_sync_dagster.money.reports.columns import amount, known_for
from position_sync_dagster.terminal import board, output
from position_sync_dagster.web.served_figures import PageFigures


@app.command()
def figures(
    as_of: options.AsOf = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show all figures: accounts, strategies, positions, changes, limits.

    With --json as `/api/v1/figures` serves them; a program may rely on the names. With --as-of,
    `not_kept` names what is not known of the past.
    """
    settings, _lake = options.opened(home)
    if as_of is not None:
        if not json:
            raise typer.BadParameter("--as-of needs --json; `exposure --as-of` shows a table.")
        typer.echo(Past(at=as_of), err=True)
    now = utc_now()
    shown = PageFigures(settings).played_back(as_of, now).figures(now)
    if json:
        sys.stdout.write(output.escaped(shown.to_json()) + "\n")
    else:
        output.show(None, board.labelled(board.figures_of(shown)), json=False)


@app.command()
def why(
    strategy: options.Strategy = None,
    as_of: options.AsOf = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show why today's profit of each strategy is what it is, since the close before.

    The number is today's of `figures`, of what is open; the parts add up to it. `closed` is what
    closed today, which is in no part. An unknown part is a dash, with the reason behind it.
    """
    settings, lake = options.opened(home)
    if as_of is not None:
        typer.echo(Past(at=as_of), err=True)
    now = utc_now()
    figures_then, explained = PageFigures(settings).played_back(as_of, now).explained(now)
    names_ever(lake, figures_then.book).require(strategy=strategy)
    rows = of_strategy(explained, strategy, figures_then.book)
    lines = [f"{row.strategy}: {_largest_legs(row)}" for row in rows]
    output.show_rows(rows, _WHY, json=json, none="Nothing is held.", lines=lines)


_WHY = ("strategy", "account", "currency", "profit", *PROFIT_PARTS, "closed", "why_unknown")


def _largest_legs(row: TodaysProfit) -> str:
    """Return the largest part of the profit of a strategy, with the legs that it is of most."""
    if not row.largest and row.profit is None:
        return f"today is {known_for(row.known, row.of)}"
    if not row.largest:
        return "no part is known"
    name = max(row.largest, key=lambda part: abs(getattr(row, part)))
    legs = [f"{leg.leg} {amount(leg.amount)}" for leg in row.largest[name]]
    return f"{name} {amount(getattr(row, name))}, most by {', '.join(legs)}"
