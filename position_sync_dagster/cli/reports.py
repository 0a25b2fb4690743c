"""The commands that show what the tables hold, such as `status` and `positions`, and `mcp`."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import polars as pl
import typer
from rich.console import Group, RenderableType

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.closes import Closure
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.errors import MissingExtraError
from position_sync_dagster.lake.lake import Lake, Past, rows_of_logins
from position_sync_dagster.lake.position_updates import POLL_S
from position_sync_dagster.lake.schema import UPDATE_COLUMNS, updates_of
from position_sync_dagster.risk.scenario_file import Point
from position_sync_dagster.risk.scenarios import Breakdown
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.propose_strategies import next_step
from position_sync_dagster.sync.reports.book import (
    COLUMNS,
    Book,
    book_at,
    is_leg_of,
    known_strategy,
    open_positions,
    read_book,
)
from position_sync_dagster.sync.reports.changes import ChangeKind
from position_sync_dagster.sync.reports.closes import read_closes
from position_sync_dagster.sync.reports.figures import Figures, read_figures
from position_sync_dagster.sync.reports.status import plain, read_status
from position_sync_dagster.sync.reports.todays_profit import explain_today, of_strategy
from position_sync_dagster.sync.reports.what_if import USUAL_MOVES, read_changes, read_what_if
from position_sync_dagster.terminal import board, money_tables, output
from position_sync_dagster.terminal.text import amount, as_typed, number, printable, quantity


def status(json: options.Json = False, home: options.HomeFolder = None) -> None:
    """Show the owner of the gateway, the lines, the queue and the newest rows.

    `exposure` has the totals; with --json they are here too.
    """
    settings, lake = options.opened(home)
    now = utc_now()
    book = read_book(lake, settings, now)
    found = read_status(lake, settings, now, book=book)
    if json:
        totals = [total.model_dump() for total in (*book.totals, *book.in_base)]
        output.print_json(found.to_dict() | {"totals": totals})
        return
    _print_labelled(board.describe(found))


def _print_labelled(lines: board.Lines) -> None:
    output.show(None, (f"{label:<18} {value}" for label, value in lines), json=False)


def figures(
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show all figures of now: accounts, strategies, positions, changes, limits.

    With --json as `/api/v1/figures` serves them; a program may rely on the names.
    """
    settings, lake = options.opened(home)
    found = read_figures(lake, settings, utc_now())
    if json:
        sys.stdout.write(output.escaped(found.to_json()) + "\n")
        return
    _print_labelled(board.figures_of(found))


