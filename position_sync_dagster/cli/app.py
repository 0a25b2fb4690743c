"""The application `position-sync`, to which modules add their commands; how an error is shown."""

import sys
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from position_sync_dagster.dagster_files import document
from position_sync_dagster.errors import MissingExtraError, PositionSyncError
from position_sync_dagster.money.reports.columns import printable
from position_sync_dagster.terminal.text import as_typed

# The commands by task, those of a trader first: the order of the help.
TASKS = {
    "The book now": ("figures", "exposure", "positions", "why", "changes", "status", "follow"),
    "What may happen": ("expiry", "what-if", "payoff"),
    "What it brought": ("results", "campaign", "returns", "fills", "export"),
    "Strategies": ("strategies",),
    "Run it": ("demo", "dev", "money", "mcp", "doctor", "maintain"),
    "Records and differences": ("breaks", "queue", "reconcile", "history", "trace"),
    "A gateway for tests": ("simulate", "record"),
}
_TASK_OF = {name: task for task, names in TASKS.items() for name in names}


class ByTask(TyperGroup):
    """A group whose help lists its commands under their tasks."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in the order of the help."""
        return sorted(self.commands, key=[*_TASK_OF].index)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, with the heading of its task."""
        command: Any = super().get_command(ctx, cmd_name)
        if command is not None:
            command.rich_help_panel = _TASK_OF.get(cmd_name)
        return command


app = typer.Typer(
    cls=ByTask,
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
    """Print the error, its remedy and its page to stderr; return the exit code."""
    more = [f"  More: {document(error.page)}"] if error.page else []
    for text in (f"position-sync: {error.what}", f"  {error.remedy}", *more):
        for line in as_typed(text).splitlines():
            print(printable(line), file=sys.stderr)  # noqa: T201 - the command line's output
    return error.exit_code
