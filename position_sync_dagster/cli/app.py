"""The application `position-sync`: the table of its commands, and how an error is shown.

This is the one place where the command line imports late: the module of a command is imported when
the command is called, and imports at its top what it needs. `position-sync --help` imports none.
"""

import sys
from importlib import import_module, metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.terminal.text import as_typed, printable

CLI = "position_sync_dagster.cli"

COMMANDS = {
    "demo": (
        f"{CLI}.dev:demo",
        "Run the whole system on a simulated gateway: 200 option legs, 20 of them streamed.",
    ),
    "dev": (
        f"{CLI}.dev:dev",
        "Run Dagster against your own TWS or IB Gateway, as the settings say.",
    ),
    "simulate": (
        "ib_gateway_simulator.command_line:simulate",
        "Run the gateway simulator alone. Port 0 takes any free one; the ports are printed.",
    ),
    "record": (
        f"{CLI}.dev:record",
        "Record what a client and the gateway of the settings say to each other.",
    ),
    "status": (
        f"{CLI}.reports:status",
        "Show the owner of the gateway, the lines, the queue, the newest rows and their totals.",
    ),
    "positions": (
        f"{CLI}.reports:positions",
        "Show the newest row of each position: its values, its greeks, its source and its age.",
    ),
    "follow": (
        f"{CLI}.reports:follow",
        "Print each row of the ledger as it is committed, one a line, until Ctrl-C or a closed "
        "pipe.",
    ),
    "trace": (
        f"{CLI}.audit:trace",
        "Show what belongs to an id: run, session, request, batches and rows, in both directions.",
    ),
    "history": (
        f"{CLI}.audit:history",
        "Show each value of a holding with its source, batch, run, request, break and strategy.",
    ),
    "exposure": (
        f"{CLI}.reports:exposure",
        "Show value, profit, greeks and the oldest price of each strategy, account and underlying.",
    ),
    "money": (
        f"{CLI}.dev:money",
        "Show the money page of the tables in a browser, without Dagster, until Ctrl-C.",
    ),
    "doctor": (
        f"{CLI}.doctor:doctor",
        "Check everything that a start needs: settings, clocks, disk, tables, ports, gateway, "
        "legs.",
    ),
    "maintain": (
        f"{CLI}.doctor:maintain",
        "Merge small files of each table, and delete files that no version in the retention needs.",
    ),
    "strategies": (f"{CLI}.strategies:app", "List and change the legs of active strategies."),
    "queue": (
        f"{CLI}.queue:app",
        "List requests for position values, and retry failed ones. Without a command: `list`.",
    ),
    "breaks": (
        f"{CLI}.breaks:app",
        "List differences between broker and tables, and accept them. Without a command: `list`.",
    ),
    "reconcile": (
        f"{CLI}.breaks:reconcile",
        "Compare the broker's holdings with the tables now, or show what differed at a time.",
    ),
    "audit": (f"{CLI}.audit:app", "Compare rows, Dagster's events and the table `runs`."),
}
"""Each command: its module and function, and its line in the list of commands."""


class LateGroup(TyperGroup):
    """A group that imports a command when it is called; to list the commands it reads COMMANDS."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments name, and its own arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load(command.name or ""), rest


def load(name: str) -> Any:
    """Import a command or a group of commands.

    >>> load("status").name
    'status'
    """
    place, listed = COMMANDS[name]
    module, _, attribute = place.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        found.info.help = listed
        return get_group(found)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    return get_command(alone)


app = typer.Typer(
    cls=LateGroup,
    name="position-sync",
    help="Every option leg of an Interactive Brokers account, valued into Delta tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, (_place, _help) in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


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
