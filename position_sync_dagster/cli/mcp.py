"""The command `mcp`: the figures for an assistant, by the Model Context Protocol."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from inspect import signature
from typing import Any

from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import MissingExtraError
from position_sync_dagster.lake.lake import Lake, Past
from position_sync_dagster.money.campaigns.results import (
    Grouping,
)
from position_sync_dagster.money.profit.returns import Period
from position_sync_dagster.money.reports.book import (
    COLUMNS,
    book_at,
    open_positions,
)
from position_sync_dagster.money.reports.figures import Figures, read_figures
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
    lake: Lake

    def _read(self) -> Figures:
        return read_figures(self.lake, self.settings, utc_now())

    def _ask(self, route: str, part: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return a part of what `/api/v1` answers."""
        answer = ask(PageFigures(self.settings), route, utc_now(), **parameters)
        return list(plain(answer[part]))

    def figures(self) -> dict[str, Any]:
        """Return accounts, strategies, underlyings, expiries, changes, limits and the gateway.

        The positions are left out: `positions` has them.
        """
        return self._read().to_dict()

    def positions(
        self, strategy: str | None = None, symbol: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the open positions, all or those of a strategy or an underlying.

        A strategy that is not active is an error, which names those that are.
        """
        return self._ask("positions", "positions", strategy=strategy, underlying=symbol)

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
        return self._ask("why", "rows", strategy=strategy)

    def what_if(
        self,
        trades: list[str] | None = None,
        close: list[str] | None = None,
        roll: dict[str, str] | None = None,
        spot: list[float] | None = None,
    ) -> list[dict[str, Any]]:
        """Return value, profit and greeks of each strategy before and after trades; none is sent.

        A trade is text such as "-2 SPY 20281215 C 645 @62.70". `close` names strategies, `roll` has
        the new expiry of each strategy that is rolled, `spot` moves of the prices in percent.
        `against_mark` is what trades give or cost, and in the profit after; `realised` what closing
        brought, and in the payoffs after.
        """
        rolls = [f"{strategy}:{expiry}" for strategy, expiry in (roll or {}).items()]
        query = {"trade": trades or [], "close": close or [], "roll": rolls}
        return self._ask("what-if", "rows", **query, spot=spot or [*USUAL_MOVES])

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

    It needs the extra `mcp`. The tools are figures, positions, changes, why, as_of, what_if,
    results, returns and campaigns.
    """
    assistant_server(Tools(*options.opened(home))).run("stdio")


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

    class Assistant(server_class):  # type: ignore[misc, valid-type]
        """The server; it refuses a parameter that a tool does not have."""

        async def call_tool(self, name: str, arguments: dict[str, Any], **more: Any) -> Any:
            tool = getattr(tools, name, None)
            if tool is not None:
                known_parameters(arguments, signature(tool).parameters)
            return await super().call_tool(name, arguments, **more)

    server = Assistant("position-sync", log_level="WARNING")
    of_now = (tools.figures, tools.positions, tools.changes, tools.why)
    of_past = (tools.as_of, tools.results, tools.returns, tools.campaigns)
    for tool in (*of_now, *of_past, tools.what_if):
        server.add_tool(tool, annotations=ToolAnnotations(readOnlyHint=True))
    return server
