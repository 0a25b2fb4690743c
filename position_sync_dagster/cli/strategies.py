"""The commands `position-sync strategies …`: list and change the active legs."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from position_sync_dagster.cli.options import HomeFolder, Json, existing, settings_for
from position_sync_dagster.terminal.output import print_json, print_table
from position_sync_dagster.terminal.text import printable, quantity
from position_sync_dagster.terminal.typed import as_typed

if TYPE_CHECKING:
    from position_sync_dagster.domain.leg import ActiveContract, LegState
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.settings import Settings

app = typer.Typer(help="List and change the legs of active strategies.", no_args_is_help=True)

Conid = Annotated[str, typer.Argument(help="IB's contract id.")]


def open_lake(settings: "Settings") -> "Lake":
    """Return the lake of the settings; create the tables that do not exist."""
    from position_sync_dagster.lake import Lake

    lake = Lake.of(settings)
    lake.initialize_sync()
    return lake


def warn_of_file(settings: "Settings") -> None:
    """Warn that the strategies file will undo a change by hand."""
    if settings.strategies_file is not None:
        typer.echo(
            f"The registry is kept equal to {settings.strategies_file}: its next materialization "
            "undoes this change. Change the file as well.",
            err=True,
        )


@app.command("list")
def list_legs(json: Json = False, home: HomeFolder = None) -> None:
    """List the active legs, each with its state.

    ARMED: the leg is not held (is its conid right?). STREAMED: the stream values it. OVERFLOW: it
    is held but not streamed at the moment, so the queue values it.
    """
    from position_sync_dagster.domain.clock import utc_now
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.sync.reports.status import leg_states

    settings = settings_for(home)
    lake = existing(Lake.of(settings))
    legs = sorted(
        lake.registry.sync.get_all_active(),
        key=lambda leg: (
            leg.strategy_id,
            leg.symbol,
            str(leg.expiry or ""),
            leg.strike or 0.0,
            leg.right or "",
        ),
    )
    states = leg_states(legs, lake, settings, utc_now())
    if json:
        print_json(
            [asdict(leg) | {"state": state} for leg, state in zip(legs, states, strict=True)]
        )
        return
    if not legs:
        typer.echo(as_typed("No leg is active. Add one with `position-sync strategies add`."))
        return
    print_legs(legs, states)


def print_legs(legs: "Sequence[ActiveContract]", states: "Sequence[LegState]") -> None:
    """Print legs and their states as a table."""
    columns = {
        "strategy": "left",
        "state": "left",
        "conid": "right",
        "symbol": "left",
        "right": "left",
        "strike": "right",
        "expiry": "left",
        "account": "left",
        "quantity": "right",
        "priority": "right",
        "since (UTC)": "left",
    }
    rows = [
        (
            leg.strategy_id,
            str(state),
            str(leg.conid),
            leg.symbol,
            str(leg.right or ""),
            "" if leg.strike is None else f"{leg.strike:g}",
            "" if leg.expiry is None else leg.expiry.isoformat(),
            leg.account or "any",
            "all" if leg.quantity is None else quantity(leg.quantity),
            str(leg.priority),
            f"{leg.added_at:%Y-%m-%d %H:%M:%S}",
        )
        for leg, state in zip(legs, states, strict=True)
    ]
    print_table(columns, rows)


@app.command("add")
def add_leg(
    conid: Conid,
    strategy: Annotated[str, typer.Option(help="The strategy's name or number.")],
    symbol: Annotated[str, typer.Option(help="The underlying's symbol.")],
    right: Annotated[
        str | None, typer.Option(help="CALL or PUT. Leave it out for a stock or a future.")
    ] = None,
    strike: Annotated[
        str | None, typer.Option(help="Of an option, in the contract's price unit.")
    ] = None,
    expiry: Annotated[str | None, typer.Option(help='As "20260220" or "2026-02-20".')] = None,
    quantity: Annotated[
        float | None,
        typer.Option(help="Signed number of contracts of this strategy. Default: all."),
    ] = None,
    account: Annotated[str | None, typer.Option(help="The account. Default: any.")] = None,
    priority: Annotated[int, typer.Option(min=1, help="1 gets a market data line before 2.")] = 1,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Make a leg active. If it is held and a line is free, it streams within seconds."""
    from position_sync_dagster.domain.clock import utc_now
    from position_sync_dagster.domain.leg import make_leg

    leg = make_leg(
        conid=conid,
        symbol=symbol,
        right=right,
        strike=strike,
        expiry=expiry,
        strategy_id=strategy,
        added_at=utc_now(),
        quantity=quantity,
        account=account,
        priority=priority,
    )
    settings = settings_for(home)
    lake = open_lake(settings)
    lake.registry.sync.add_many([leg])
    warn_of_file(settings)
    if json:
        print_json(leg)
    else:
        typer.echo(printable(f"{leg.symbol} {leg.conid} is active in {leg.strategy_id}."))


@app.command("remove")
def remove_leg(
    conid: Conid,
    strategy: Annotated[
        str | None, typer.Option(help="The strategy, if several have the leg.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="The account, if the strategy has the leg in several.")
    ] = None,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Make a leg inactive: its line becomes free, and the queue values it again."""
    from position_sync_dagster.domain.instrument import parse_conid

    number = parse_conid(conid)
    settings = settings_for(home)
    lake = open_lake(settings)
    leg = lake.registry.sync.remove_active(number, strategy_id=strategy, account=account)
    warn_of_file(settings)
    if json:
        print_json(leg)
    else:
        typer.echo(printable(f"{leg.symbol} {leg.conid} is removed from {leg.strategy_id}."))


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A strategies file in YAML.")],
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Make the active legs equal to a strategies file. If it has an error, nothing changes."""
    from position_sync_dagster.lake.registry.strategies_file import load_strategies

    legs = load_strategies(file, named_by="the path")
    settings = settings_for(home)
    lake = open_lake(settings)
    added, removed = lake.registry.sync.replace_all(legs)
    active = len(lake.registry.sync.get_all_active())
    warn_of_file(settings)
    if json:
        print_json({"legs": active, "added": added, "removed": removed})
    else:
        typer.echo(f"{active} legs are active: {added} added, {removed} removed.")