def changes(
    kind: Annotated[
        ChangeKind | None, typer.Option(help="Only changes of this kind.", case_sensitive=False)
    ] = None,
    account: Annotated[str | None, typer.Option(help="Only changes of this account.")] = None,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show what happened today: trades, closes, outages and breaks, the newest first.

    It is read from the tables, and is the same after a restart.
    """
    settings, lake = options.opened(home)
    every = read_figures(lake, settings, utc_now()).changes
    of_kind = (one for one in every if kind in (None, one.kind))
    listed = [one for one in of_kind if account in (None, one.account)]
    lines = [f"{one.at.astimezone():%H:%M:%S}  {one.kind:<8}  {one.text}" for one in listed]
    lines = lines or ["Nothing has changed today."]
    lines += map(as_typed, filter(None, [next_step(lake, settings, utc_now())]))
    output.show(listed, lines, json=json)


def exposure(
    strategy: options.Strategy = None,
    as_of: options.AsOf = None,
    at_value_time: options.AtValueTime = False,
    watch: options.Watch = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show value, profit, greeks and the oldest price of each strategy, account and underlying.

    UNATTRIBUTED is what belongs to no strategy; all strategies and UNATTRIBUTED together are all
    holdings. Currencies are never added. A star marks a sum that leaves out a holding.

    The age is the time since the oldest price arrived or was confirmed. An unknown value is a dash
    and is left out of the sums; `no value` counts the held legs without a value.
    """
    past = options.past_of(as_of, at_value_time=at_value_time, watch=watch)
    look = _looking(options.opened(home), strategy, past, json=json, watch=watch)
    if json:
        tables = look().of_strategy(strategy).sums
        output.print_json({name: [row.model_dump() for row in tables[name]] for name in tables})
        return

    def render(width: int) -> Iterator[RenderableType]:
        found = look().of_strategy(strategy)
        ends = [*found.rest, *found.totals, *found.in_base]
        rows = [*found.strategies, *ends]
        if not rows:
            yield as_typed("No leg is active: `position-sync strategies propose` helps.")
            return
        table = money_tables.sums_table("strategy", rows)
        yield from output.fitted_table(*table, width, totals=len(ends))
        yield from map(output.dim_line, money_tables.money_lines(found))
        if found.underlyings:
            yield ""
            table = money_tables.sums_table("underlying", found.underlyings)
            yield from output.fitted_table(*table, width)

    output.print_or_watch(lambda width: Group(*render(width)), watch=watch)


def _looking(
    opened: tuple[Settings, Lake],
    strategy: str | None,
    past: Past | None,
    *,
    json: bool,
    watch: bool,
) -> Callable[[], Book]:
    """Return what reads the book of now, or of a moment, in which the strategy must be known.

    The moment is printed above the report: with JSON to stderr, so that the JSON has the same shape
    as that of a report about now.
    """
    if json and watch:
        raise typer.BadParameter("--json does not go with --watch: `follow` prints each new row.")
    settings, lake = opened

    def look() -> Book:
        of = (lake, settings)
        book = book_at(*of, past, utc_now()) if past else read_book(*of, utc_now())
        known_strategy(strategy, (leg.strategy_id for leg in book.legs), book.unresolved)
        return book

    if past is None:
        return look
    then = look()
    typer.echo(str(past), err=json)
    return lambda: then


def positions(
    strategy: options.Strategy = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="Show what closed, why, and the realised profit.")
    ] = False,
    underlying: Annotated[
        str | None, typer.Option(metavar="SYMBOL", help="Only contracts on this symbol.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Show at most this many positions."),
    ] = None,
    as_of: options.AsOf = None,
    at_value_time: options.AtValueTime = False,
    watch: options.Watch = False,
    json: options.Json = False,
    home: options.HomeFolder = None,
) -> None:
    """Show the newest row of each position: its values, its greeks, its source and its age.

    A narrow terminal shows fewer columns; a pipe shows all. The age is the time since the price
    arrived or was confirmed by the broker; `greeks` is the age of the greeks where it differs. An
    unknown value is a dash and is left out of the totals.

    With --closed: each close, the newest first, with its cause. It is PROVISIONAL until a statement
    of the broker says it (STATED).
    """
    past = options.past_of(as_of, at_value_time=at_value_time, watch=watch)
    opened = options.opened(home)
    if closed:
        if watch:
            raise typer.BadParameter("--closed does not go with --watch.")
        found = read_closes(opened[1], past)
        known_strategy(strategy, found.legs.get_column("strategy_id"))
        if past is not None:
            typer.echo(str(past), err=json)
        _print_closes(*found.chosen(strategy, underlying, limit), found.since, json=json)
        return

    look = _looking(opened, strategy, past, json=json, watch=watch)
    if json:
        rows = open_positions(look(), strategy, underlying)[:limit]
        output.print_json(rows.select(*UPDATE_COLUMNS, *_MORE).to_dicts())
        return

    def render(width: int) -> Iterator[RenderableType]:
        book = look()
        rows = open_positions(book, strategy, underlying)
        shown = rows[:limit]
        if shown.height:
            lines, totals, note = money_tables.positions_table(shown, book)
            yield from output.fitted_table(money_tables.POSITIONS, lines, width, totals=totals)
            yield from map(output.dim_line, filter(None, [note]))
        elif underlying is not None:
            yield "No position has this underlying."
        else:
            yield f"No leg of {strategy} is held." if strategy else "No position has a row yet."
        if 0 < shown.height < rows.height:
            counts = f"{shown.height:,} of {rows.height:,} positions"
            yield f"{counts} are shown; the totals are of those shown."

    output.print_or_watch(lambda width: Group(*render(width)), watch=watch)


