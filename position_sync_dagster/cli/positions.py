"""The command `position-sync positions`: the newest row of each position."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from position_sync_dagster.cli.options import (
    HomeFolder,
    Json,
    Strategy,
    Watch,
    existing,
    known_strategy,
    settings_for,
)
from position_sync_dagster.terminal.output import print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from position_sync_dagster.domain.update import PositionUpdate
    from position_sync_dagster.sync.reports.overview import Book


def positions(
    strategy: Strategy = None,
    closed: Annotated[bool, typer.Option("--closed", help="Show closed positions too.")] = False,
    watch: Watch = False,
    json: Json = False,
    home: HomeFolder = None,
) -> None:
    """Show the newest row of each position: its values, its greeks, its source and its age.

    A narrow terminal shows fewer columns; a pipe shows all. The age is the time since its source
    confirmed the value. What is unknown is a dash, and left out of the totals.
    """
    from position_sync_dagster.domain.clock import utc_now
    from position_sync_dagster.lake import Lake
    from position_sync_dagster.sync.reports.overview import read_book
    from position_sync_dagster.terminal.money_tables import positions_table
    from position_sync_dagster.terminal.watching import print_or_watch

    settings = settings_for(home)
    lake = existing(Lake.of(settings))

    def look() -> "tuple[Book, list[PositionUpdate]]":
        book = read_book(lake, settings, utc_now())
        known_strategy(strategy, book.legs)
        return book, rows_of(book, strategy, closed=closed)

    def render(width: int) -> "RenderableType":
        book, rows = look()
        if not rows:
            return f"No leg of {strategy} is held." if strategy else "No position has a row yet."
        return positions_table(rows, book.ages, book.strategies_of, width)

    if json:
        book, rows = look()
        confirmed = book.ages.confirmed
        print_json(
            [
                asdict(row) | {"confirmed_at": confirmed.get((row.account, row.conid))}
                for row in rows
            ]
        )
        return
    print_or_watch(render, watch=watch)


def rows_of(book: "Book", strategy: str | None, *, closed: bool) -> "list[PositionUpdate]":
    """Return the newest rows that were asked for, in the order of account and contract."""
    names = book.strategies_of
    rows = [
        row
        for row in book.latest
        if (closed or row.position)
        and (strategy is None or strategy in names.get((row.account, row.conid), ()))
    ]
    rows.sort(
        key=lambda row: (row.account, row.symbol, str(row.expiry), row.strike or 0, row.conid)
    )
    return rows
