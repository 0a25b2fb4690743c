"""The commands that show what the tables hold, such as `status` and `positions`."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from polars import DataFrame
from pydantic import BaseModel
from rich.text import Text

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app, discard_output
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.followed_rows import LEDGER_POLL_S
from position_sync_dagster.lake.lake import rows_of_logins
from position_sync_dagster.lake.schema import UPDATE_COLUMNS
from position_sync_dagster.money.as_of import Past
from position_sync_dagster.money.campaigns.closes_of_strategies import read_closes
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.closes import Closure
from position_sync_dagster.money.reports import money_tables
from position_sync_dagster.money.reports.book import (
    Book,
    book_at,
    not_kept_lines,
    open_positions,
    read_book,
    read_first_positions,
)
from position_sync_dagster.money.reports.figures import Figures, read_figures
from position_sync_dagster.money.reports.known_names import KnownNames
from position_sync_dagster.money.reports.status import read_status
from position_sync_dagster.settings import Settings
from position_sync_dagster.terminal import board, output
from position_sync_dagster.terminal.text import as_typed


@app.command()
def status(
    watch: options.Watch = False, json: options.Json = False, home: options.HomeFolder = None
) -> None:
    """Show the owner of the gateway, the lines, the queue and the newest rows.

    `exposure` has the totals; with --json they are here too.
    """
    settings, lake = options.opened(home)

    def show() -> None:
        now = utc_now()
        if json:
            book = read_book(lake, settings, now)
            status_data = read_status(lake, settings, now, book=book).to_dict()
            for name in ("totals", "in_base"):
                status_data[name] = _plain(book.sums[name])
            output.print_json(status_data)
        else:
            described = board.describe(read_status(lake, settings, now))
            output.show(None, board.labelled(described), json=False)

    options.watched(show, watch=watch, json=json)


def _plain(sums: Iterable[BaseModel]) -> list[dict[str, Any]]:
    """Return sums by the names of their fields."""
    return [row.model_dump() for row in sums]


@app.command()
def changes(
    watch: options.Watch = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what happened today: trades, closes, other moves of positions and outages.

    It is read from the tables, and is the same after a restart.
    """
    settings, lake = options.opened(home)

    def show() -> None:
        figures_now = read_figures(lake, settings, utc_now())
        output.show(figures_now.changes, _lines_of_changes(figures_now), json=json)

    options.watched(show, watch=watch, json=json)


def _lines_of_changes(figures: Figures) -> Iterator[str]:
    """Yield what happened today, and what may be done."""
    for change in figures.changes:
        yield f"{change.at.astimezone():%H:%M:%S}  {change.kind:<8}  {change.text}"
    if not figures.changes:
        yield "Nothing has changed today."
    yield from map(as_typed, figures.status.hints)