def _print_closes(
    listed: Sequence[tuple[Closure, list[str]]], total: int, since: datetime | None, *, json: bool
) -> None:
    """Print closes with the strategies that had them, and how many there are since when."""
    if json:
        closes = [asdict(one) | {"strategies": names} for one, names in listed]
        output.print_json({"since": since, "closes": closes})
        return
    if listed:
        output.print_table(
            [
                {
                    "closed (UTC)": f"{one.closed_at:%Y-%m-%d %H:%M}",
                    "account": one.account,
                    "contract": one.name,
                    "qty": quantity(one.quantity),
                    "price": number(one.price),
                    "cause": str(one.cause),
                    "stage": str(one.stage),
                    "realised": amount(one.realized_pnl),
                    "": one.currency,
                    "strategy": ",".join(names),
                    "why": one.detail,
                }
                for one, names in listed
            ],
            right=("qty", "price", "realised"),
        )
    if since is None:
        typer.echo("No change of a position has been recorded yet.")
        return
    closed = f"{len(listed):,} of {total:,} closes" if listed else "Nothing closed"
    typer.echo(f"{closed} since {since:%Y-%m-%d %H:%M} UTC, when the first change was recorded.")


# What `positions --json` has besides the columns of position_updates.
_MORE = ("confirmed_at", "age_s", "greeks_age_s", "feed", "strategies", "shares", "days")


# How often a token is printed, in seconds; it also shows a closed pipe while there are no rows.
TOKEN_EVERY_S = 5.0


def follow(
    strategy: options.Strategy = None,
    account: Annotated[str | None, typer.Option(help="Only rows of this account.")] = None,
    conid: Annotated[int | None, typer.Option(help="Only rows of this contract.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Go on behind this token; `now` for what is committed from now on, `start` for "
            "every row. Without it, the newest row of each holding comes first.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json/--table", help="Print JSON lines, or short lines for people.")
    ] = True,
    poll: Annotated[
        float,
        typer.Option(min=0.05, max=5, help="How often to look for a new commit, in seconds."),
    ] = POLL_S,
    home: options.HomeFolder = None,
) -> None:
    """Print each row of the ledger as it is committed, one a line, until Ctrl-C or a closed pipe.

    A line is a row of position_updates: an object with its columns, times in ISO 8601 and unknown
    values null. After the rows of a commit, and every 5 s, comes a line `{"token": "..."}`. A
    program stores the last token together with what it did, and passes it as --since to go on
    there: nothing is left out, and nothing comes twice.
    """
    settings, lake = options.opened(home)
    legs, waiting = lake.registry.sync.get_all_active(), lake.registry.unresolved
    known_strategy(
        strategy, (leg.strategy_id for leg in legs), (leg.strategy_id for leg in waiting)
    )
    reader = lake.updates.sync.follow(since)

    def wanted(rows: pl.DataFrame) -> pl.DataFrame:
        rows = rows_of_logins(rows, settings)
        if strategy is not None:
            rows = rows.filter(is_leg_of(lake, strategy, lake.registry.sync.get_all_active()))
        for column, value in (("account", account), ("conid", conid)):
            if value is not None:
                rows = rows.filter(pl.col(column) == value)
        return rows

    token, printed_at = since or "", time.monotonic()  # the first read may find nothing
    try:
        while True:
            found = reader.read()
            if found is not None:
                token = found.token
                (_print_json if json else _print_lines)(wanted(found.rows))
            if json and (found is not None or time.monotonic() > printed_at + TOKEN_EVERY_S):
                _write(pl.DataFrame({"token": [token]}).write_ndjson())
                printed_at = time.monotonic()
            if found is None:  # otherwise there may be more
                time.sleep(poll)
    except BrokenPipeError:
        # The interpreter flushes the output at its end, and would report the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return


def _print_json(rows: pl.DataFrame) -> None:
    _write(output.escaped(rows.drop("date").write_ndjson()))


def _print_lines(rows: pl.DataFrame) -> None:
    for row in updates_of(rows):
        leg = contract_name(row)
        _write(
            f"{row.timestamp:%H:%M:%S}  {printable(row.account)}  {printable(leg):<24} "
            f"{quantity(row.position):>8} {number(row.market_value):>14} "
            f"{number(row.unrealized_pnl):>12}  {row.source}\n"
        )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@dataclass(frozen=True)
