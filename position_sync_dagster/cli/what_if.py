"""The command `what-if`: value and profit of the holdings in scenarios."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import digits
from position_sync_dagster.risk import scenarios
from position_sync_dagster.risk.scenario_file import OwnScenarios, Point
from position_sync_dagster.sync.reports.book import known_strategy
from position_sync_dagster.sync.reports.risk import read_risk
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import amount


def _numbers(text: str) -> list[float]:
    """Read numbers that are separated by commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        why = f"{text[:40]!r} is no list of numbers. Write it as -10,-5,0,5,10."
        raise typer.BadParameter(why) from None


def what_if(
    spot: Annotated[
        str, typer.Option(metavar="LIST", help="Moves of the underlyings in percent.")
    ] = "-10,-5,-2,0,2,5,10",
    vol: Annotated[
        str, typer.Option(metavar="LIST", help="Changes of the volatilities in points.")
    ] = "0",
    days: Annotated[str, typer.Option(metavar="LIST", help="Days that have passed.")] = "0",
    rate: Annotated[float, typer.Option(help="Change of the interest rates in points.")] = 0.0,
    in_moves: Annotated[
        bool, typer.Option("--in-moves", help="--spot is in implied moves of one day.")
    ] = False,
    ratio: Annotated[
        bool, typer.Option("--ratio", help="--vol is a list of factors, such as 0.8,1,1.25.")
    ] = False,
    scenario: Annotated[
        str | None, typer.Option(metavar="NAME", help="A scenario of scenarios.yaml instead.")
    ] = None,
    strategy: options.Strategy = None,
    level: Annotated[
        scenarios.Breakdown, typer.Option(help="What each row is of.", case_sensitive=False)
    ] = scenarios.Breakdown.STRATEGY,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show value and profit under other prices, volatilities and days.

    Each option keeps its own volatility. A leg that cannot be priced is left out and counted. The
    strategies and UNATTRIBUTED together are the account; currencies are never added.
    """
    if ratio and vol == "0":
        vol = "1"
    moves = [*product(*(_numbers(text) for text in (spot, vol, days)))]
    if ratio and min(vol for _spot, vol, _days in moves) <= 0:
        raise typer.BadParameter("With --ratio each number of --vol is above 0.")
    kind: dict[str, Any] = {"rate": rate, "in_moves": in_moves, "is_ratio": ratio}
    try:
        points = [Point(spot=s, vol=v, days=d, **kind) for s, v, d in moves]
    except ValidationError as error:
        wrong = error.errors()[0]
        why = f"--{wrong['loc'][0]} {wrong['input']:g}: {wrong['msg']}."
        raise typer.BadParameter(why) from None
    own, legs = _read(strategy, home)
    if scenario is not None:
        named = own.points.get(scenario)
        if named is None:
            known = ", ".join(own.points) or "none"
            raise typer.BadParameter(f"{scenario!r} is no scenario; scenarios.yaml has {known}.")
        points = [named]
    rows = legs.rows(points, level)
    notes = [f"{count} left out: {reason}" for reason, count in legs.left_out().items()]
    if rows and not json:
        lines: dict[tuple[Any, ...], dict[str, str]] = {}
        for row in rows:
            key = tuple(row[name] for name in (*_TEXTS, "conid", "vol", "days"))
            lines.setdefault(key, _head(row))[f"{row['spot']:+g}"] = amount(row["profit"])
        texts = list(lines.values())
        output.print_table(texts, right=[name for name in texts[0] if name not in _TEXTS])
    output.show(rows, notes if rows else ["Nothing is held."], json=json)


def _read(strategy: str | None, home: Path | None) -> tuple[OwnScenarios, scenarios.PricedLegs]:
    """Return the file of scenarios, and the legs of a strategy; None: all."""
    settings, lake = options.opened(home)
    book, own, legs = read_risk(lake, settings, utc_now())
    known_strategy(strategy, (leg.strategy_id for leg in book.legs), book.unresolved)
    return own, legs.of_strategy(strategy)


_TEXTS = ("name", "strategy", "account", "currency")


def _head(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": str(row["name"]),
        **({"strategy": row["strategy"]} if row["conid"] else {}),
        "account": row["account"],
        "currency": row["currency"] or "–",
        "vol": f"{row['vol']:+g}",
        "days": f"{row['days']:g}",
        "left out": str(row["left_out"]),
    }


def expiry(
    days: Annotated[
        int, typer.Option(min=0, max=3650, help="Only what expires within these days.")
    ] = 7,
    strategy: options.Strategy = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what expiring legs leave at the present price, and what may be assigned early.

    A short option may be assigned early if its holder gains more by exercise than the option is
    worth above it: a call by a dividend, a put by interest.
    """
    _own, legs = _read(strategy, home)
    ending = scenarios.expiries(legs, until=(legs.given.now + timedelta(days=days)).date())
    early = scenarios.early_assignments(legs)
    lines = [
        f"{one['strategy_id']}: {digits(-one['position'])} short of {one['conid']} "
        f"({one['symbol']}) may be assigned early: {one['extrinsic']:,.2f} above its exercise, "
        f"which gains {one['gain']:,.2f}"
        for one in early
    ]
    if ending and not json:
        output.print_table([*map(_expiring, ending)], right=("qty", "units", "cash"))
    elif not ending:
        lines.insert(0, f"Nothing expires within {days} days.")
    output.show({"expiries": ending, "early_assignments": early}, lines, json=json)


_MARKS = {
    "is_pinned": "pinned",
    "is_uncovered": "uncovered",
    "is_cash_settled": "settled in cash",
    "is_in_the_morning": "in the morning",
}


def _expiring(one: Mapping[str, Any]) -> dict[str, str]:
    return {
        "expires": f"{one['expires_at']:%Y-%m-%d %H:%M}",
        "strategy": one["strategy_id"],
        "account": one["account"],
        "conid": str(one["conid"]),
        "symbol": one["symbol"],
        "qty": digits(one["position"]),
        "units": f"{one['units']:+,.0f}",
        "cash": f"{one['cash']:+,.0f}",
        "": ", ".join(text for name, text in _MARKS.items() if one[name]),
    }
