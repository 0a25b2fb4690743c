"""The application `position-sync`: its commands, and how an error is shown."""

import sys
from importlib import metadata
from typing import Annotated

import typer

from ib_gateway_simulator.command_line import simulate
from position_sync_dagster.cli import (
    audit,
    breaks,
    dev,
    doctor,
    mcp,
    queue,
    reports,
    results,
    strategies,
    what_if,
)
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.terminal.text import as_typed, printable

app = typer.Typer(
    name="position-sync",
    help="Every option leg of an Interactive Brokers account, valued into Delta tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# The commands in the order of the help; each is named as its function.
COMMANDS = (
    dev.demo, dev.dev, simulate, dev.record, reports.status, reports.positions, reports.follow,
    audit.trace, audit.history, reports.exposure, reports.figures, reports.changes, reports.why,
    results.results, results.campaign, what_if.what_if, what_if.payoff, what_if.expiry,
    what_if.curve, dev.money, mcp.mcp, doctor.doctor, doctor.maintain, breaks.reconcile,
)  # fmt: skip
for _command in COMMANDS:
    app.command()(_command)
app.add_typer(strategies.app, name="strategies")
app.add_typer(queue.app, name="queue")
app.add_typer(breaks.app, name="breaks")


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


def print_error(error: PositionSyncError) -> int:
    """Print the error and its remedy to stderr; return the exit code."""
    for text in (f"position-sync: {error.what}", f"  {error.remedy}"):
        for line in as_typed(text).splitlines():
            print(printable(line), file=sys.stderr)  # noqa: T201 - the command line's output
    return error.exit_code
