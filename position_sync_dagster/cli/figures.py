"""The commands `figures` and `why`: all figures, and what explains those of today."""

import sys
from datetime import datetime
from pathlib import Path

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.money.as_of import Past
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.profit.profit import PROFIT_PARTS
from position_sync_dagster.money.profit.todays_profit import (
    TodaysProfit,
    explain_today,
    of_strategy,
)
from position_sync_dagster.money.reports.book import names_ever
from position_sync_dagster.money.reports.columns import amount, known_for
from position_sync_dagster.money.reports.figures import Figures, read_figures, read_figures_at
from position_sync_dagster.settings import Settings
from position_sync_dagster.terminal import board, output


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
    if as_of is not None and not json:
        raise typer.BadParameter("--as-of needs --json; `exposure --as-of` shows a table.")
    *_opened, shown = _read(home, as_of)
    if json:
        sys.stdout.write(output.escaped(shown.to_json()) + "\n")
    else:
        output.show(None, board.labelled(board.figures_of(shown)), json=False)


def _read(home: Path | None, as_of: datetime | None) -> tuple[Settings, MoneyLake, Figures]:
    """Return settings, lake, and the figures of now, or of a past moment, which is printed."""
    settings, lake = options.opened(home)
    now = utc_now()
    if as_of is None:
        return settings, lake, read_figures(lake, settings, now)

    past = Past(at=as_of)
    typer.echo(past, err=True)
    return settings, lake, read_figures_at(lake, settings, past, now)


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
    settings, lake, figures_then = _read(home, as_of)
    output.print_above(figures_then.not_current, json=json)
    names_ever(lake, figures_then.book).require(strategy=strategy)
    explained = explain_today(lake, settings, figures_then)
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
    name = max(row.largest, key=lambda name: abs(getattr(row, name)))
    part = amount(getattr(row, name))
    legs = [f"{leg.leg} {amount(leg.amount)}" for leg in row.largest[name]]
    return f"{name} {part}, most by {', '.join(legs)}"
