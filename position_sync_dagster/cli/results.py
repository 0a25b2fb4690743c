"""The commands `results` and `campaign`: what campaigns that are over brought."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.sync.reports.results import (
    Grouping,
)
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import as_typed

Since = Annotated[
    str | None,
    typer.Option(metavar="DAY", help="Only what closed on this day or later: 2026-01-02."),
]


@app.command()
def results(
    since: Since = None,
    by: Annotated[Grouping, typer.Option(help="How campaigns are grouped.")] = Grouping.STRATEGY,
    campaigns: Annotated[
        bool, typer.Option("--list", help="Show the campaigns themselves.")
    ] = False,
    days: Annotated[
        bool, typer.Option("--days", help="Show the profit of each day, and what was realised.")
    ] = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what campaigns that are over brought, in groups.

    A campaign of a strategy ends when nothing is left of it at a close: rolls and assigned shares
    belong to it. Profit is after fees. Of a group with a campaign whose profit is not known, no
    number of money is. Month and weekday are those of the close.

    --json has every column, and why one is null; `campaign` shows one of --list.
    """
    if campaigns:
        rows = options.asked(home, "campaigns", since=since)["campaigns"]
        _show_rows([asdict(row) for row in rows], _CAMPAIGN_COLUMNS, json=json)
        return

    answer = options.asked(home, "results", since=since, by=by)
    if days:
        _show_rows([asdict(day) for day in answer["days"]], _DAY_COLUMNS, json=json)
    else:
        _show_rows(answer["results"], _GROUP_COLUMNS, json=json)


@app.command()
def campaign(
    name: Annotated[str, typer.Argument(help="The campaign_id that `results --list` shows.")],
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show one campaign that is over: its fills and rolls.

    With --json also its legs, and how it stood at each close.
    """
    over = asdict(options.asked(home, "campaign", id=name))
    if json:
        output.print_json(over)
        return

    _show_rows(over["campaigns"], _CAMPAIGN_COLUMNS, json=False)
    _show_rows(over["fills"], _FILL_COLUMNS, json=False)
    for roll in over["rolls"]:
        closed = ", ".join(roll["closed"])
        opened = ", ".join(roll["opened"])
        output.show(None, [f"Rolled on {roll['at']:%Y-%m-%d}: {closed} to {opened}."], json=False)


_Rows = Sequence[dict[str, Any]]

_GROUP_COLUMNS = (
    "group", "currency", "number", "wins", "win_rate", "profit", "fees", "average_win",
    "average_loss", "expectancy", "profit_factor", "return", "drawdown",
)  # fmt: skip
_CAMPAIGN_COLUMNS = (
    "campaign_id", "kind", "underlying", "opened", "closed", "ended", "rolls", "currency", "profit",
    "fees", "capital_at_risk", "return_on_risk", "worst", "best",
)  # fmt: skip
_FILL_COLUMNS = ("day", "contract", "kind", "quantity", "price", "cash", "fee", "currency")
_DAY_COLUMNS = ("day", "currency", "profit", "realised", "campaigns", "total", "drawdown")


def _show_rows(rows: _Rows, columns: Sequence[str], *, json: bool) -> None:
    """Print rows: all of them as JSON, or some columns as a table, with what is not known."""
    if json:
        output.print_json(rows)
        return
    if not rows:
        hint = "Materialize the asset closed_campaigns."
        typer.echo(as_typed(f"No campaign is over, as far as the tables know. {hint}"))
        return

    notes = [row.get("why_unknown") or row.get("profit_unknown") or "" for row in rows]
    output.print_table(rows, columns, notes)
