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

# What the relative names of modules begin at.
CLI = "position_sync_dagster.cli"

# The module and the function of each command; a group's function is the callback of its `app`.
COMMANDS = {
    "demo": ".dev:demo",
    "dev": ".dev:dev",
    "simulate": "ib_gateway_simulator.command_line:simulate",
    "record": ".dev:record",
    "status": ".reports:status",
    "positions": ".reports:positions",
    "follow": ".reports:follow",
    "trace": ".audit:trace",
    "history": ".audit:history",
    "exposure": ".reports:exposure",
    "figures": ".reports:figures",
    "changes": ".reports:changes",
    "why": ".reports:why",
    "results": ".results:results",
    "campaign": ".results:campaign",
    "what-if": ".what_if:what_if",
    "payoff": ".what_if:payoff",
    "expiry": ".what_if:expiry",
    "curve": ".what_if:curve",
    "money": ".dev:money",
    "mcp": ".mcp:mcp",
    "doctor": ".doctor:doctor",
    "maintain": ".doctor:maintain",
    "strategies": ".strategies:strategies",
    "queue": ".queue:queue",
    "breaks": ".breaks:breaks",
    "reconcile": ".breaks:reconcile",
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
    module = import_module(place, CLI)
    command = getattr(module, function)
    group = getattr(module, "app", None)
    if group is not None and group.registered_callback.callback is command:
        return get_group(group)

    alone = typer.Typer(add_completion=False)
    alone.command(name)(command)
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
