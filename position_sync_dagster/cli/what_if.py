"""The commands about what may come: `what-if`, `payoff`, `expiry` and `curve`."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import digits
from position_sync_dagster.risk.deliveries import expiry_report
from position_sync_dagster.risk.payoff import Payoff, payoffs
from position_sync_dagster.risk.priced_legs import PricedLegs
from position_sync_dagster.risk.scenario_file import OwnScenarios, Point
from position_sync_dagster.risk.scenarios import Breakdown, scenario_rows
from position_sync_dagster.sync.reports.book import Book, known_strategy
from position_sync_dagster.sync.reports.risk import Choice, curves_of_choice, leg_notes, read_risk
from position_sync_dagster.sync.reports.what_if import (
    USUAL_MOVES,
    read_changes,
    rows_of_choice,
    what_if_of,
)
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import amount


def _numbers(text: str) -> list[float]:
    """Read numbers that are separated by commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        why = f"{text[:40]!r} is no list of numbers. Write it as -10,-5,0,5,10."
        raise typer.BadParameter(why) from None


_USUAL_SPOT = ",".join(f"{move:g}" for move in USUAL_MOVES)


def what_if(
    spot: Annotated[
        str, typer.Option(metavar="LIST", help="Moves of the underlyings in percent.")
    ] = _USUAL_SPOT,
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
    trade: Annotated[
        list[str] | None,
        typer.Option(metavar="TRADE", help='After this, such as "-2 SPY 20270115 C 650 @3.20".'),
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
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show value and profit under other prices, volatilities and days.

    Each option keeps its own volatility. A leg that cannot be priced is left out and counted. The
    strategies and UNATTRIBUTED together are the account; currencies are never added.

    With --trade, --close or --roll each row has what it is before and after: value and profit,
    greeks, payoff at expiry, what is uncovered, and which limits are broken. With --strategy what
    a trade opens is a leg of that strategy. Nothing is sent and nothing is stored.
    """
    if ratio and vol == "0":
        vol = "1"
    moves = list(product(_numbers(spot), _numbers(vol), _numbers(days)))
    points = _points(moves, rate=rate, in_moves=in_moves, is_ratio=ratio)
    changes = read_changes(trade or (), close or (), [roll] if roll else (), account, strategy)

    settings, lake = options.opened(home)
    book, scenarios, legs = read_risk(lake, settings, utc_now())
    _check_strategy(strategy, book)
    points = _named_points(scenario, scenarios) or points

    if changes:
        compared = what_if_of(book, legs, settings, changes)
        rows = rows_of_choice(compared.rows(points, level), strategy, account)
        _show_compared(rows, compared.notes, json=json)
        return

    legs = legs.chosen(strategy, underlying, account)
    rows = scenario_rows(legs, points, level)
    notes = [f"{count} left out: {reason}" for reason, count in legs.left_out().items()]
    if rows and not json:
        _print_scenarios(rows)
    output.show(rows, notes if rows else ["Nothing is held."], json=json)


def _points(
    moves: Sequence[tuple[float, float, float]], *, rate: float, in_moves: bool, is_ratio: bool
) -> list[Point]:
    """Return the scenarios of moves of spot, volatility and days."""
    if is_ratio and min(vol for _spot, vol, _days in moves) <= 0:
        raise typer.BadParameter("With --ratio each number of --vol is above 0.")

    points = []
    try:
        for spot, vol, days in moves:
            point = Point(
                spot=spot, vol=vol, days=days, rate=rate, in_moves=in_moves, is_ratio=is_ratio
            )
            points.append(point)
    except ValidationError as error:
        wrong = error.errors()[0]
        why = f"--{wrong['loc'][0]} {wrong['input']:g}: {wrong['msg']}."
        raise typer.BadParameter(why) from None
    return points


def _print_scenarios(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the profits of each group, volatility and day, with a column for each move."""
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows:
        key = tuple(row[name] for name in (*_TEXTS, "conid", "vol", "days"))
        line = lines.setdefault(key, _head(row))
        line[f"{row['spot']:+g}"] = amount(row["profit"])

    texts = list(lines.values())
    output.print_table(texts, right=[name for name in texts[0] if name not in _TEXTS])


def _named_points(name: str | None, scenarios: OwnScenarios) -> list[Point]:
    """Return the scenario of the file that is named; none without a name."""
    if name is None:
        return []
    named = scenarios.points.get(name)
    if named is None:
        known = ", ".join(scenarios.points) or "none"
        raise typer.BadParameter(f"{name!r} is no scenario; scenarios.yaml has {known}.")
    return [named]


def _check_strategy(strategy: str | None, book: Book) -> None:
    """Raise if a strategy has no leg."""
    known_strategy(strategy, (leg.strategy_id for leg in book.legs), book.unresolved)


def _show_compared(rows: Sequence[Mapping[str, Any]], notes: Sequence[str], *, json: bool) -> None:
    """Print what the groups that differ are before and after some trades."""
    differing = [row for row in rows if row["before"] != row["after"]]
    if differing and not json:
        output.print_table(
            [*map(_compared_line, differing)], right=("before", "after", "delta", "theta")
        )
    output.show(rows, [*notes, *_warnings(differing)], json=json)


def _compared_line(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a group in a scenario, before and after."""
    cells = {
        "name": str(row["name"]),
        "account": row["account"],
        "currency": row["currency"] or "–",
    }
    cells["spot"] = f"{row['spot']:+g}"
    cells["vol"] = f"{row['vol']:+g}"
    cells["days"] = f"{row['days']:g}"

    before = row["before"] or {}
    after = row["after"] or {}
    cells["before"] = amount(before.get("profit"))
    cells["after"] = amount(after.get("profit"))
    cells["delta"] = amount(after.get("dollar_delta"))
    cells["theta"] = amount(after.get("theta"))
    return cells


def _warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the payoffs, what is uncovered and the broken limits after the trades, each once."""
    lines: dict[str, None] = {}
    for row in rows:
        after = row["after"] or {}
        for payoff in after.get("payoffs", ()):
            title = f"{payoff['strategy']} {payoff['underlying']}"
            highest = amount(payoff["greatest_profit"])
            lowest = amount(payoff["greatest_loss"])
            why = f" ({payoff['why']})" if payoff["why"] else ""
            lines[f"{title} at expiry: {highest} to {lowest}{why}"] = None

        for leg in after.get("uncovered", ()):
            name = f"{leg['strategy_id']}: {leg['leg']}"
            lines[f"{name} would miss {leg['missing']:g}"] = None

        for text in after.get("limits_broken", ()):
            lines[text] = None
    return list(lines)


def _read(strategy: str | None, home: Path | None) -> tuple[Book, PricedLegs]:
    """Return the book and all legs, if the strategy is known."""
    settings, lake = options.opened(home)
    book, _scenarios, legs = read_risk(lake, settings, utc_now())
    _check_strategy(strategy, book)
    return book, legs


_TEXTS = ("name", "strategy", "account", "currency")


def _head(row: Mapping[str, Any]) -> dict[str, str]:
    cells = {"name": str(row["name"])}
    if row["conid"]:
        cells["strategy"] = row["strategy"]

    cells["account"] = row["account"]
    cells["currency"] = row["currency"] or "–"
    cells["vol"] = f"{row['vol']:+g}"
    cells["days"] = f"{row['days']:g}"
    cells["left out"] = str(row["left_out"])
    return cells


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
    book, legs = _read(strategy, home)
    listed = payoffs(legs.of_strategy(strategy), leg_notes(book))
    if listed and not json:
        output.print_table([*map(_payoff_line, listed)], right=("greatest profit", "greatest loss"))

    notes = []
    for of_strategy in listed:
        for text in (of_strategy.why, of_strategy.note):
            if text:
                notes.append(f"{of_strategy.strategy} {of_strategy.underlying}: {text}")
    rows = [of_strategy.row for of_strategy in listed]
    output.show(rows, notes if listed else ["Nothing is held."], json=json)


def _payoff_line(found: Payoff) -> dict[str, str]:
    """Return the cells of a payoff."""
    if found.break_evens is None:
        break_evens = "–"
    else:
        prices = [f"{price:,.2f}" for price in found.break_evens]
        break_evens = ", ".join(prices) or "none"

    return {
        "strategy": found.strategy or "several",
        "account": found.account,
        "underlying": found.underlying,
        "currency": found.currency,
        "expiry": f"{found.expiry or '–'}",
        "break-even": break_evens,
        "greatest profit": _bound(found, found.greatest_profit),
        "greatest loss": _bound(found, found.greatest_loss),
    }


def _bound(found: Payoff, amount_or_none: float | None) -> str:
    """Return a greatest profit or loss; a payoff with break-evens has no bound where it is null."""
    if amount_or_none is not None:
        return f"{amount_or_none:,.2f}"
    return "not known" if found.break_evens is None else "unbounded"


def expiry(
    days: Annotated[
        int, typer.Option(min=0, max=3650, help="Only what expires within these days.")
    ] = 7,
    strategy: options.Strategy = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what expiring legs leave at the present price, and what may be assigned early.

    Days and times are those of New York. A short option may be assigned early if its holder gains
    nothing more by selling it. What cannot be priced is listed with the reason.
    """
    _book, legs = _read(strategy, home)
    report = expiry_report(legs, days=days, strategy=strategy)

    lines = []
    for row in report["early_assignments"]:
        leg = f"{row['strategy_id']}: {digits(-row['position'])} short of {row['leg']}"
        gain = f"{row['extrinsic']:,.2f} above its exercise, which gains {row['gain']:,.2f}"
        lines.append(f"{leg} may be assigned early: {gain}")
    for row in report["not_judged"]:
        lines.append(f"{row['strategy_id']}: {row['leg']} is not judged: {row['reason']}")
    for row in report["undated"]:
        lines.append(f"{row['strategy_id']}: {row['leg']} is not listed: {row['reason']}")

    ending = report["expiries"]
    if not ending:
        lines.insert(0, f"Nothing expires within {days} days.")
    elif not json:
        output.print_table([*map(_expiring, ending)], right=("qty", "units", "cash", "missing"))
    output.show(report, lines, json=json)


_MARKS = {
    "is_pinned": "pinned",
    "is_uncovered": "uncovered",
    "is_cash_settled": "settled in cash",
    "is_in_the_morning": "in the morning",
}


def _expiring(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a leg that expires."""
    marks = [text for name, text in _MARKS.items() if row[name]]
    if row["reason"] is not None:
        marks.append(row["reason"])

    cells = {
        "expires (New York)": f"{row['expires_at']:%Y-%m-%d %H:%M}",
        "strategy": row["strategy_id"],
        "account": row["account"],
        "leg": row["leg"],
    }
    missing = -row["missing"] if row["missing"] else None
    cells["qty"] = digits(row["position"])
    cells["units"] = _signed(row["units"])
    cells["cash"] = _signed(row["cash"])
    cells["missing"] = _signed(missing)
    cells[""] = ", ".join(marks)
    return cells


def _signed(number: float | None) -> str:
    return "–" if number is None else f"{number:+,.0f}"


# The number of lines of a curve on a terminal; the JSON has all of its prices.
CURVE_LINES = 15


def curve(
    strategy: options.Strategy = None,
    underlying: options.Underlying = None,
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    days: Annotated[
        float, typer.Option(min=0, max=3650, help="Days that have passed on the chosen day.")
    ] = 0.0,
    vol: Annotated[
        float, typer.Option(min=-500, max=500, help="Change of the volatilities in points.")
    ] = 0.0,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show profit and greeks over the price of the underlying: now, on a chosen day, at expiry.

    Over one underlying the profit is that since the legs were opened. Over several, which all move
    by the same percentage, it is the change from now. What cannot be priced is listed.
    """
    settings, lake = options.opened(home)
    book, _own, legs = read_risk(lake, settings, utc_now())
    choice = Choice(strategy=strategy, underlying=underlying, account=account)
    choice.check(book)
    rows = [each.row for each in curves_of_choice(book, legs, choice, Point(vol=vol, days=days))]

    notes = []
    for row in rows:
        title = f"{row['underlying'] or 'all underlyings'} {row['currency']} {row['account']}"
        if row["moves"] and not json:
            print(title)  # noqa: T201 - the command line's output
            output.print_table(_curve_lines(row), right=tuple(_CURVE_COLUMNS))
        notes += [f"{title}: {text}" for text in (row["why"], row["note"]) if text]
        notes += [f"{title}: {left['leg']}: {left['reason']}" for left in row["left_out"]]
    output.show(rows, notes if rows else ["Nothing is held."], json=json)


# The columns of a line, by the names of the row.
_CURVE_COLUMNS = {
    "price": "prices",
    "now": "now",
    "chosen day": "chosen",
    "at expiry": "at_expiry",
    "$ delta": "dollar_delta",
    "theta": "theta",
    "vega": "vega",
}


def _curve_lines(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the lines of a table: some of the prices, and the first and the last one."""
    if not row["moves"]:
        return []

    last = len(row["moves"]) - 1
    between = last / (CURVE_LINES - 1)
    places = {round(number * between) for number in range(CURVE_LINES)}
    lines = []
    for place in sorted(places):
        move = row["moves"][place]
        cells = {"move": f"{move:+.1f} %"}
        for title, name in _CURVE_COLUMNS.items():
            numbers = row[name]
            cells[title] = amount(None if numbers is None else numbers[place])
        lines.append(cells)
    return lines
