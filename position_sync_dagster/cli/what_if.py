"""The commands about what may come: `what-if`, `payoff`, `expiry` and `curve`."""

from collections.abc import Mapping, Sequence
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.instrument import digits
from position_sync_dagster.risk.deliveries import expiry_report
from position_sync_dagster.risk.payoff import Payoff, payoffs
from position_sync_dagster.risk.priced_legs import Choice, PricedLegs
from position_sync_dagster.risk.scenario_file import OwnScenarios, Point
from position_sync_dagster.risk.scenarios import Breakdown, scenario_rows
from position_sync_dagster.sync.reports.book import Book
from position_sync_dagster.sync.reports.risk import curves_of_choice, leg_notes, read_risk
from position_sync_dagster.sync.reports.what_if import (
    USUAL_MOVES,
    read_changes,
    rows_of_choice,
    what_if_of,
)
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import amount, number


def _numbers(text: str) -> list[float]:
    """Read numbers that are separated by commas."""
    try:
        return [*map(float, text.split(","))]
    except ValueError:
        why = f"{text[:40]!r} is no list of numbers. Write it as -10,-5,0,5,10."
        raise typer.BadParameter(why) from None


_NOTHING = "Nothing is held."
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
    rolls = [roll] if roll else []
    changes = read_changes(trade or (), close or (), rolls, account, strategy)

    settings, lake = options.opened(home)
    book, scenarios, legs = read_risk(lake, settings, utc_now())
    book.require_strategy(strategy)
    points = _named_points(scenario, scenarios) or points
    is_ratio = points[0].is_ratio

    if changes:
        compared = what_if_of(book, legs, settings, changes)
        all_rows = compared.rows(points, level)
        rows = rows_of_choice(all_rows, strategy, account)
        _show_compared(rows, compared.notes, is_ratio=is_ratio, json=json)
        return

    legs = legs.chosen(Choice(strategy=strategy, underlying=underlying, account=account))
    rows = scenario_rows(legs, points, level)
    notes = []
    for reason, count in legs.left_out().items():
        notes.append(f"{count} left out: {reason}")
    if rows and not json:
        _print_scenarios(rows, is_ratio=is_ratio)
    _show(rows, notes, json=json)


def _show(rows: Sequence[Any], notes: Sequence[str], *, json: bool) -> None:
    """Show rows as JSON or, below their table, their notes."""
    output.show(rows, notes if rows else [_NOTHING], json=json)


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
        option = wrong["loc"][0]
        why = f"--{option} {wrong['input']:g}: {wrong['msg']}."
        raise typer.BadParameter(why) from None
    return points


