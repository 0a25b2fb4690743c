"""The command `position-sync status`: the state of the whole system."""

import typer

from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.terminal.output import print_json


def status(json: Json = False, home: HomeFolder = None) -> None:
    """Show the owner of the gateway, the lines, the queue and the newest rows."""
    from position_sync_dagster.domain.clock import utc_now
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.sync.reports.status import read_status

    settings = settings_for(home)
    lake = existing(Lake.of(settings))
    found = read_status(lake, settings, utc_now())
    if json:
        print_json(found.to_dict())
        return
    from position_sync_dagster.terminal.status_lines import describe

    for label, value in describe(found):
        typer.echo(f"{label:<18} {value}")
