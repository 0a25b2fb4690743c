"""The commands `breaks …` and `reconcile`: differences between broker and tables, and decisions."""

import asyncio
import getpass
from typing import Annotated

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.reconciliation import Break
from position_sync_dagster.lake.lake import MOMENT, Past, breaks_at, require_past
from position_sync_dagster.sync.reports.reconciliation import ReconciliationService
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import age, printable, quantity

ALL = 1_000_000
"""More closed breaks than there are."""

app = typer.Typer(cls=options.ListByDefault)

BreakId = Annotated[
    str, typer.Argument(metavar="ID", help="An id from the list, or its beginning.")
]
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
    if json:
        output.print_json(found)
    elif found:
        print_breaks(found)
    else:
        typer.echo("No break is open.")


@app.command()
def show(break_id: BreakId, json: options.Json = False, home: options.HomeFolder = None) -> None:
    """Show everything about open and closed breaks whose ids begin so."""
    table = options.opened(home)[1].breaks
    found = [
        one
        for one in (*table.open_breaks(), *table.closed_breaks(1000))
        if one.break_id.startswith(break_id)
    ]
    if json:
        output.print_json(found)
        return
    for one in found:
        for name in Break.__dataclass_fields__:
            value = getattr(one, name)
            typer.echo(f"{name:<14} {'–' if value is None else printable(str(value))}")
    if not found:
        typer.echo("No break has an id that begins so.")


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
        [options.opened(home)[1].breaks.accept(break_id, by or getpass.getuser(), reason.strip())]
    )


@app.command()
def reopen(break_id: BreakId, by: Person = "", home: options.HomeFolder = None) -> None:
    """Take back the acceptance of an open break."""
    print_breaks([options.opened(home)[1].breaks.reopen(break_id, by or getpass.getuser())])


def reconcile(
    as_of: options.AsOf = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Compare the broker's holdings with the tables now, or show what differed at a time.

    Nothing is recorded: the check `agrees_with_the_broker` does that. What differed at a time is
    what it had recorded and not yet resolved then; the quantities are those that it saw last.
    """
    settings, lake = options.opened(home)
    if as_of is not None:
        past, table = Past(at=as_of), lake.breaks
        require_past(as_of, utc_now())
        found = breaks_at([*table.open_breaks(), *table.closed_breaks(ALL)], as_of)
        typer.echo(str(past), err=json)
        if json:
            output.print_json(found)
        elif found:
            print_breaks(found)
        else:
            typer.echo("No break was open.")
        return
    result = asyncio.run(ReconciliationService(lake, settings).look())
    if json:
        output.print_json(result)
        return
    accounts = "all accounts" if result.complete else "only a part of the accounts"
    typer.echo(f"{result.checked:,} holdings of {accounts} compared at {result.at:{MOMENT}}.")
    if result.accepted:
        typer.echo(f"{result.accepted} accepted differences are left out.")
    for one in result.discrepancies:
        what = f"{one.type.value} {one.account} {one.conid} {one.symbol}"
        numbers = f"broker {quantity(one.expected)}, tables {quantity(one.actual)}"
        typer.echo(f"{printable(what)}: {numbers}. {printable(one.detail)}")
    if not result.discrepancies:
        typer.echo("Nothing differs.")


def print_breaks(breaks: list[Break]) -> None:
    """Print breaks as a table, with what is known of each below it."""
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
            for one in breaks
        ],
        [
            "; ".join(
                filter(
                    None,
                    (
                        one.detail,
                        f"accepted by {one.accepted_by}" if one.accepted_by else "",
                        one.note,
                    ),
                )
            )
            for one in breaks
        ],
        right=("conid", "broker", "tables", "age"),
    )
