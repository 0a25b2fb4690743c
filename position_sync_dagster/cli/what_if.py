"""The commands about what may come: `what-if`, `payoff` and `expiry`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.cli.asked import asked_of_book
from position_sync_dagster.money.reports.columns import known_for
from position_sync_dagster.money.risk.proposed_trade import EXAMPLE
from position_sync_dagster.money.risk.scenarios import Breakdown
from position_sync_dagster.money.risk.what_if import (
    USUAL_MOVES,
)
from position_sync_dagster.terminal import output

_NOTHING = "Nothing is held."
_LEFT_OUT = "{legs} left out: {reason}"
_WOULD_MISS = "{strategy_id}: {leg} would miss {missing:g}"
_USUAL_SPOT = ",".join(f"{move:g}" for move in USUAL_MOVES)

# The cells of a line of a table, by their headings.
Line = dict[str, Any]


@app.command()
def what_if(
    spot: Annotated[
        str, typer.Option(metavar="LIST", help="Moves of the underlyings in percent.")
    ] = _USUAL_SPOT,
    vol: Annotated[
        str | None, typer.Option(metavar="LIST", help="Changes of the volatilities in points.")
    ] = None,
    days: Annotated[str, typer.Option(metavar="LIST", help="Days that have passed.")] = "0",
    by_beta: Annotated[
        bool, typer.Option("--by-beta", help="Each underlying moves by its beta times --spot.")
    ] = False,
    scenario: Annotated[
        str | None, typer.Option(metavar="NAME", help="A scenario of scenarios.yaml instead.")
    ] = None,
    trade: Annotated[
        list[str] | None,
        typer.Option(metavar="TRADE", help=f'After this, such as "{EXAMPLE}".'),
    ] = None,
    close: Annotated[
        list[str] | None, typer.Option(metavar="STRATEGY", help="After closing this strategy.")
    ] = None,
    roll: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="STRATEGY EXPIRY", help="After rolling its nearest options."),
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Only this account, which is also that of --trade.")
    ] = None,
    underlying: options.Underlying = None,
    strategy: options.Strategy = None,
    level: Annotated[
        Breakdown, typer.Option(help="What each row is of.", case_sensitive=False)
    ] = Breakdown.STRATEGY,
    as_of: options.AsOf = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show value and profit under other prices, volatilities and days.

    Each option keeps its own volatility. A leg that cannot be priced is left out and counted. The
    strategies and UNATTRIBUTED together are the account; currencies are never added.

    With --trade, --close or --roll each row has what it is before and after: value and profit,
    greeks, payoff at expiry, what is uncovered, and which limits are broken. First comes what each
    trade gives or costs against the mark. With --strategy a trade opens and closes legs of that
    strategy. Nothing is sent and nothing is stored.
    """
    answer = asked_of_book(
        home,
        "what-if",
        json=json,
        spot=spot,
        vol=vol,
        days=days,
        by_beta=by_beta,
        scenario=scenario,
        trade=trade or [],
        close=close or [],
        roll=[":".join(roll)] if roll else [],
        account=account,
        underlying=underlying,
        strategy=strategy,
        level=level,
        at=as_of,
    )
    output.print_above(answer["closed_days"], json=json)
    rows = answer["rows"]
    if "notes" in answer:
        _show_compared(rows, answer["notes"], json=json)
        return

    if rows and not json:
        _print_scenarios(rows)
    notes = map(_LEFT_OUT.format_map, answer["left_out"])
    output.show(rows, notes if rows else [_NOTHING], json=json)


