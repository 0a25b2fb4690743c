"""What was earned, what it cost, and the way out: `results`, `returns`, `fills`, `export`."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.cli.asked import asked
from position_sync_dagster.domain.instrument import parse_day
from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.campaigns.lots import LOTS, read_lots
from position_sync_dagster.money.campaigns.results import Grouping, read_campaigns
from position_sync_dagster.money.past.movement_book import movements_with_inferred
from position_sync_dagster.money.profit.returns import Period
from position_sync_dagster.money.reports.fill_costs import FillGrouping
from position_sync_dagster.money.tables import CLOSED_CAMPAIGNS
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import csv_of


@app.command()
def results(
    since: options.Since = None,
    by: Annotated[Grouping, typer.Option(help="How campaigns are grouped.")] = Grouping.STRATEGY,
    campaigns: Annotated[
        bool, typer.Option("--list", help="Show the campaigns themselves.")
    ] = False,
    so_far: Annotated[
        bool, typer.Option("--open", help="Show the open campaigns of strategies.")
    ] = False,
    days: Annotated[
        bool, typer.Option("--days", help="Show the profit of each day, and what was realised.")
    ] = False,
    in_base: Annotated[
        bool, typer.Option("--in-base", help="Show groups over currencies, in the base currency.")
    ] = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what campaigns that are over brought, in groups.

    A campaign of a strategy ends when nothing is left of it at a close: rolls and assigned shares
    belong to it. Profit is after fees. Of a group with a campaign whose profit is not known, no
    number of money is. The month is that of the close.

    --json has every column, and why one is null; `campaign` shows one of --list.
    """
    if campaigns:
        rows = asked(home, "campaigns", since=since)["campaigns"]
        output.show_rows(rows, _CAMPAIGN_COLUMNS, json=json, none=_NONE)
        return
    if so_far:
        rows = asked(home, "open-campaigns")["campaigns"]
        output.show_rows(rows, _OPEN_COLUMNS, json=json, none="No campaign of a strategy is open.")
        return

    answer = asked(home, "results", since=since, by=by)
    if in_base:
        output.show_rows(answer["in_base"], json=json, none=_ALL_IN_BASE)
        return

    output.show_rows(answer["days" if days else "results"], json=json, none=_NONE)


@app.command()
def campaign(
    name: Annotated[str, typer.Argument(help="The campaign_id that `results --list` shows.")],
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show one campaign that is over: its fills and rolls, and its days."""
    over = asked(home, "campaign", id=name)
    if json:
        output.print_json(over)
        return

    output.print_table(over.campaigns, _CAMPAIGN_COLUMNS)
    output.show_rows(over.fills, _FILL_COLUMNS, json=False, none="Nothing moved it.")
    output.show_rows(over.rolls, _ROLL_COLUMNS, json=False, none="Nothing was rolled.")
    output.show_rows(over.days, _DAY_COLUMNS, json=False, none="How it stood is not known.")


@app.command()
def returns(
    since: options.Since = None,
    by: Annotated[Period, typer.Option(help="The periods, after the whole time.")] = Period.ALL,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what each account returned, by time and by money, from the books of its days.

    Time-weighted: the returns of the days, chained, whatever the owner brought or took.
    Money-weighted: the rate for a year of what was brought (XIRR). Numbers other than money are
    in percent, in --json parts of one. A day that is not known breaks the chain: then no number is
    shown, and why.
    """
    output.show_rows(
        asked(home, "returns", since=since, by=by)["returns"],
        json=json,
        none="No day has books yet: they are made of the statements of two trading days.",
    )


@app.command()
def fills(
    since: options.Since = None,
    by: Annotated[FillGrouping, typer.Option(help="How fills are grouped.")] = (
        FillGrouping.STRATEGY
    ),
    executions: Annotated[
        bool, typer.Option("--list", help="Show each fill, with the quote before it.")
    ] = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what fills cost: slippage against the middle of the quote before them, and fees.

    A fill has a quote where a market data line of its leg had one: `known` of `fills`, and all but
    fees_without_quote is of those. A combination counts as one. Below 0 a fill was better than mid;
    50 % of the spread is the other side of the market.
    """
    answer = asked(home, "fills", since=since, by=by)
    if executions:
        output.show_rows(answer["fills"], _FILL_COST_COLUMNS, json=json, none=_NO_FILL)
    else:
        output.show_rows(answer["groups"], json=json, none=_NO_FILL)


_NO_FILL = "Nothing was traded, as far as is known."


class Exported(StrEnum):
    """What can be exported."""

    MOVEMENTS = "movements"
    CAMPAIGNS = "campaigns"
    LOTS = "lots"


class ExportFormat(StrEnum):
    """The formats of an export."""

    CSV = "csv"
    PARQUET = "parquet"


@app.command()
def export(
    what: Annotated[Exported, typer.Argument(help="What to export.")],
    file_format: Annotated[ExportFormat, typer.Option("--format")] = ExportFormat.CSV,
    since: options.Since = None,
    home: options.HomeFolder = None,
) -> None:
    """Print movements, campaigns that are over, or lots, for a ledger or another program.

    Lots are first in, first out, or as the broker matched them where a statement has closed lots,
    through assignments and corporate actions, with those that are held. They are no tax form.
    Unknown is empty, and why_unknown says why.
    """
    first = None if since is None else parse_day(since, "day")
    _settings, lake = options.opened(home)
    match what:
        case Exported.MOVEMENTS:
            rows = movements_with_inferred(lake, first)
        case Exported.CAMPAIGNS:
            rows = frame_of(CLOSED_CAMPAIGNS, read_campaigns(lake, first))
        case Exported.LOTS:
            rows = frame_of(LOTS, read_lots(lake, first))

    if file_format is ExportFormat.PARQUET:
        rows.write_parquet(sys.stdout.buffer)
    else:
        sys.stdout.write(csv_of(rows.columns, rows.iter_rows()))


_ALL_IN_BASE = "All is in the base currency of its account: `results` has its sums."
_NONE = "No campaign is over, as far as the tables know. Materialize the asset closed_campaigns."

_CAMPAIGN_COLUMNS = (
    "campaign_id", "kind", "underlying", "opened", "closed", "ended", "rolls", "currency", "profit",
    "fees", "worst", "best", "capital_at_risk", "return_on_risk", "return_per_year",
    "profit_reached", "cost_per_share",
    "entry_delta", "entry_implied_vol", "entry_underlying_price",
    "profit_unknown", "why_unknown", "entry_unknown",
)  # fmt: skip
_OPEN_COLUMNS = (
    "campaign_id", "kind", "underlying", "opened", "rolls", "currency", "brought", "fees", "stands",
    "worst", "best", "capital_at_risk", "cost_per_share", "entry_delta", "entry_implied_vol",
    "entry_underlying_price", "profit_unknown", "why_unknown", "entry_unknown",
)  # fmt: skip
_DAY_COLUMNS = ("day", "currency", "profit", "stands")
_FILL_COLUMNS = ("day", "contract", "kind", "quantity", "price", "cash", "fee", "currency")
_ROLL_COLUMNS = ("at", "closed", "opened")
_FILL_COST_COLUMNS = (
    "at", "contract", "strategy", "quantity", "price", "bid", "ask", "slippage", "part_of_spread",
    "fee", "cost", "currency", "why_unknown",
)  # fmt: skip
