"""The command `mcp`: the figures for an assistant, by the Model Context Protocol."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import MissingExtraError, PositionSyncError, UserError, shown
from position_sync_dagster.money.reports.book import BOOK_COLUMNS
from position_sync_dagster.money.reports.known_names import nearest
from position_sync_dagster.money.reports.status import plain
from position_sync_dagster.settings import Settings
from position_sync_dagster.web.api import ROUTES, ask, known_parameters
from position_sync_dagster.web.served_figures import PageFigures


class Tool(NamedTuple):
    """A route of `/api/v1` as an assistant asks it.

    Attributes:
        route: Its name there; its parameters are those of the tool.
        part: The list that is told of its answer; None: all but the positions.
        text: What an assistant reads of it.
    """

    route: str
    part: str | None
    text: str


TOOLS = {
    "figures": Tool(
        "figures",
        None,
        """Return accounts, strategies, underlyings, expiries, changes, limits and the gateway.

        The positions are left out: `positions` has them. `at` is a past time with its zone, such as
        2026-03-09T15:30Z: what was known then, with the ages of then; `not_kept` is not known.
        """,
    ),
    "positions": Tool(
        "positions",
        "positions",
        """Return the open positions, all or those of a strategy or an underlying.

        A strategy that is not active is an error, which names those that are. `at`: as in figures.
        """,
    ),
    "changes": Tool(
        "changes",
        "changes",
        """Return what happened today: trades, closes and outages, the newest first.

        `legs` has the terms of each contract, and by how much its holding changed.
        """,
    ),
    "why": Tool(
        "why",
        "rows",
        """Return why today's profit of each strategy is what it is: answers "why am I down today?".

        Each row has the profit of the day of what is open, and the parts that add up to it: delta,
        gamma, vega, theta, repricing, trades, assignments, unexplained. `largest` names the three
        largest legs of each part, and `closed` is what closed today, which is not in the profit.
        Null is not known, and `why_unknown` says why.
        """,
    ),
    "what_if": Tool(
        "what-if",
        "rows",
        """Return value, profit and greeks of each strategy before and after trades; none is sent.

        A trade is text such as "-2 SPY 20281215 C 645 @62.70". `against_mark` is what trades give
        or cost, and in the profit after; `realised` what closing brought, and in the payoffs after.
        """,
    ),
    "results": Tool(
        "results",
        "results",
        """Return what campaigns that are over brought, by group, each currency alone.

        The month is that of the close. Profit is after fees. `in_base` has groups of several
        currencies in the base one, by the rates of the days of the closes.
        """,
    ),
    "returns": Tool(
        "returns",
        "returns",
        """Return what each account returned, time-weighted and money-weighted (XIRR, for a year).

        A part of one, with the extreme days. A day that is not known breaks the chain:
        `why_unknown` names it.
        """,
    ),
    "fills": Tool(
        "fills",
        "groups",
        """Return what fills cost against the middle of the quote before them, with fees, by group.

        Slippage, fees and cost are of the `known` fills of all `fills`: those with a quote;
        `why_unknown` says why others have none.
        """,
    ),
    "campaigns": Tool(
        "campaigns",
        "campaigns",
        "Return the campaigns that are over, with what each brought and how it ended.",
    ),
    "open_campaigns": Tool(
        "open-campaigns",
        "campaigns",
        """Return the open campaigns of strategies: what they brought so far, and how they stood.

        `cost_per_share` is what each share that is left cost, with all that the campaign brought.
        `stands` and `path` are what it had earned at the ends of days, until the day `until`.
        """,
    ),
}


def told(settings: Settings, name: str, **parameters: Any) -> dict[str, Any]:
    """Return what a tool says, for JSON: lists and values by their names; unknown is null.

    Raises:
        ValidationError: A parameter is not usable.
        PositionSyncError: There is no such name, or the tables cannot be read.
    """
    tool = TOOLS[name]
    answer = ask(PageFigures(settings), tool.route, utc_now(), **parameters)
    values = json.loads(answer) if isinstance(answer, str) else plain(answer)
    if tool.part is None:
        return {part: value for part, value in values.items() if part != "positions"}

    parts = {name: values[tool.part]}
    if values.get("in_base"):
        parts["in_base"] = values["in_base"]
    if values.get("not_current"):
        parts["not_current"] = "; ".join(values["not_current"])
    return parts


@app.command()
def mcp(home: options.HomeFolder = None) -> None:
    """Serve the figures to an assistant by the Model Context Protocol, over stdio, read only.

    It needs the extra `mcp`. An answer has at most some 4,000 characters, and the cursor of the
    rows that are left. The tools are figures, positions, changes, why, what_if, results, returns,
    fills, campaigns and open_campaigns.
    """
    assistant_server(options.opened(home)[0]).run("stdio")


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
    "account", "name", "currency", "position", "market_value", "today", "unrealized", "age_s",
    "strategies",
)  # fmt: skip


class Paging(BaseModel):
    """What a tool takes besides the parameters of its route, which pages by itself."""

    part: str | None = Field(None, description="The list that is read on; null: all lists.")
    cursor: int = Field(0, ge=0, description="The cursor in `more` of the answer before.")
    fields: list[str] | None = Field(
        None, description=f"Fields of the rows. Those of a position: {', '.join(BOOK_COLUMNS)}."
    )


def page_of(
    answer: Mapping[str, Any],
    *,
    part: str | None = None,
    cursor: int = 0,
    fields: Sequence[str] | None = None,
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
    lists = {}
    values = {}
    for name, value in answer.items():
        if isinstance(value, list):
            lists[name] = value
        else:
            values[name] = value
    if part is not None:
        if part not in lists:
            raise UserError(f"There is no part {shown(part)}.", remedy=nearest(part, lists))
        lists = {part: lists[part]}
        values = {}

    room = MOST_CHARACTERS - len(_text(values))
    least = 1 if len(lists) == 1 else 0  # a single list goes on by a row at least
    share = room // max(1, len(lists))
    more = {}
    members = []
    for name, rows in lists.items():
        chosen = fields or (USUAL_FIELDS if name in ("positions", "closed_today") else None)
        texts = [_text(_fields_of(row, chosen)) for row in rows[cursor:]]
        del texts[max(_fitting(texts, share), least) :]
        members.append(f'"{name}":[{",".join(texts)}]')

        end = cursor + len(texts)
        if end < len(rows):
            more[name] = end

    values["more"] = more
    members.insert(0, _text(values)[1:-1])
    return f"{{{','.join(members)}}}"


def _fitting(texts: Sequence[str], room: int) -> int:
    """Return how many texts have room, each with a comma."""
    for place, text in enumerate(texts):
        room -= len(text) + 1
        if room < 0:
            return place
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


def _parameters_of(tool: Tool) -> dict[str, Parameter]:
    """Return the parameters of a tool, by name: those of its route, and those of its pages."""
    fields = {**ROUTES[tool.route].query.model_fields, **Paging.model_fields}
    if tool.part is not None:
        del fields["part"]
    fields.pop("limit", None)

    parameters = {}
    for name, field in fields.items():
        described = Field(description=field.description)
        parameters[name] = Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[field.annotation, described, *field.metadata],
        )
    return parameters


@contextmanager
def refused_as(tool_error: type[Exception]) -> Iterator[None]:
    """Raise our errors as that of mcp: mcp 2 keeps the text of any other from an assistant."""
    try:
        yield
    except (PositionSyncError, ValidationError) as error:
        raise tool_error(str(error)) from error


def served(settings: Settings, name: str, tool_error: type[Exception]) -> Callable[..., str]:
    """Return a tool as a function, which answers a page as text."""

    def page(
        part: str | None = None,
        cursor: int = 0,
        fields: list[str] | None = None,
        **parameters: Any,
    ) -> str:
        with refused_as(tool_error):
            answer = told(settings, name, **parameters)
            return page_of(answer, part=part, cursor=cursor, fields=fields)

    tool = TOOLS[name]
    page.__name__ = name
    page.__doc__ = tool.text
    page.__signature__ = Signature(  # type: ignore[attr-defined]
        [*_parameters_of(tool).values()], return_annotation=str
    )
    return page


def assistant_server(settings: Settings) -> Any:
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
    tool_error = import_module("..exceptions", server_class.__module__).ToolError

    class Assistant(server_class):  # type: ignore[misc, valid-type]
        """The server; it refuses a parameter that a tool does not have."""

        async def call_tool(self, name: str, arguments: dict[str, Any], *context: Any) -> Any:
            if name in TOOLS:
                with refused_as(tool_error):
                    known_parameters(arguments, _parameters_of(TOOLS[name]))
            return await super().call_tool(name, arguments, *context)

    version = metadata.version("position-sync-dagster")
    names_version = "version" in signature(server_class).parameters
    server = Assistant(
        "position-sync",
        instructions=INSTRUCTIONS,
        log_level="WARNING",
        **({"version": version} if names_version else {}),
    )
    if not names_version:  # mcp 1 would say its own
        server._mcp_server.version = version
    for name in TOOLS:
        server.add_tool(
            served(settings, name, tool_error),
            annotations=ToolAnnotations(readOnlyHint=True),
            structured_output=False,
        )
    return server