@app.command()
def exposure(
    strategy: options.Strategy = None,
    as_of: options.AsOf = None,
    watch: options.Watch = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show value, profit, greeks and the oldest price of each strategy, account and underlying.

    UNATTRIBUTED is what belongs to no strategy; all strategies and UNATTRIBUTED together are all
    holdings. A line below has the total over currencies, by the broker's rates. A star marks a sum
    that leaves out a holding; one of which less than 90 % is known says "known for 2 of 40".

    The age is the time since the oldest price arrived or was confirmed. An unknown value is a dash
    and is left out of the sums. A narrow terminal shows fewer columns, and names the others.
    """
    _settings, _lake, past, read = _books(home, as_of, json=json)
    is_past = past is not None
    if json and not watch:
        tables = read(strategy=strategy).of_strategy(strategy).sums
        output.print_json({name: _plain(rows) for name, rows in tables.items()})
        return

    def render(width: int) -> Iterator[Text | str]:
        book = read(strategy=strategy).of_strategy(strategy)
        sums = [*book.strategies, *book.rest, *book.totals]
        if not sums:
            yield as_typed("No leg is active: `position-sync strategies propose` helps.")
            return

        columns, rows = money_tables.sums_table("strategy", sums, is_past=is_past)
        yield from output.noted_table(columns, rows, width)
        yield from map(output.dim_line, money_tables.money_lines(book))

        if book.underlyings:
            yield ""
            columns, rows = money_tables.sums_table("underlying", book.underlyings, is_past=is_past)
            yield from output.noted_table(columns, rows, width)
        if is_past and any(map(attrgetter("not_kept"), sums)):
            yield from not_kept_lines(book.priced)

    options.watched(lambda: output.print_fitted(render), watch=watch, json=json)


def _books(
    home: Path | None, as_of: datetime | None, *, json: bool
) -> tuple[Settings, MoneyLake, Past | None, Callable[..., Book]]:
    """Return settings, lake, the moment of a report, and what reads its book by the names in it.

    The moment is printed: with JSON to stderr, so that the JSON has the same shape.
    """
    settings, lake = options.opened(home)
    past = None if as_of is None else Past(at=as_of)
    if past is not None:
        typer.echo(str(past), err=json)

    def read(**names: str | None) -> Book:
        now = utc_now()
        if past is None:
            book = read_book(lake, settings, now)
        else:
            book = book_at(lake, settings, past, now)
        book.names.require(**names)
        return book

    return settings, lake, past, read


@app.command()
def positions(
    strategy: options.Strategy = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="Show what closed, why, and the realised profit.")
    ] = False,
    underlying: options.Underlying = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Show at most this many positions."),
    ] = None,
    as_of: options.AsOf = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show the newest row of each position: its values, its greeks, its source and its age.

    A narrow terminal shows fewer columns, and names the others; a pipe shows all. The age is the
    time since the price arrived or was confirmed by the broker. An unknown value is a dash.
    `exposure` has the sums.

    With --closed: each close, the newest first, with its cause. It is PROVISIONAL until a statement
    of the broker says it (STATED).
    """
    settings, lake, past, read_book_of = _books(home, as_of, json=json)
    if closed:
        closes = read_closes(lake, past)
        symbols = {*closes.rows["symbol"], *closes.legs["symbol"]}
        symbols.update(lake.updates.sync.latest()["symbol"])
        symbols.discard(None)
        names = KnownNames(
            strategies=frozenset(closes.legs["strategy_id"]), underlyings=frozenset(symbols)
        )
        names.require(strategy=strategy, underlying=underlying)
        chosen, count = closes.chosen(strategy, underlying, limit)
        _print_closes(chosen, count, closes.since, json=json)
        return

    def read() -> tuple[DataFrame, int]:
        is_of_all = strategy is None and underlying is None
        if past is None and is_of_all and limit is not None:
            return read_first_positions(lake, settings, utc_now(), limit)
        rows = open_positions(
            read_book_of(strategy=strategy, underlying=underlying), strategy, underlying
        )
        return rows[:limit], rows.height

    if json:
        rows, _count = read()
        output.print_json(rows.select(*UPDATE_COLUMNS, *_MORE).to_dicts())
        return

    def render(width: int) -> Iterator[Text | str]:
        shown, count = read()
        if shown.is_empty():
            yield "No such position is held."
            return

        yield from output.noted_table(
            money_tables.POSITIONS,
            money_tables.position_cells(shown, is_past=past is not None),
            width,
        )
        if past is not None:
            yield from not_kept_lines(shown)
        if shown.height < count:
            yield f"{shown.height:,} of {count:,} positions are shown."

    output.print_fitted(render)


def _print_closes(
    listed: Sequence[tuple[Closure, list[str]]], total: int, since: datetime | None, *, json: bool
) -> None:
    """Print closes with the strategies that had them, and how many there are since when."""
    closes = [
        {"contract": closure.name, **asdict(closure), "strategies": names}
        for closure, names in listed
    ]
    if json:
        output.print_json({"since": since, "closes": closes})
        return

    text = "No change of a position has been recorded yet."
    if since is not None:
        text = f"{len(listed):,} of {total:,} closes" if listed else "Nothing closed"
        text += f" since {since:%Y-%m-%d %H:%M} UTC, when the first change was recorded."
    output.show_rows(closes, _CLOSE, json=False, none=text, lines=[text])


# The columns of a close on a terminal; times are in UTC.
_CLOSE = (
    "closed_at", "account", "contract", "quantity", "price", "cause", "stage", "realized_pnl",
    "currency", "strategies", "detail",
)  # fmt: skip

# What `positions --json` has besides the columns of position_updates.
_MORE = (
    "name", "confirmed_at", "age_s", "greeks_age_s", "feed", "strategies", "shares", "days",
)  # fmt: skip


# How often a token is printed, in seconds; it also shows a closed pipe while there are no rows.
TOKEN_EVERY_S = 5.0


@app.command()
def follow(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Go on behind this token; `now` for what is committed from now on, `start` for "
            "every row. Without it, the newest row of each holding comes first.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines, as always.")] = True,
    home: options.HomeFolder = None,
) -> None:
    """Print each row of the ledger as it is committed, one a line, until Ctrl-C or a closed pipe.

    A line is a row of position_updates: an object with its columns, times in ISO 8601 and unknown
    values null. After the rows of a commit, and every 5 s, comes a line `{"token": "..."}`. A
    program stores the last token together with what it did, and passes it as --since to go on
    there: nothing is left out, and nothing comes twice.
    """
    settings, lake = options.opened(home)
    reader = lake.updates.sync.follow(since)
    token = since or ""  # the first read may find nothing
    token_printed_at = time.monotonic()
    try:
        while True:
            commit = reader.read()
            if commit is not None:
                token = commit.token
                rows = rows_of_logins(commit.rows, settings).drop("date")
                _write(output.escaped(rows.write_ndjson()))

            is_token_due = time.monotonic() > token_printed_at + TOKEN_EVERY_S
            if commit is not None or is_token_due:
                _write(DataFrame({"token": [token]}).write_ndjson())
                token_printed_at = time.monotonic()

            if commit is None:  # otherwise there may be more
                time.sleep(LEDGER_POLL_S)
    except BrokenPipeError:
        discard_output()
    except KeyboardInterrupt:
        return


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
