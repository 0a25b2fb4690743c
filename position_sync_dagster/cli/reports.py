"""The commands that show what the tables hold: `status`, `exposure` and `positions`."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.update import PositionUpdate, ValueOrigin
from position_sync_dagster.lake.lake import Lake, rows_of_logins
from position_sync_dagster.sync.reports.confirmations import feed_of
from position_sync_dagster.sync.reports.money import Ages, Money, total_by_currency
from position_sync_dagster.sync.reports.overview import read_book
from position_sync_dagster.sync.reports.position_list import PositionList, read_positions
from position_sync_dagster.sync.reports.status import read_status
from position_sync_dagster.terminal.board import describe
from position_sync_dagster.terminal.money_tables import positions_table, strategy_table
from position_sync_dagster.terminal.output import print_json, print_or_watch
from position_sync_dagster.terminal.text import as_typed


def status(json: options.Json = False, home: options.HomeFolder = None) -> None:
    """Show the owner of the gateway, the lines, the queue and the newest rows."""
    settings = options.settings_for(home)
    lake = options.existing(Lake.of(settings))
    found = read_status(lake, settings, utc_now())
    if json:
        print_json(found.to_dict())
        return

    for label, value in describe(found):
        typer.echo(f"{label:<18} {value}")


def exposure(
    strategy: options.Strategy = None,
    watch: options.Watch = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show value, profit, greeks and the oldest price of each strategy; never adds currencies.

    The age is the time since the oldest price arrived or was confirmed. An unknown value is a dash
    and is left out of the sums; `no value` counts the held legs without a value.
    """
    settings = options.settings_for(home)
    lake = options.existing(Lake.of(settings))

    def look() -> tuple[list[Money], list[Money]]:
        latest = rows_of_logins(lake.updates.sync.latest(), settings)
        book = read_book(lake, settings, utc_now(), latest=latest, of_strategies=True)
        options.known_strategy(strategy, book.legs)
        found = [one for one in book.strategies if strategy in (None, one.name)]
        return found, total_by_currency(found)

    def render(width: int) -> RenderableType:
        found, totals = look()
        if not found:
            return as_typed("No leg is active. Add one with `position-sync strategies add`.")
        return strategy_table(found, totals, width)

    if json:
        found, totals = look()
        print_json({"strategies": found, "totals": totals})
        return
    print_or_watch(render, watch=watch)


def positions(
    strategy: options.Strategy = None,
    closed: Annotated[bool, typer.Option("--closed", help="Show closed positions too.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Show at most this many positions."),
    ] = None,
    watch: options.Watch = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show the newest row of each position: its values, its greeks, its source and its age.

    A narrow terminal shows fewer columns; a pipe shows all. The age is the time since the price
    arrived or was confirmed by the broker; `greeks` is the age of the greeks where it differs. An
    unknown value is a dash and is left out of the totals.
    """
    settings = options.settings_for(home)
    lake = options.existing(Lake.of(settings))

    def look() -> PositionList:
        found = read_positions(
            lake, settings, utc_now(), strategy=strategy, closed=closed, limit=limit
        )
        options.known_strategy(strategy, lake.registry.legs)
        return found

    def render(width: int) -> RenderableType:
        found = look()
        if not found.rows:
            return f"No leg of {strategy} is held." if strategy else "No position has a row yet."
        table = positions_table(found.rows, found.ages, found.strategies_of, width)
        if len(found.rows) == found.total:
            return table

        shown = f"{len(found.rows):,} of {found.total:,} positions are shown"
        return Group(table, f"{shown}; the totals are of those shown.")

    if json:
        found = look()
        print_json([_as_values(row, found.ages) for row in found.rows])
        return
    print_or_watch(render, watch=watch)


def _as_values(row: PositionUpdate, ages: Ages) -> dict[str, Any]:
    """Return a row with the ages of its price and its greeks."""
    key = (row.account, row.conid)
    return asdict(row) | {
        "confirmed_at": ages.priced.get(key),
        "age_s": ages.age_s(key),
        "greeks_age_s": ages.greeks_age_s(key),
        "feed": feed_of(row) or "live" if row.value_source is ValueOrigin.TICK else None,
    }
