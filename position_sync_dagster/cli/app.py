"""The application `position-sync`: the table of its commands, and how an error is shown.

This is the one place where the command line imports late: the module of a command is imported when
the command is called, and imports at its top what it needs. `position-sync --help` imports all.
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

# The module and the function of each command; a group's function is the callback of its `app`.
COMMANDS = {
    "demo": f"{CLI}.dev:demo",
    "dev": f"{CLI}.dev:dev",
    "simulate": "ib_gateway_simulator.command_line:simulate",
    "record": f"{CLI}.dev:record",
    "status": f"{CLI}.reports:status",
    "positions": f"{CLI}.reports:positions",
    "follow": f"{CLI}.reports:follow",
    "trace": f"{CLI}.audit:trace",
    "history": f"{CLI}.audit:history",
    "exposure": f"{CLI}.reports:exposure",
    "figures": f"{CLI}.reports:figures",
    "changes": f"{CLI}.reports:changes",
    "why": f"{CLI}.reports:why",
    "results": f"{CLI}.results:results",
    "campaign": f"{CLI}.results:campaign",
    "what-if": f"{CLI}.what_if:what_if",
    "payoff": f"{CLI}.what_if:payoff",
    "expiry": f"{CLI}.what_if:expiry",
    "curve": f"{CLI}.what_if:curve",
    "money": f"{CLI}.dev:money",
    "mcp": f"{CLI}.mcp:mcp",
    "doctor": f"{CLI}.doctor:doctor",
    "maintain": f"{CLI}.doctor:maintain",
    "strategies": f"{CLI}.strategies:strategies",
    "queue": f"{CLI}.queue:queue",
    "breaks": f"{CLI}.breaks:breaks",
    "reconcile": f"{CLI}.breaks:reconcile",
}


class LateGroup(TyperGroup):
    """A group that imports a command only when it is called; its help imports all of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments name, and its own arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load(command.name or ""), rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with the first line of each command."""
        for name in COMMANDS:
            self.add_command(load(name), name)

        super().format_help(ctx, formatter)


def load(name: str) -> Any:
    """Import a command or a group of commands.

    >>> load("status").name
    'status'
    """
    place, _, function = COMMANDS[name].partition(":")
    module = import_module(place)
    found, group = getattr(module, function), getattr(module, "app", None)
    if group is not None and group.registered_callback.callback is found:
        return get_group(group)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    return get_command(alone)


app = typer.Typer(
    cls=LateGroup,
    name="position-sync",
    help="Every option leg of an Interactive Brokers account, valued into Delta tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name in COMMANDS:
    app.command(_name)(lambda: None)


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
