"""The command `mcp`: the figures for an assistant, by the Model Context Protocol."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module, metadata
from inspect import Parameter, signature
from typing import Annotated, Any

from pydantic import Field

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import MissingExtraError, UserError, shown
from position_sync_dagster.money.as_of import Past
from position_sync_dagster.money.campaigns.results import (
    Grouping,
)
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.profit.returns import Period
from position_sync_dagster.money.reports.book import (
    COLUMNS,
    book_at,
    open_positions,
)
from position_sync_dagster.money.reports.figures import Figures, read_figures
from position_sync_dagster.money.reports.fill_costs import FillGrouping
from position_sync_dagster.money.reports.known_names import nearest
from position_sync_dagster.money.reports.status import plain
from position_sync_dagster.money.risk.what_if import USUAL_MOVES
from position_sync_dagster.settings import Settings
from position_sync_dagster.web.api import ask, known_parameters
from position_sync_dagster.web.served_figures import PageFigures


@dataclass(frozen=True)
class Tools:
    """The tools: each returns values for JSON; unknown is null, never zero.

    Raises:
        PositionSyncError: The tables cannot be read; from every tool.
    """

    settings: Settings
    lake: MoneyLake

    def _read(self) -> Figures:
        return read_figures(self.lake, self.settings, utc_now())

    def _ask(self, route: str, part: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return a part of what `/api/v1` answers."""
        answer = ask(PageFigures(self.settings), route, utc_now(), **parameters)
        return list(plain(answer[part]))

    def figures(self, at: str | None = None) -> dict[str, Any]:
        """Return accounts, strategies, underlyings, expiries, changes, limits and the gateway.

        The positions are left out: `positions` has them. `at` is a past time with its zone, such as
        2026-03-09T15:30Z: what was known then, with the ages of then; `not_kept` is not known.
        """
        figures = json.loads(ask(PageFigures(self.settings), "figures", utc_now(), at=at))
        return {name: value for name, value in figures.items() if name != "positions"}

    def positions(
        self, strategy: str | None = None, symbol: str | None = None, at: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the open positions, all or those of a strategy or an underlying.

        A strategy that is not active is an error, which names those that are. `at`: as in figures.
        """
        named = {"strategy": strategy, "underlying": symbol}
        return self._ask("positions", "positions", **named, at=at)

    def changes(self) -> list[dict[str, Any]]:
        """Return what happened today: trades, closes, outages and breaks, the newest first."""
        return list(plain(self._read().changes))

    def why(self, strategy: str | None = None, at: str | None = None) -> list[dict[str, Any]]:
        """Return why today's profit of each strategy is what it is: answers "why am I down today?".

        Each row has the profit of the day of what is open, and the parts that add up to it: delta,
        gamma, vega, theta, repricing, trades, assignments, unexplained. `largest` names the three
        largest legs of each part, `movements` the ids of what moved them, `closed_legs` what closed
        today, which is not in the profit. Null is not known, and `why_unknown` says why.
        """
        return self._ask("why", "rows", strategy=strategy, at=at)

    def what_if(
        self,
        trades: list[str] | None = None,
        close: list[str] | None = None,
        roll: dict[str, str] | None = None,
        spot: list[float] | None = None,
        at: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return value, profit and greeks of each strategy before and after trades; none is sent.

        A trade is text such as "-2 SPY 20281215 C 645 @62.70". `close` names strategies, `roll` has
        the new expiry of each strategy that is rolled, `spot` moves of the prices in percent.
        `against_mark` is what trades give or cost, and in the profit after; `realised` what closing
        brought, and in the payoffs after.
        """
        rolls = [f"{strategy}:{expiry}" for strategy, expiry in (roll or {}).items()]
        query = {"trade": trades or [], "close": close or [], "roll": rolls}
        return self._ask("what-if", "rows", **query, spot=spot or [*USUAL_MOVES], at=at)

    def results(
        self, by: str = Grouping.STRATEGY.value, since: str | None = None
    ) -> list[dict[str, Any]]:
        """Return what campaigns that are over brought, by group, each currency alone.

        `by` is kind, underlying, strategy, month or weekday; the last two are those of the close.
        `since` is the first day of a close, such as 2026-01-02. Profit is after fees.
        """
        return self._ask("results", "results", by=by, since=since)

    def returns(self, by: str = Period.ALL.value, since: str | None = None) -> list[dict[str, Any]]:
        """Return what each account returned, time-weighted and money-weighted (XIRR, for a year).

        `by` is all, year, month or day; `since` the first trading day. A part of one, with the
        extreme days. A day that is not known breaks the chain: `why_unknown` names it.
        """
        return self._ask("returns", "returns", by=by, since=since)

    def fills(
        self, by: str = FillGrouping.STRATEGY.value, since: str | None = None
    ) -> list[dict[str, Any]]:
        """Return what fills cost against the middle of the quote before them, with fees, by group.

        `by` is order, strategy, hour, underlying or month. Slippage, fees and cost are of the
        `known` fills of all `fills`: those with a quote; `why_unknown` says why others have none.
        """
        return self._ask("fills", "groups", by=by, since=since)

    def campaigns(
        self, strategy: str | None = None, since: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the campaigns that are over, with what each brought and how it ended.

        All, or those of a strategy; UNATTRIBUTED: of what was in none. `since` is the first day of
        a close.
        """
        return self._ask("campaigns", "campaigns", strategy=strategy, since=since)

    def as_of(self, time: str) -> dict[str, Any]:
        """Return strategies and positions as they were known at a time such as 2026-03-09T15:30Z.

        A time without a zone is UTC.
        """
        at = datetime.fromisoformat(time)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        book = book_at(self.lake, self.settings, Past(at=at), utc_now())
        known_then = {
            "at": at,
            "strategies": [*book.strategies, *book.rest],
            "positions": open_positions(book).select(COLUMNS).to_dicts(),
        }
        return dict(plain(known_then))


@app.command()
def mcp(home: options.HomeFolder = None) -> None:
    """Serve the figures to an assistant by the Model Context Protocol, over stdio, read only.

    It needs the extra `mcp`. An answer has at most some 4,000 characters, and the cursor of the
    rows that are left. The tools are figures, positions, changes, why, as_of, what_if,
    results, returns, fills and campaigns.
    """
    assistant_server(Tools(*options.opened(home))).run("stdio")


# Assistants refuse or cut what is much longer.
MOST_CHARACTERS = 4_000

INSTRUCTIONS = f"""\
The option positions of accounts at Interactive Brokers, read only: nothing is traded.
Null is unknown, never zero. Money is in the currency that is named beside it.
An answer has at most some {MOST_CHARACTERS:,} characters. `more` has the cursor of each list that
goes on: ask the same tool again with this `cursor`, and with the name of the list as `part` if the
tool has parts. `fields` names the fields of rows that you need: with fewer, more rows fit."""

# The fields of a position, if an assistant names none: whole ones have 900 characters each.
USUAL_FIELDS = (
    *("account", "name", "currency", "position", "market_value", "today", "unrealized"),
    *("age_s", "strategies"),
)

_CURSOR = Annotated[int, Field(ge=0, description="The cursor in `more` of the answer before.")]
_FIELDS = Annotated[
    list[str] | None,
    Field(description=f"Fields of the rows. Those of a position: {', '.join(COLUMNS)}."),
]
_PART = Annotated[str | None, Field(description="The list that is read on; null: all lists.")]


def page_of(
    answer: Mapping[str, Any], *, part: str | None, cursor: int, fields: Sequence[str] | None
) -> str:
    """Return an answer as JSON of some MOST_CHARACTERS: of each list the rows that fit.

    Args:
        answer: Lists of rows, and values, by their names.
        part: The only list that is wanted; None: all, and the values.
        cursor: How many rows of each list to leave out.
        fields: The fields of rows that are wanted; None: all, of positions the usual ones.

    Raises:
        UserError: There is no such list or field.
    """
    lists = {name: value for name, value in answer.items() if isinstance(value, list)}
    values = {name: value for name, value in answer.items() if name not in lists}
    if part is not None:
        if part not in lists:
            raise UserError(f"There is no part {shown(part)}.", remedy=nearest(part, lists))
        lists, values = {part: lists[part]}, {}

    texts: dict[str, list[str]] = {}
    for name, rows in lists.items():
        chosen = fields or (USUAL_FIELDS if name in ("positions", "closed_today") else None)
        texts[name] = [_text(_fields_of(row, chosen)) for row in rows[cursor:]]

    left = MOST_CHARACTERS - len(_text(values))
    fitting: dict[str, str] = {}
    more: dict[str, int] = {}
    shortest_first = sorted(texts, key=lambda name: sum(map(len, texts[name])))
    for place, name in enumerate(shortest_first):
        count = _fit(texts[name], left // (len(texts) - place), least=len(texts) == 1)
        fitting[name] = ",".join(texts[name][:count])
        left -= len(fitting[name])
        if count < len(texts[name]):
            more[name] = cursor + count

    parts = [f'"{name}":[{fitting[name]}]' for name in lists]
    members = [_text(values | {"more": more})[1:-1], *parts]
    return f"{{{','.join(members)}}}"


def _fit(texts: Sequence[str], characters: int, *, least: int) -> int:
    """Return how many texts fit into so many characters, but `least` where there are so many."""
    for count, text in enumerate(texts):
        characters -= len(text) + 1
        if characters < 0:
            return max(count, min(least, len(texts)))
    return len(texts)


def _fields_of(row: Any, fields: Sequence[str] | None) -> Any:
    if fields is None or not isinstance(row, dict):
        return row
    for name in fields:
        if name not in row:
            raise UserError(f"A row has no field {shown(name)}.", remedy=nearest(name, row))
    return {name: row[name] for name in fields}


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def served(tool: Callable[..., Any]) -> Callable[..., str]:
    """Return a tool that takes a cursor and fields too, and answers a page as text."""
    asked = signature(tool)
    has_parts = asked.return_annotation == dict[str, Any]

    def page(
        *,
        part: str | None = None,
        cursor: int = 0,
        fields: list[str] | None = None,
        **arguments: Any,
    ) -> str:
        answer = tool(**arguments)
        lists = answer if has_parts else {tool.__name__: answer}
        return page_of(lists, part=part, cursor=cursor, fields=fields)

    annotations: dict[str, Any] = {"part": _PART} if has_parts else {}
    annotations |= {"cursor": _CURSOR, "fields": _FIELDS}
    added = []
    for name, annotation in annotations.items():
        default = 0 if name == "cursor" else None
        keyword = Parameter.KEYWORD_ONLY
        added.append(Parameter(name, keyword, default=default, annotation=annotation))

    page.__name__, page.__doc__ = tool.__name__, tool.__doc__
    parameters = [*asked.parameters.values(), *added]
    page.__signature__ = asked.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=str
    )
    return page


def assistant_server(tools: Tools) -> Any:
    """Return the server of the tools: the class of mcp 2, or that of mcp 1.

    Raises:
        MissingExtraError: The extra `mcp` is not installed.
    """
    try:
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise MissingExtraError("mcp", "mcp") from error
    try:
        server_class = import_module("mcp.server.mcpserver").MCPServer
    except ImportError:
        server_class = import_module("mcp.server.fastmcp").FastMCP

    of_now = (tools.figures, tools.positions, tools.changes, tools.why)
    of_past = (tools.as_of, tools.results, tools.returns, tools.fills, tools.campaigns)
    pages = {tool.__name__: served(tool) for tool in (*of_now, *of_past, tools.what_if)}

    class Assistant(server_class):  # type: ignore[misc, valid-type]
        """The server; it refuses a parameter that a tool does not have."""

        async def call_tool(self, name: str, arguments: dict[str, Any], **more: Any) -> Any:
            if name in pages:
                known_parameters(arguments, signature(pages[name]).parameters)
            return await super().call_tool(name, arguments, **more)

    version = metadata.version("position-sync-dagster")
    names_version = "version" in signature(server_class).parameters
    options_of_class = {"version": version} if names_version else {}
    server = Assistant(
        "position-sync", instructions=INSTRUCTIONS, log_level="WARNING", **options_of_class
    )
    if not names_version:  # mcp 1 would say its own
        server._mcp_server.version = version
    for page in pages.values():
        read_only = ToolAnnotations(readOnlyHint=True)
        server.add_tool(page, annotations=read_only, structured_output=False)
    return server
