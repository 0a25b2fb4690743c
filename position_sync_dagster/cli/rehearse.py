"""The command `rehearse`: an hour beside TWS that shows what is new in a gateway."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import UserError
from position_sync_dagster.processes.rehearsal.run import rehearse as run_rehearsal


@app.command()
def rehearse(
    minutes: Annotated[
        float, typer.Option(min=0.05, max=300, help="How long; Ctrl-C ends it earlier.")
    ] = 60.0,
    lines: Annotated[
        int, typer.Option(min=1, max=100, help="Use at most so many market data lines.")
    ] = 10,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The new file of JSON; the page gets its name, with .md.",
            show_default="rehearsal-DAY-TIME.json",
        ),
    ] = None,
    lake: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep the rows, and stream the active legs there, if any."
        ),
    ] = None,
    login: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which login of the gateways file.")
    ] = None,
    home: options.HomeFolder = None,
) -> None:
    """Run the stream beside TWS for an hour, read only, and show what is new in your gateway.

    It writes a page for you and a file that you may read and send: neither has an account, a name,
    a quantity or an amount. Nothing is sent by the program. Tables are kept only in a folder that
    you name. The exit code is 1 if no gateway was heard.
    """
    settings = options.settings_for(home).for_login(login)
    file = out or Path(f"rehearsal-{utc_now():%Y-%m-%d-%H%M%S}.json")
    page = file.with_suffix(".md")
    if file.exists() or page.exists() or not file.parent.is_dir():
        raise UserError(
            f"{file} or {page.name} is there already, or its folder is not.",
            remedy="Name another file by --out.",
        )

    begin = f"Listening to {settings.gateway_id} for {minutes:g} minutes, "
    begin += f"on at most {lines} lines. Ctrl-C ends it earlier."
    typer.echo(begin, err=True)
    report = asyncio.run(run_rehearsal(settings, minutes=minutes, lines=lines, lake=lake))
    file.write_text(report.as_json(), encoding="utf-8")
    page.write_text(report.page(), encoding="utf-8")
    typer.echo(report.page())
    typer.echo(f"The page is in {page}, and the file to send in {file}: read it first.", err=True)
    raise typer.Exit(report.server_version is None)
