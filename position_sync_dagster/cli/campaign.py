"""The command `campaign`: one campaign that is over."""

from dataclasses import asdict
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.results import CAMPAIGN_COLUMNS, show_rows
from position_sync_dagster.sync.reports.one_campaign import read_campaign
from position_sync_dagster.terminal import output

_FILL_COLUMNS = ("day", "contract", "kind", "quantity", "price", "cash", "fee", "currency")


def campaign(
    name: Annotated[str, typer.Argument(help="The campaign_id that `results --list` shows.")],
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show one campaign that is over: its fills and rolls.

    With --json also its legs, and how it stood at each close.
    """
    settings, lake = options.opened(home)
    found = asdict(read_campaign(lake, settings, name))
    if json:
        output.print_json(found)
        return

    show_rows(found["campaigns"], CAMPAIGN_COLUMNS, json=False)
    show_rows(found["fills"], _FILL_COLUMNS, json=False)
    for roll in found["rolls"]:
        closed = ", ".join(roll["closed"])
        opened = ", ".join(roll["opened"])
        output.show(None, [f"Rolled on {roll['at']:%Y-%m-%d}: {closed} to {opened}."], json=False)
