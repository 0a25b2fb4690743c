"""The commands `breaks …` and `reconcile`: differences between broker and tables, and decisions."""

import asyncio
import getpass
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.money.as_of import MOMENT
from position_sync_dagster.sync.reconciliation import ReconciliationService
from position_sync_dagster.terminal import output

group = typer.Typer(cls=options.ListByDefault)
app.add_typer(group, name="breaks")


@group.callback()
def breaks() -> None:
    """List differences between broker and tables, and accept them. Without a command: `list`."""


BreakId = Annotated[
    str, typer.Argument(metavar="ID", help="An id from the list, or its beginning.")
]


def _this_person() -> str:
    """Return the user of this computer, who has no name in a container without an entry for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise typer.BadParameter("This computer has no name for you: say it with --by.") from None


Person = Annotated[
    str, typer.Option("--by", help="Who decides.", show_default="the user of this computer")
]


@group.command("list")
def list_breaks(
    closed: Annotated[bool, typer.Option("--closed", help="Show the last 50 closed too.")] = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """List the open breaks, oldest first, each with its detail and what a person said of it.

    `expected` is the quantity of the broker, `actual` that of the tables; a dash is none.
    """
    table = options.opened(home)[1].breaks
    breaks = table.open_breaks()
    if closed:
        breaks += table.closed_breaks()
    output.show_rows(breaks, _BREAK, json=json, none="No break is open.")


@group.command()
def accept(
    break_id: BreakId,
    reason: Annotated[str, typer.Option(help="Why the difference is right as it is.")],
    by: Person = "",
    home: options.HomeFolder = None,
) -> None:
    """Accept an open break as it is, until its quantities change. The check passes without it."""
    if not reason.strip():
        raise typer.BadParameter("Say why the difference is right as it is.")
    _, lake = options.opened(home)
    output.print_table([lake.breaks.accept(break_id, by or _this_person(), reason.strip())], _BREAK)


@group.command()
def reopen(break_id: BreakId, by: Person = "", home: options.HomeFolder = None) -> None:
    """Take back the acceptance of an open break."""
    _, lake = options.opened(home)
    output.print_table([lake.breaks.reopen(break_id, by or _this_person())], _BREAK)


@app.command()
def reconcile(json: options.Json = False, home: options.HomeFolder = None) -> None:
    """Compare the broker's holdings with the tables now.

    Nothing is recorded: the check `agrees_with_the_broker` does that.
    """
    settings, lake = options.opened(home)
    try:
        result = asyncio.run(ReconciliationService(lake, settings).look())
    except BrokerUnavailableError as error:  # its remedy is for a drain, whose requests wait
        raise BrokerUnavailableError(
            error.what,
            remedy="Start `position-sync dev`, or wait until `position-sync status` says LIVE.",
        ) from error
    if json:
        output.print_json(result)
        return

    holdings = f"{result.checked:,} holdings of "
    holdings += "all accounts" if result.complete else "only a part of the accounts"
    typer.echo(f"{holdings} compared at {result.at:{MOMENT}}.")
    if result.accepted:
        typer.echo(f"{result.accepted} accepted differences are left out.")
    output.show_rows(result.discrepancies, _DISCREPANCY, json=False, none="Nothing differs.")


# The columns of a difference, and of a break, on a terminal.
_DISCREPANCY = ("type", "account", "conid", "symbol", "expected", "actual", "detail")
_BREAK = (
    "break_id", "state", "type", "account", "conid", "symbol", "expected", "actual", "opened_at",
    "detail", "accepted_by", "note",
)  # fmt: skip
