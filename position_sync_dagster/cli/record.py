"""The command `position-sync record`: a session with a gateway, in a file to send to others."""

from pathlib import Path
from typing import Annotated

import typer

from position_sync_dagster.cli.options import HomeFolder, settings_for


def record(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The recording; a new file.")],
    minutes: Annotated[
        float, typer.Option(min=0.01, max=1440, help="How long to record; Ctrl-C ends it earlier.")
    ] = 30.0,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port for the client, on 127.0.0.1; 0: any free.")
    ] = 0,
    login: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which login of the gateways file.")
    ] = None,
    keep_quantities: Annotated[
        bool, typer.Option("--keep-quantities", help="Write quantities and amounts as they are.")
    ] = False,
    home: HomeFolder = None,
) -> None:
    """Record what a client and the gateway of the settings say to each other.

    The client connects to the printed port instead of the gateway's. Account ids, names,
    quantities and amounts are replaced as they are written; orders are never passed on.
    """
    from position_sync_dagster.recording.program import run

    settings = settings_for(home).for_login(login)
    gateway = (settings.gateway_host, settings.gateway_port)
    raise typer.Exit(run(out, gateway, port=port, minutes=minutes, keep_quantities=keep_quantities))
