"""The commands `position-sync strategies …`: list and change the active legs."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import contract_name, parse_conid
from position_sync_dagster.domain.leg import Leg
from position_sync_dagster.lake.given_leg import TEXTS, ContractTerms, GivenLeg, make_leg
from position_sync_dagster.lake.strategy_registry import name_of
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.book import read_book
from position_sync_dagster.money.reports.columns import printable
from position_sync_dagster.money.reports.status import leg_states
from position_sync_dagster.money.strategies import propose_strategies, strategies_file
from position_sync_dagster.money.strategies.proposals import SINGLE, ProposedStrategy
from position_sync_dagster.settings import Settings
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import as_typed

group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="strategies")


@group.callback()
def strategies() -> None:
    """List and change the legs of active strategies."""


def _help_of(name: str) -> str:
    """Return what the help of a command says of a field of a leg."""
    examples = GivenLeg.model_fields[name].examples
    if not examples:
        return TEXTS[name]
    return f"{TEXTS[name]} For example {', '.join(examples)}"


def _described(name: str) -> Any:
    """Return the option of a field of a leg, with the text of the field as its help."""
    return typer.Option(help=_help_of(name))


Conid = Annotated[str | None, typer.Argument(help=_help_of("conid"))]
Symbol = Annotated[str | None, _described("symbol")]
Right = Annotated[str | None, _described("right")]
Strike = Annotated[str | None, _described("strike")]
Expiry = Annotated[str | None, _described("expiry")]
TradingClass = Annotated[str | None, _described("trading_class")]


def _print_change(settings: Settings, leg: Leg, change: str, *, json: bool) -> None:
    """Print what became of a leg, and first that the strategies file will undo a change by hand."""
    if settings.strategies_file is not None:
        typer.echo(
            f"The registry is kept equal to {settings.strategies_file}: its next materialization "
            "undoes this change. Change the file as well.",
            err=True,
        )
    output.show(leg, [f"{name_of(leg)} {change} {leg.strategy_id}."], json=json)


def _given_terms(context: typer.Context, shape: type[BaseModel]) -> dict[str, Any]:
    """Return the options of a command that are fields of a shape."""
    return {name: text for name, text in context.params.items() if name in shape.model_fields}


def _active_legs(lake: MoneyLake) -> list[Leg]:
    """Return the active legs, at the end those whose contract is not found yet."""
    registry = lake.registry.sync
    return [*registry.get_all_active(), *registry.get_unresolved()]


@group.command("list")
def list_legs(
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """List the active legs, each with its state.

    ARMED: the leg is not held (is its conid right?). STREAMED: the stream values it. OVERFLOW: it
    is held but not streamed at the moment, so the queue values it. CLOSED: it was held, and it is
    known why it is gone (`positions --closed`). A leg without a conid is ARMED until its contract
    is found; if that failed, the reason and the candidates follow.
    """
    settings, lake = options.opened(home)
    legs = _active_legs(lake)
    legs.sort(key=lambda leg: (leg.strategy_id, leg.symbol, str(leg.expiry), leg.strike or 0.0))
    states = leg_states(legs, read_book(lake, settings, utc_now()))
    listed = [
        {"problem": None, **asdict(leg), "state": state}
        for leg, state in zip(legs, states, strict=True)
    ]
    output.show_rows(
        listed,
        _LEG,
        json=json,
        none=as_typed("No leg is active: `position-sync strategies propose` shows what to add."),
    )


# The columns of a leg on a terminal. Without an account it is of any, without a quantity of all.
_LEG = (
    "strategy_id", "state", "conid", "symbol", "right", "strike", "expiry", "account", "quantity",
    "priority", "added_at", "problem",
)  # fmt: skip


@group.command("propose")
def propose(
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            help="Make these active: numbers or names of the list, or all, which leaves out single "
            "legs. On a terminal it asks before."
        ),
    ] = None,
    account: options.Account = None,
    underlying: options.Underlying = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show the strategies that the holdings look like, from the orders that opened them.

    Only what no strategy has yet is proposed. --accept changes the registry; where a strategies
    file is followed, it prints what to write into that. Numbers are those of the list with the same
    options.
    """
    if more and not accept:
        raise typer.BadParameter("Write --accept before the numbers.")

    settings, lake = options.opened(home)
    read_book(lake, settings, utc_now()).names.require(account=account, underlying=underlying)
    chosen = propose_strategies.read_proposal(lake, settings, account, underlying)
    if accept:
        chosen = _chosen(chosen, [*accept, *(more or [])])
        legs = propose_strategies.legs_of(chosen, utc_now())
        if settings.strategies_file is not None:
            typer.echo(f"Write these into {settings.strategies_file}, which is followed:", err=True)
            typer.echo(strategies_file.as_strategies_file(legs), nl=False)
            return

        cost = propose_strategies.cost_in_lines(lake, settings, legs)
        if cost is not None:
            typer.echo(cost, err=True)
        if is_terminal() and not typer.confirm(ASKED, default=True, err=True):
            return
        lake.registry.sync.add_many(legs)

    if json:
        output.print_json([_plain_proposal(strategy) for strategy in chosen])
    elif accept:
        for strategy in chosen:
            typer.echo(f"{printable(strategy.name)} is active with {len(strategy.legs)} legs.")
    else:
        _print_proposal(chosen)