class Tools:
    """The tools: each returns values for JSON; unknown is null, never zero.

    Raises:
        PositionSyncError: The tables cannot be read; from every tool.
    """

    settings: Settings
    lake: Lake

    def _read(self) -> Figures:
        return read_figures(self.lake, self.settings, utc_now())

    def figures(self) -> dict[str, Any]:
        """Return accounts, strategies, underlyings, expiries, changes, limits and the gateway.

        The positions are left out: `positions` has them.
        """
        return self._read().to_dict(positions=False)

    def positions(
        self, strategy: str | None = None, symbol: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the open positions, all or those of a strategy or an underlying.

        A strategy that is not active is an error, which names those that are.
        """
        book = self._read().book
        known_strategy(strategy, (leg.strategy_id for leg in book.legs), book.unresolved)
        rows = open_positions(book, strategy, symbol)
        return list(plain(rows.select(COLUMNS).to_dicts()))

    def changes(self) -> list[dict[str, Any]]:
        """Return what happened today: trades, closes, outages and breaks, the newest first."""
        return list(plain(self._read().changes))

    def why(self, strategy: str | None = None) -> list[dict[str, Any]]:
        """Return why today's profit of each strategy is what it is: answers "why am I down today?".

        Each row has the profit of the day of what is open, and the parts that add up to it: delta,
        gamma, vega, theta, repricing, trades, assignments, unexplained. `largest` names the three
        largest legs of each part, `movements` the ids of what moved them, `closed_legs` what closed
        today, which is not in the profit. Null is not known, and `why_unknown` says why.
        """
        figures = self._read()
        rows = explain_today(self.lake, self.settings, figures)
        return list(plain(of_strategy(rows, strategy, figures.book)))

    def what_if(
        self,
        trades: list[str] | None = None,
        close: list[str] | None = None,
        roll: dict[str, str] | None = None,
        spot: list[float] | None = None,
    ) -> list[dict[str, Any]]:
        """Return value, profit and greeks of each strategy before and after trades; none is sent.

        A trade is text such as "-2 SPY 20270115 C 650 @3.20". `close` names strategies, `roll` has
        the new expiry of each strategy that is rolled, `spot` moves of the prices in percent.
        """
        changes = read_changes(trades or (), close or (), (roll or {}).items())
        compared = read_what_if(self.lake, self.settings, utc_now(), changes)
        points = [Point(spot=move) for move in spot or USUAL_MOVES]
        return list(plain(compared.rows(points, Breakdown.STRATEGY)))

    def as_of(self, time: str) -> dict[str, Any]:
        """Return strategies and positions as they were known at a time such as 2026-03-09T15:30Z.

        A time without a zone is UTC.
        """
        at = datetime.fromisoformat(time)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        book = book_at(self.lake, self.settings, Past(at=at), utc_now())
        found = {
            "at": at,
            "strategies": [*book.strategies, *book.rest],
            "positions": open_positions(book).select(COLUMNS).to_dicts(),
        }
        return dict(plain(found))


def mcp(home: options.HomeFolder = None) -> None:
    """Serve the figures to an assistant by the Model Context Protocol, over stdio, read only.

    It needs the extra `mcp`. The tools are figures, positions, changes, why, as_of and what_if.
    """
    assistant_server(Tools(*options.opened(home))).run("stdio")


def assistant_server(tools: Tools) -> Any:
    """Return the server of the tools, an `mcp.server.fastmcp.FastMCP`.

    Raises:
        MissingExtraError: The extra `mcp` is not installed.
    """
    try:
        from mcp.server.fastmcp import FastMCP
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise MissingExtraError("mcp", "mcp") from error
    server = FastMCP("position-sync", log_level="WARNING")
    of_now = (tools.figures, tools.positions, tools.changes, tools.why)
    for tool in (*of_now, tools.as_of, tools.what_if):
        server.add_tool(tool, annotations=ToolAnnotations(readOnlyHint=True))
    return server
