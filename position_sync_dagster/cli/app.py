"""The program `position-sync`, to which modules add their commands; how an error is shown.

A command imports what it uses: the help, the version and the completion of names know the table of
the commands alone.
"""

import os
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from position_sync_dagster.dagster_files import document
from position_sync_dagster.errors import MissingExtraError, PositionSyncError
from position_sync_dagster.money.reports.columns import printable
from position_sync_dagster.terminal.text import as_typed

# The commands by task, those of a trader first: the order of the help. Each has its module, which
# is imported when it is called, and its line in the help, the beginning of its docstring.
COMMANDS = {
    "The book now": {
        "figures": (
            "figures",
            "Show all figures: accounts, strategies, positions, changes, limits.",
        ),
        "exposure": (
            "reports",
            "Show value, profit, greeks and the oldest price of each strategy, account and "
            "underlying.",
        ),
        "positions": (
            "reports",
            "Show the newest row of each position: its values, its greeks, its source and its age.",
        ),
        "why": (
            "figures",
            "Show why today's profit of each strategy is what it is, since the close before.",
        ),
        "changes": (
            "reports",
            "Show what happened today: trades, closes, other moves of positions and outages.",
        ),
        "status": (
            "reports",
            "Show the owner of the gateway, the lines, the queue and the newest rows.",
        ),
        "follow": (
            "reports",
            "Print each row of the ledger as it is committed, one a line, until Ctrl-C or a closed "
            "pipe.",
        ),
    },
    "What may happen": {
        "expiry": (
            "what_if",
            "Show what expiring legs leave at the present price, and what may be assigned early.",
        ),
        "what-if": (
            "what_if",
            "Show value and profit under other prices, volatilities and days.",
        ),
        "payoff": (
            "what_if",
            "Show break-evens, greatest profit and greatest loss of strategies at their next "
            "expiry.",
        ),
    },
    "What it brought": {
        "results": ("results", "Show what campaigns that are over brought, in groups."),
        "campaign": (
            "results",
            "Show one campaign that is over: its fills and rolls, and its days.",
        ),
        "returns": (
            "results",
            "Show what each account returned, by time and by money, from the books of its days.",
        ),
        "fills": (
            "results",
            "Show what fills cost: slippage against the middle of the quote before them, and fees.",
        ),
        "export": (
            "results",
            "Print movements, campaigns that are over, or lots, for a ledger or another program.",
        ),
    },
    "Strategies": {
        "strategies": ("strategies", "List and change the legs of active strategies."),
    },
    "Run it": {
        "demo": (
            "simulated",
            "Run the whole system on a simulated gateway: 200 option legs, 20 of them streamed.",
        ),
        "dev": ("dev", "Run Dagster against your own TWS or IB Gateway, as the settings say."),
        "money": (
            "dev",
            "Show the money page of the tables in a browser, without Dagster, until Ctrl-C.",
        ),
        "mcp": (
            "mcp",
            "Serve the figures to an assistant by the Model Context Protocol, over stdio, read "
            "only.",
        ),
        "doctor": (
            "doctor",
            "Check everything that a start needs: settings, clocks, disk, tables, gateway.",
        ),
        "rehearse": (
            "rehearse",
            "Run the stream beside TWS for an hour, read only, and show what is new in your "
            "gateway.",
        ),
        "maintain": (
            "doctor",
            "Merge small files of each table, and delete files that no version in the retention "
            "needs.",
        ),
    },
    "Records and differences": {
        "breaks": (
            "breaks",
            "List differences between broker and tables, and accept them. Without a command: "
            "`list`.",
        ),
        "queue": (
            "queue",
            "List requests and their attempts, and retry those that failed. Without a command: "
            "`list`.",
        ),
        "reconcile": ("breaks", "Compare the broker's holdings with the tables now."),
        "history": (
            "audit",
            "Show each value of a holding with its source, batch, run and request, and why it "
            "closed.",
        ),
        "trace": ("audit", "Show what belongs to an id: requests, sessions and rows."),
    },
    "A gateway for tests": {
        "simulate": (
            "simulated",
            "Run the gateway simulator alone. Port 0 takes any free one; the ports are printed.",
        ),
        "record": (
            "simulated",
            "Record what a client and the gateway of the settings say to each other.",
        ),
    },
}

# The module of each command.
MODULE_OF = {
    name: module for commands in COMMANDS.values() for name, (module, _line) in commands.items()
}

# The module whose commands need the simulator.
SIMULATED = "simulated"
NOT_INSTALLED = "Not installed: it needs the extra `demo`."


@cache
def command(name: str) -> Any:
    """Return a command to run: its module is imported, and adds what it has to `app`."""
    try:
        import_module(f"{__package__}.{MODULE_OF[name]}")
    except ModuleNotFoundError as error:
        if error.name != "ib_gateway_simulator":
            raise
        need_simulator(app, name)
    return get_group(app).commands[name]


class ByTask(TyperGroup):
    """A group that lists commands under their tasks, and imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        has_simulator = find_spec("ib_gateway_simulator") is not None
        self.commands = {}
        for task, commands in COMMANDS.items():
            for name, (module, line) in commands.items():
                if module == SIMULATED and not has_simulator:
                    line = NOT_INSTALLED
                self.commands[name] = TyperCommand(name, help=line, rich_help_panel=task)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called, and the arguments behind its name."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and command(args[0]), rest


# The commands of the modules that were imported.
app = typer.Typer()

program = typer.Typer(
    cls=ByTask,
    name="position-sync",
    help="Every option leg of an Interactive Brokers account, valued into Delta tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"position-sync {metadata.version('position-sync-dagster')}")
        raise typer.Exit


@program.callback()
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
        commands.command(name, help=NOT_INSTALLED)(refuse)


def discard_output() -> None:
    """Discard what is still to be printed, where it cannot be.

    The interpreter flushes the output at its end, and would report that again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(error: PositionSyncError) -> int:
    """Print the error, its remedy and its page to stderr; return the exit code."""
    texts = [f"position-sync: {error.what}", f"  {error.remedy}"]
    if error.page:
        texts.append(f"  More: {document(error.page)}")
    for text in texts:
        for line in as_typed(text).splitlines():
            print(printable(line), file=sys.stderr)  # noqa: T201 - the command line's output
    return error.exit_code