def _print_scenarios(rows: Sequence[Mapping[str, Any]], *, is_ratio: bool) -> None:
    """Print the profits of each group, volatility and day, with a column for each move."""
    lines: dict[tuple[object, ...], dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault(_line_of(row), _head(row, is_ratio=is_ratio))
        spot = f"{row['spot']:+g}"
        line[spot] = amount(row["profit"])

    texts = list(lines.values())
    numbers = [name for name in texts[0] if name not in _TEXTS]
    output.print_table(texts, right=numbers)


def _named_points(name: str | None, scenarios: OwnScenarios) -> list[Point]:
    """Return the scenario of the file that is named; none without a name."""
    if name is None:
        return []
    named = scenarios.points.get(name)
    if named is None:
        known = ", ".join(scenarios.points) or "none"
        raise typer.BadParameter(f"{name!r} is no scenario; scenarios.yaml has {known}.")
    return [named]


def _show_compared(
    rows: Sequence[Mapping[str, Any]], notes: Sequence[str], *, is_ratio: bool, json: bool
) -> None:
    """Print what the groups that differ are before and after some trades."""
    differing = [row for row in rows if row["before"] != row["after"]]
    if differing and not json:
        lines = []
        for row in differing:
            lines.append(_compared_line(row, is_ratio=is_ratio))
        output.print_table(lines, right=("before", "after", "delta", "theta"))
    output.show(rows, [*notes, *_warnings(differing)], json=json)


def _compared_line(row: Mapping[str, Any], *, is_ratio: bool) -> dict[str, str]:
    """Return the cells of a group in a scenario, before and after."""
    before = row["before"] or {}
    after = row["after"] or {}
    line = _group_of(row)
    line["spot"] = f"{row['spot']:+g}"
    line |= _moves_of(row, is_ratio=is_ratio)
    line["before"] = amount(before.get("profit"))
    line["after"] = amount(after.get("profit"))
    line["delta"] = amount(after.get("dollar_delta"))
    line["theta"] = amount(after.get("theta"))
    return line


def _warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the payoffs, what is uncovered and the broken limits after the trades, each once."""
    lines: dict[str, None] = {}
    for row in rows:
        after = row["after"] or {}
        for payoff in after.get("payoffs", ()):
            lines[_extremes_of(payoff)] = None

        for leg in after.get("uncovered", ()):
            text = f"{leg['strategy_id']}: {leg['leg']} would miss {leg['missing']:g}"
            lines[text] = None

        for text in after.get("limits_broken", ()):
            lines[text] = None
    return list(lines)


def _extremes_of(payoff: Mapping[str, Any]) -> str:
    """Return the line about the greatest profit and loss of a payoff after the trades."""
    profit = amount(payoff["greatest_profit"])
    loss = amount(payoff["greatest_loss"])
    text = f"{payoff['strategy']} {payoff['underlying']} at expiry: {profit} to {loss}"
    why = payoff["why"]
    return f"{text} ({why})" if why else text


def _read(strategy: str | None, home: Path | None) -> tuple[Book, PricedLegs]:
    """Return the book and all legs, if the strategy is known."""
    settings, lake = options.opened(home)
    book, _scenarios, legs = read_risk(lake, settings, utc_now())
    book.require_strategy(strategy)
    return book, legs


_TEXTS = ("name", "strategy", "account", "currency")


_line_of = itemgetter(*_TEXTS, "conid", "vol", "days")


def _head(row: Mapping[str, Any], *, is_ratio: bool) -> dict[str, str]:
    """Return the first cells of a line: its group, volatility and day."""
    head = _group_of(row) | _moves_of(row, is_ratio=is_ratio)
    head["left out"] = str(row["left_out"])
    if not row["conid"]:
        return head

    name = head.pop("name")
    return {"name": name, "strategy": row["strategy"]} | head


def _group_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells that name a group."""
    currency = row["currency"] or "–"
    return {"name": str(row["name"]), "account": row["account"], "currency": currency}


def _moves_of(row: Mapping[str, Any], *, is_ratio: bool) -> dict[str, str]:
    """Return the cells of volatility, as points or as a factor, and days."""
    vol = row["vol"]
    change = f"×{vol:g}" if is_ratio else f"{vol:+g}"
    return {"vol": change, "days": f"{row['days']:g}"}


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
        lines = [*map(_payoff_line, listed)]
        output.print_table(lines, right=("greatest profit", "greatest loss"))

    notes = []
    for of_strategy in listed:
        for text in (of_strategy.why, of_strategy.note):
            if text:
                notes.append(f"{of_strategy.strategy} {of_strategy.underlying}: {text}")
    rows = [of_strategy.row for of_strategy in listed]
    _show(rows, notes, json=json)


def _payoff_line(payoff: Payoff) -> dict[str, str]:
    """Return the cells of a payoff."""
    cells = {
        "strategy": payoff.strategy or "several",
        "account": payoff.account,
        "underlying": payoff.underlying,
        "currency": payoff.currency,
    }
    cells["expiry"] = f"{payoff.expiry or '–'}"
    cells["break-even"] = _prices(payoff.break_evens)
    cells["greatest profit"] = _bound(payoff, payoff.greatest_profit)
    cells["greatest loss"] = _bound(payoff, payoff.greatest_loss)
    return cells


def _prices(break_evens: Sequence[float] | None) -> str:
    """Return the prices at which nothing is gained or lost; a dash if they are not known."""
    if break_evens is None:
        return "–"
    prices = [*map(number, break_evens)]
    return ", ".join(prices) or "none"


def _bound(payoff: Payoff, extreme: float | None) -> str:
    """Return a greatest profit or loss; a payoff with break-evens has no bound where it is null."""
    if extreme is not None:
        return number(extreme)
    return "not known" if payoff.break_evens is None else "unbounded"


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
    ending = report["expiries"]
    if not ending:
        lines.append(f"Nothing expires within {days} days.")
    elif not json:
        table = [*map(_expiring, ending)]
        output.print_table(table, right=("qty", "units", "cash", "missing"))

    for row in report["early_assignments"]:
        lines.append(_may_be_assigned(row))
    for row in report["not_judged"]:
        lines.append(f"{row['strategy_id']}: {row['leg']} is not judged: {row['reason']}")
    for row in report["undated"]:
        lines.append(f"{row['strategy_id']}: {row['leg']} is not listed: {row['reason']}")
    output.show(report, lines, json=json)


def _may_be_assigned(row: Mapping[str, Any]) -> str:
    """Return the line about a short option that may be assigned early."""
    short = digits(-row["position"])
    leg = f"{row['strategy_id']}: {short} short of {row['leg']}"
    gain = f"{row['extrinsic']:,.2f} above its exercise, which gains {row['gain']:,.2f}"
    return f"{leg} may be assigned early: {gain}"


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
    expires_at = row["expires_at"]
    missing = row["missing"]
    cells = {
        "expires (New York)": f"{expires_at:%Y-%m-%d %H:%M}",
        "strategy": row["strategy_id"],
        "account": row["account"],
        "leg": row["leg"],
    }
    cells["qty"] = digits(row["position"])
    cells["units"] = _signed(row["units"])
    cells["cash"] = _signed(row["cash"])
    cells["missing"] = _signed(-missing) if missing else "–"
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
    book.require_strategy(strategy)
    point = Point(vol=vol, days=days)
    rows = [chosen.row for chosen in curves_of_choice(book, legs, choice, point)]

    notes = []
    for row in rows:
        underlying_or_all = row["underlying"] or "all underlyings"
        title = f"{underlying_or_all} {row['currency']} {row['account']}"
        if row["moves"] and not json:
            print(title)  # noqa: T201 - the command line's output
            output.print_table(_curve_lines(row), right=tuple(_CURVE_COLUMNS))

        for text in filter(None, (row["why"], row["note"])):
            notes.append(f"{title}: {text}")
        for leg in row["left_out"]:
            notes.append(f"{title}: {leg['leg']}: {leg['reason']}")
    _show(rows, notes, json=json)


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
    moves = row["moves"]
    interval = (len(moves) - 1) / (CURVE_LINES - 1)
    places = {round(line * interval) for line in range(CURVE_LINES)}
    lines = []
    for place in sorted(places):
        cells = {"move": f"{moves[place]:+.1f} %"}
        for title, name in _CURVE_COLUMNS.items():
            amounts = row[name]
            cells[title] = "–" if amounts is None else amount(amounts[place])
        lines.append(cells)
    return lines
