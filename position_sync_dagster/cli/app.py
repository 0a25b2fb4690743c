"""The application `position-sync`: its commands, and those of them that are a few lines.

An error of this package becomes a message for a person and an exit code for a script.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ib_gateway_simulator.command_line import simulate
from position_sync_dagster.cli import audit, dev, doctor, queue, reports, strategies
from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.errors import (
    AmbiguousIdError,
    AmbiguousRemovalError,
    InvalidLegError,
    PositionSyncError,
    RequestStateError,
    SettingsError,
    StrategiesFileError,
    UnknownIdError,
    UnknownLegError,
    UnknownRequestError,
    UnknownStrategyError,
)
from position_sync_dagster.processes.home import HomeError, HomeInUseError
from position_sync_dagster.processes.ports import PortTakenError
from position_sync_dagster.terminal.output import print_json, print_table
from position_sync_dagster.terminal.text import as_typed, printable


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
    from position_sync_dagster.terminal.board import describe

    for label, value in describe(found):
        typer.echo(f"{label:<18} {value}")


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
    from ib_gateway_simulator.recording.program import run

    settings = settings_for(home).for_login(login)
    gateway = (settings.gateway_host, settings.gateway_port)
    raise typer.Exit(run(out, gateway, port=port, minutes=minutes, keep_quantities=keep_quantities))


COLUMNS = {
    "table": "left",
    "compacted": "right",
    "deleted": "right",
    "files": "right",
    "version": "right",
    "doubled": "right",
    "skipped": "left",
}


def maintain(json: Json = False, home: HomeFolder = None) -> None:
    """Merge small files of each table, and delete files that no version in the retention needs.

    Dagster does this every hour while it runs. Other programs may read and write at the same
    time. The output shows the number of files merged and deleted, the files and the version
    afterwards, rows that are there more than once (`doctor --repair` removes them), and why a part
    was skipped until the next time.
    """
    from position_sync_dagster.lake import Lake

    results = existing(Lake.of(settings_for(home))).maintain()
    if json:
        print_json(results)
        return
    print_table(
        COLUMNS,
        (
            (
                result.table,
                f"{result.compacted:,}",
                f"{result.deleted:,}",
                f"{result.files:,}",
                str(result.version),
                f"{result.doubled.surplus:,}",
                result.skipped or "",
            )
            for result in results
        ),
    )


FAILED = 1
MISUSED = 2

MISUSES = (
    AmbiguousIdError,
    AmbiguousRemovalError,
    HomeError,
    HomeInUseError,
    InvalidLegError,
    PortTakenError,
    RequestStateError,
    SettingsError,
    StrategiesFileError,
    UnknownIdError,
    UnknownLegError,
    UnknownRequestError,
    UnknownStrategyError,
)
"""Errors that the user can correct on the command line, in a file or in the environment."""


def exit_code(error: PositionSyncError) -> int:
    """Return 2 for an error that the user can correct, else 1."""
    return MISUSED if isinstance(error, MISUSES) else FAILED


def print_error(error: PositionSyncError) -> int:
    """Print the error and its remedy to stderr; return the exit code."""
    for text in (f"position-sync: {error.what}", f"  {error.remedy}"):
        for line in as_typed(text).splitlines():
            print(printable(line), file=sys.stderr)  # noqa: T201 - the command line's output
    return exit_code(error)


app = typer.Typer(
    name="position-sync",
    help="Every option leg of an Interactive Brokers account, valued into Delta tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(dev.demo)
app.command("dev")(dev.dev)
app.command("simulate")(simulate)
app.command("record")(record)
app.command("status")(status)
app.command("positions")(reports.positions)
app.command("trace")(audit.trace)
app.command("history")(audit.history)
app.command("exposure")(reports.exposure)
app.command("doctor")(doctor.doctor)
app.command("maintain")(maintain)
app.add_typer(strategies.app, name="strategies")
app.add_typer(queue.app, name="queue")
app.add_typer(audit.app, name="audit")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"position-sync {version('position-sync-dagster')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Value every option leg of an Interactive Brokers account into Delta tables."""
