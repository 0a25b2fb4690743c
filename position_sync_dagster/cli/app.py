"""The application `position-sync`, to which modules add their commands; how an error is shown."""

import sys
from importlib import metadata
from typing import Annotated

import typer

from position_sync_dagster.errors import MissingExtraError, PositionSyncError
from position_sync_dagster.money.reports.columns import printable
from position_sync_dagster.terminal.text import as_typed

app = typer.Typer(
    name="position-sync",
    help="Every option leg of an Interactive Brokers account, valued into Delta tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"position-sync {metadata.version('position-sync-dagster')}")
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


def need_simulator(commands: typer.Typer, *names: str) -> None:
    """Add commands that say how the simulator, which they need, is installed."""

    def refuse() -> None:
        raise MissingExtraError("The simulator", "demo")

    for name in names:
        commands.command(name, help="Not installed: it needs the extra `demo`.")(refuse)


def print_error(error: PositionSyncError) -> int:
    """Print the error and its remedy to stderr; return the exit code."""
    for text in (f"position-sync: {error.what}", f"  {error.remedy}"):
        for line in as_typed(text).splitlines():
            print(printable(line), file=sys.stderr)  # noqa: T201 - the command line's output
    return error.exit_code
