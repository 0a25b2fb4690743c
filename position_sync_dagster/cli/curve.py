"""The command `curve`: profit and greeks over the price, now, on a day to come and at expiry."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.risk.scenario_file import Point
from position_sync_dagster.sync.reports.risk import Choice, curves_of_choice, read_risk
from position_sync_dagster.terminal import output
from position_sync_dagster.terminal.text import amount

# The number of lines of a curve on a terminal; the JSON has all of its prices.
LINES = 15


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
            output.print_table(_lines(row), right=tuple(_COLUMNS))
        notes += [f"{title}: {text}" for text in (row["why"], row["note"]) if text]
        notes += [f"{title}: {left['leg']}: {left['reason']}" for left in row["left_out"]]
    output.show(rows, notes if rows else ["Nothing is held."], json=json)


# The columns of a line, by the names of the row.
_COLUMNS = {
    "price": "prices",
    "now": "now",
    "chosen day": "chosen",
    "at expiry": "at_expiry",
    "$ delta": "dollar_delta",
    "theta": "theta",
    "vega": "vega",
}


def _lines(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the lines of a table: some of the prices, and the first and the last one."""
    if not row["moves"]:
        return []
    last = len(row["moves"]) - 1
    places = sorted({round(number * last / (LINES - 1)) for number in range(LINES)})
    lines = []
    for place in places:
        cells = {"move": f"{row['moves'][place]:+.1f} %"}
        for title, name in _COLUMNS.items():
            numbers = row[name]
            cells[title] = amount(None if numbers is None else numbers[place])
        lines.append(cells)
    return lines
