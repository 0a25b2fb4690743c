"""The command `mcp`: the figures as tools of an assistant, over stdio, read only."""

from datetime import UTC, datetime
from typing import Any

from position_sync_dagster.cli import options
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import MissingExtraError
from position_sync_dagster.lake.lake import Lake, Past
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.book import book_at
from position_sync_dagster.sync.reports.figures import FiguresReader, plain, sums_of
from position_sync_dagster.sync.reports.positions import COLUMNS, position_rows


class Tools:
    """The tools: each returns values for JSON; unknown is null, never zero.

    Raises:
        PositionSyncError: The tables cannot be read; from every tool.
    """

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self._settings = settings
        self._lake = lake
        self._reader = FiguresReader(lake, settings)

    def figures(self) -> dict[str, Any]:
        """Return accounts, strategies, underlyings, expiries, changes, limits and the gateway.

        The positions are left out: `positions` has them.
        """
        return self._reader.read(utc_now()).to_dict(positions=False)

    def positions(
        self, strategy: str | None = None, symbol: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the open positions, all or those of a strategy or an underlying."""
        rows = self._reader.read(utc_now()).positions.select(COLUMNS).to_dicts()
        return [
            dict(plain(row))
            for row in rows
            if (strategy is None or strategy in row["strategies"])
            and (symbol is None or row["symbol"].upper() == symbol.upper())
        ]

    def changes(self) -> list[dict[str, Any]]:
        """Return what happened today: trades, closes, outages and breaks, the newest first."""
        return list(plain(self._reader.read(utc_now()).changes))

    def as_of(self, time: str) -> dict[str, Any]:
        """Return strategies and positions as they were known at a time such as 2026-03-09T15:30Z.

        A time without a zone is UTC.
        """
        at = datetime.fromisoformat(time)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        book = book_at(self._lake, self._settings, Past(at=at), utc_now())
        money, held = book.money(), book.priced.filter(book.priced["position"] != 0)
        rows = (*money.strategies, *money.rest)
        found = {
            "at": at,
            "strategies": [sums_of(one, "strategy") for one in rows],
            "positions": position_rows(held, book).select(COLUMNS).to_dicts(),
        }
        return dict(plain(found))


def mcp(home: options.HomeFolder = None) -> None:
    """Serve the figures to an assistant by the Model Context Protocol, over stdio, read only.

    It needs the extra `mcp`. The tools are figures, positions, changes and as_of.
    """
    try:
        from mcp.server.fastmcp import FastMCP
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise MissingExtraError("mcp", "mcp") from error
    tools = Tools(*options.opened(home))
    server = FastMCP("position-sync", log_level="WARNING")
    for tool in (tools.figures, tools.positions, tools.changes, tools.as_of):
        server.add_tool(tool, annotations=ToolAnnotations(readOnlyHint=True))
    server.run("stdio")