def _print_scenarios(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the profits of each group, volatility and day, with a column for each move."""
    lines: dict[tuple[object, ...], Line] = {}
    for row in rows:
        group = {name: row[name] for name in _GROUP}
        group["vol"] = f"{row['vol']:+g}"
        key = (row["conid"], *group.values())
        line = lines.setdefault(key, group | {"left_out": row["left_out"]})
        line[f"{row['spot']:+g}"] = _profit(row)

    texts = list(lines.values())
    output.print_table(texts, list(texts[0]))


def _profit(side: Mapping[str, Any]) -> float | str | None:
    """Return a profit for a table, or for how many legs it is known; None: there is no group."""
    if not side or side["profit"] is not None:
        return side.get("profit")
    return known_for(side["known"], side["of"])


def _greek(side: Mapping[str, Any], name: str) -> float | str | None:
    """Return a greek for a table, or for how many holdings it is known."""
    greek: float | None = side.get(name)
    if greek is not None or name not in side.get("greeks_of", ()):
        return greek
    return known_for(side["greeks_known"][name], side["greeks_of"][name])


# What names the lines of a table.
_GROUP = ("name", "strategy", "account", "currency", "days")


def _show_compared(rows: Sequence[Mapping[str, Any]], notes: Sequence[str], *, json: bool) -> None:
    """Print what trades give or cost, and what the groups that differ are before and after."""
    if json:
        output.print_json(rows)
        return

    output.show(rows, notes, json=False)
    differing = [row for row in rows if row["before"] != row["after"]]
    if differing:
        lines = [_compared_line(row) for row in differing]
        output.print_table(lines, list(lines[0]))
        payoffs = list(_payoffs_after(differing))
        if payoffs:
            output.print_table(payoffs, _PAYOFF)
    output.show(rows, dict.fromkeys(_warnings(differing)), json=False)


def _compared_line(row: Mapping[str, Any]) -> Line:
    """Return the cells of a group in a scenario, before and after."""
    line = {name: row[name] for name in (*_GROUP, "spot")}
    line["vol"] = f"{row['vol']:+g}"
    line["before"] = _profit(row["before"] or {})

    after = row["after"] or {}
    line["after"] = _profit(after)
    line["realised"] = after.get("realised")
    line["against_mark"] = after.get("against_mark")
    line["delta"] = _greek(after, "dollar_delta")
    line["theta"] = _greek(after, "theta")
    return line


def _payoffs_after(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the payoffs after the trades, of one move: they are the same at each."""
    for row in rows:
        if row["spot"] == rows[0]["spot"] and row["after"]:
            yield from row["after"].get("payoffs", ())


def _warnings(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is uncovered and the broken limits after the trades, at each move again."""
    for row in rows:
        after = row["after"] or {}
        yield from map(_WOULD_MISS.format_map, after.get("uncovered", ()))
        yield from after.get("limits_broken", ())


@app.command()
def payoff(
    strategy: Annotated[
        str | None, typer.Argument(metavar="[STRATEGY]", help="Only this strategy.")
    ] = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show break-evens, greatest profit and greatest loss of strategies at their next expiry.

    With one expiry they are exact: what exercise gives, less what the legs cost. Legs that live on
    are priced by the model.
    """
    output.show_rows(
        asked_of_book(home, "payoff", json=json, strategy=strategy)["payoffs"],
        _PAYOFF,
        json=json,
        none=_NOTHING,
    )


_PAYOFF = (
    "strategy", "account", "underlying", "currency", "expiry", "break_evens", "greatest_profit",
    "greatest_loss", "why", "note",
)  # fmt: skip


@app.command()
def expiry(
    days: Annotated[
        int, typer.Option(min=0, max=3650, help="Only what expires within these days.")
    ] = 7,
    strategy: options.Strategy = None,
    watch: options.Watch = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what expiring legs leave at the present price, and what may be assigned early.

    Days and times are those of New York. A short option may be assigned early if its holder gains
    nothing more by selling it. What cannot be priced is listed with the reason.
    """

    def show() -> None:
        report = asked_of_book(home, "expiry", json=json, days=days, strategy=strategy)
        if json:
            output.print_json(report)
            return
        if not report["expiries"]:
            typer.echo(f"Nothing expires within {days} days.")
        for name, columns in _EXPIRY.items():
            if report[name]:
                typer.echo(f"{name.replace('_', ' ')}:")
                output.print_table(report[name], columns)

    options.watched(show, watch=watch, json=json)


_EXPIRY = {
    "expiries": (
        "expires_at", "strategy_id", "account", "leg", "position", "units", "cash", "missing",
        "is_pinned", "is_uncovered", "is_cash_settled", "is_in_the_morning", "reason",
    ),
    "early_assignments": ("strategy_id", "account", "leg", "position", "extrinsic", "ex_date"),
    "not_judged": ("strategy_id", "account", "leg", "position", "reason"),
    "undated": ("strategy_id", "account", "leg", "reason"),
}  # fmt: skip