def is_terminal() -> bool:
    """Return whether a person types: a script is not asked."""
    return sys.stdin.isatty()


ASKED = "Make them active? Without --accept they are only shown"


def _chosen(proposed: Sequence[ProposedStrategy], typed: Sequence[str]) -> list[ProposedStrategy]:
    """Return the proposals that numbers or names choose, each once, in the order of the list."""
    choices = set(",".join(typed).split(","))
    choices.discard("")
    if "all" in choices:
        return [strategy for strategy in proposed if strategy.kind != SINGLE]

    chosen = []
    unknown = set(choices)
    for number, strategy in enumerate(proposed, 1):
        names = {str(number), strategy.name}
        unknown -= names
        if choices & names:
            chosen.append(strategy)

    if unknown:
        raise typer.BadParameter(
            f"There is no proposal {min(unknown)!r}: there are {len(proposed)}. The list has their "
            "numbers and names."
        )
    return chosen


def _plain_proposal(strategy: ProposedStrategy) -> dict[str, object]:
    """Return a proposal as JSON has it."""
    legs = [{"quantity": leg.quantity, **asdict(leg.instrument)} for leg in strategy.legs]
    return {**asdict(strategy), "legs": legs, "currency": legs[0]["currency"]}


ALL_OF_THEM = (
    "`position-sync strategies propose --accept all` makes them active, all but single legs: a "
    "single leg is a strategy when --accept names it."
)

_PROPOSAL = (
    "#", "name", "account", "credit", "greatest_loss", "legs", "why", "alternatives",
)  # fmt: skip


def _print_proposal(strategies: Sequence[ProposedStrategy]) -> None:
    """Print proposed strategies with their legs."""
    rows = []
    for number, strategy in enumerate(strategies, 1):
        row = {"#": number, **asdict(strategy)}
        row["legs"] = [
            f"{leg.quantity:+g} {contract_name(leg.instrument)}" for leg in strategy.legs
        ]
        if strategy.unlimited:
            row["greatest_loss"] = "unlimited"
        rows.append(row)

    output.show_rows(
        rows,
        _PROPOSAL,
        json=False,
        none="No option is held that is in no strategy.",
        lines=[as_typed(ALL_OF_THEM)],
    )


@group.command("add")
def add_leg(
    context: typer.Context,
    strategy: Annotated[str, typer.Option(help="The strategy's name or number.")],
    symbol: Annotated[str, _described("symbol")],
    conid: Conid = None,
    right: Right = None,
    strike: Strike = None,
    expiry: Expiry = None,
    trading_class: TradingClass = None,
    sec_type: Annotated[str | None, _described("sec_type")] = None,
    quantity: Annotated[str | None, _described("quantity")] = None,
    account: Annotated[str | None, _described("account")] = None,
    priority: Annotated[str, _described("priority")] = "1",
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Make a leg active. If it is held and a line is free, it streams within seconds.

    Without a conid, the owner of the gateway looks up the contract that the options describe. If
    none or several fit, `strategies list` and `status` show that, with the candidates.
    """
    given = _given_terms(context, GivenLeg)
    leg = make_leg(strategy_id=strategy, added_at=utc_now(), **given)
    settings, lake = options.opened(home, create=True)
    [leg] = lake.registry.sync.add_many([leg])
    _print_change(settings, leg, "is active in", json=json)


@group.command("remove")
def remove_leg(
    context: typer.Context,
    conid: Conid = None,
    strategy: Annotated[
        str | None, typer.Option(help="The strategy, if several have the leg.")
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            help='The account, if the strategy has the leg in several; "any" as `list` shows it.'
        ),
    ] = None,
    symbol: Symbol = None,
    right: Right = None,
    strike: Strike = None,
    expiry: Expiry = None,
    trading_class: TradingClass = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Make a leg inactive: its line becomes free, and the queue values it again."""
    if conid is not None:
        parse_conid(conid)  # a mistake is named before the tables are opened

    settings, lake = options.opened(home)
    terms = _given_terms(context, ContractTerms)
    leg = lake.registry.sync.remove_active(strategy_id=strategy, account=account, **terms)
    _print_change(settings, leg, "is removed from", json=json)


@group.command("export")
def export_file(home: options.HomeFolder = None) -> None:
    """Print the active legs as a strategies file."""
    _, lake = options.opened(home)
    typer.echo(strategies_file.as_strategies_file(_active_legs(lake)), nl=False)
