"""The commands `breaks …` and `reconcile`: differences between broker and tables, and decisions."""

import asyncio
import getpass
from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.reconciliation import Break, ReconciliationResult
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.lake.lake import MOMENT, Past, breaks_at, require_past
from position_sync_dagster.sync.reports.reconciliation import ReconciliationService
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import age, quantity

app = typer.Typer(cls=options.ListByDefault)


@app.callback()
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


@app.command("list")
def list_breaks(
    closed: Annotated[bool, typer.Option("--closed", help="Show the last 50 closed too.")] = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """List the open breaks, oldest first, each with its detail and what a person said of it.

    `broker` and `tables` are the quantities on each side; a dash is none.
    """
    table = options.opened(home)[1].breaks
    found = table.open_breaks() + (table.closed_breaks() if closed else [])
    print_breaks(found, none="No break is open.", json=json)


@app.command()
def show(break_id: BreakId, json: options.Json = False, home: options.HomeFolder = None) -> None:
    """Show everything about open and closed breaks whose ids begin with the given text."""
    table = options.opened(home)[1].breaks
    found = [one for one in table.all_breaks() if one.break_id.startswith(break_id)]
    lines = [
        f"{field.name:<14} {'–' if (value := getattr(one, field.name)) is None else value}"
        for one in found
        for field in fields(one)
    ]
    output.show(found, lines or ["No break has an id that begins so."], json=json)


@app.command()
def accept(
    break_id: BreakId,
    reason: Annotated[str, typer.Option(help="Why the difference is right as it is.")],
    by: Person = "",
    home: options.HomeFolder = None,
) -> None:
    """Accept an open break as it is, until its quantities change. The check passes without it."""
    if not reason.strip():
        raise typer.BadParameter("Say why the difference is right as it is.")
    print_breaks(
        [options.opened(home)[1].breaks.accept(break_id, by or _this_person(), reason.strip())]
    )


@app.command()
def reopen(break_id: BreakId, by: Person = "", home: options.HomeFolder = None) -> None:
    """Take back the acceptance of an open break."""
    print_breaks([options.opened(home)[1].breaks.reopen(break_id, by or _this_person())])


def reconcile(
    as_of: options.AsOf = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Compare the broker's holdings with the tables now, or show what differed at a time.

    Nothing is recorded: the check `agrees_with_the_broker` does that. For a past time, the output
    has the breaks that the check had recorded and not yet resolved then, with the quantities that
    it saw last.
    """
    settings, lake = options.opened(home)
    if as_of is not None:
        past, table = Past(at=as_of), lake.breaks
        require_past(as_of, utc_now())
        found = breaks_at(table.all_breaks(), as_of)
        typer.echo(str(past), err=json)
        print_breaks(found, none="No break was open.", json=json)
        return
    try:
        result = asyncio.run(ReconciliationService(lake, settings).look())
    except BrokerUnavailableError as error:  # its remedy is for a drain, whose requests wait
        remedy = "Start `position-sync dev`, or wait until `position-sync status` says LIVE."
        raise BrokerUnavailableError(error.what, remedy=remedy) from error
    output.show(result, _reconciled(result), json=json)


def _reconciled(result: ReconciliationResult) -> Iterator[str]:
    accounts = "all accounts" if result.complete else "only a part of the accounts"
    yield f"{result.checked:,} holdings of {accounts} compared at {result.at:{MOMENT}}."
    if result.accepted:
        yield f"{result.accepted} accepted differences are left out."
    for one in result.discrepancies:
        numbers = f"broker {quantity(one.expected)}, tables {quantity(one.actual)}"
        yield f"{one.type} {one.account} {one.conid} {one.symbol}: {numbers}. {one.detail}"
    if not result.discrepancies:
        yield "Nothing differs."


def _said_of(one: Break) -> str:
    accepted = f"accepted by {one.accepted_by}" if one.accepted_by else ""
    return "; ".join(filter(None, (one.detail, accepted, one.note)))


def print_breaks(found: list[Break], *, none: str = "", json: bool = False) -> None:
    """Print breaks as JSON or as a table, with what is known of each below it.

    Args:
        none: The text for a person if there are no breaks.
    """
    if json or not found:
        output.show(found, [none], json=json)
        return
    now = utc_now()
    output.print_table(
        [
            {
                "id": one.break_id,
                "state": one.state.value,
                "type": one.type.value,
                "account": one.account,
                "conid": str(one.conid),
                "symbol": one.symbol,
                "broker": quantity(one.expected),
                "tables": quantity(one.actual),
                "age": age(one.opened_at, now),
            }
            for one in found
        ],
        [_said_of(one) for one in found],
        right=("conid", "broker", "tables", "age"),
    )
