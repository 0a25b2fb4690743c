"""The figures over HTTP, for other programs: `/api/v1`, read only.

The guard of the page stands before it, and no header allows pages of other origins.
"""

import asyncio
import csv
import hashlib
import io
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.sync.reports.figures import COLUMNS, GREEKS, VERSION, Figures
from position_sync_dagster.terminal.text import cell_text

FRESH_S = 1.0
"""Requests within this time get the same figures: the tables are read once for all of them."""

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


class Reader(Protocol):
    """What reads the figures: `FiguresReader`."""

    def read(self, now: datetime) -> Figures:
        """Return the figures of now; blocks."""


class Source:
    """Reads the figures for all requests, one read at a time."""

    def __init__(self, open_reader: Callable[[], Reader]) -> None:
        self._open = open_reader
        self._reader: Reader | None = None
        self._lock = asyncio.Lock()
        self._found: tuple[float, Figures] | None = None

    async def figures(self) -> Figures:
        """Return figures that are at most FRESH_S old.

        Raises:
            PositionSyncError: The tables cannot be read.
        """
        async with self._lock:
            if self._found is None or time.monotonic() - self._found[0] > FRESH_S:
                self._found = None
                self._found = (time.monotonic(), await asyncio.to_thread(self._read))
            return self._found[1]

    def _read(self) -> Figures:
        if self._reader is None:
            self._reader = self._open()
        return self._reader.read(utc_now())


def positions_csv(figures: Figures) -> str:
    """Return the open positions as CSV; unknown cells are empty, texts begin no formula."""
    names = [name for name in COLUMNS if name != "greeks"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*names, *GREEKS])
    rows = figures.positions.select(*names, "greeks").iter_rows(named=True)
    for row in rows:
        table.writerow(
            [*map(cell_text, (row[n] for n in names)), *map(cell_text, row["greeks"].values())]
        )
    return text.getvalue()


def etag_of(figures: Figures) -> str:
    """Return the entity tag: the version of the ledger, and of the other tables that were read."""
    others = hashlib.sha256(repr(figures.versions).encode()).hexdigest()[:12]
    return f'"{figures.ledger_version or 0}-{others}"'


def api_routes(source: Source) -> list[BaseRoute]:
    """Return the routes; the caller puts the guard before them."""

    def route(path: str, kind: str, body: Callable[[Figures], str]) -> Route:
        async def answer(request: Request) -> Response:
            try:
                figures = await source.figures()
                etag = etag_of(figures)
                known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
                headers = {**HEADERS, "ETag": etag}
                if etag in known or f"W/{etag}" in known:
                    return Response(status_code=304, headers=headers)
                text = await asyncio.to_thread(body, figures)
            except PositionSyncError as error:
                trouble = {"error": error.what, "remedy": error.remedy}
                return JSONResponse(trouble, 503, headers=HEADERS)
            return Response(text, headers=headers, media_type=kind)

        return Route(path, answer, methods=["GET"])

    async def described(_request: Request) -> Response:
        return JSONResponse(openapi(), headers=HEADERS)

    return [
        route("/api/v1/figures", "application/json", Figures.to_json),
        route("/api/v1/positions.csv", "text/csv", positions_csv),
        Route("/api/v1/openapi.json", described, methods=["GET"]),
    ]


def openapi() -> dict[str, Any]:
    """Return the OpenAPI description of the routes."""
    number, text = {"type": ["number", "null"]}, {"type": ["string", "null"]}
    texts = {"name", "symbol", "account", "currency", "right", "sec_type", "price_kind", "expiry"}
    texts |= {"greeks_source", "feed", "source"}
    columns: dict[str, Any] = {name: text if name in texts else number for name in COLUMNS}
    columns |= {
        "greeks": {"type": "object", "properties": dict.fromkeys(GREEKS, number)},
        "current": {"type": "boolean"},
        "strategies": {"type": "array", "items": {"type": "string"}},
        "shares": {"type": "array", "items": {"type": "number"}},
    }
    listed = {"type": "array", "items": {"type": "object"}}
    position = {"type": "array", "items": {"type": "object", "properties": columns}}
    names = ("accounts", "strategies", "underlyings", "expiries", "totals", "changes", "limits")
    figures = {
        "type": "object",
        "properties": {
            "version": {"const": VERSION},
            "at": {"type": "string", "format": "date-time"},
            "ledger_version": {"type": ["integer", "null"]},
            "gateway": {"type": "object"},
            **dict.fromkeys(names, listed),
            "positions": position,
            "closed_today": position,
        },
    }

    def get(summary: str, kind: str, schema: Any) -> dict[str, Any]:
        ok = {"description": summary, "content": {kind: {"schema": schema}}}
        same = {"description": "Nothing has changed since the entity tag in If-None-Match."}
        away = {"description": "The tables cannot be read: `error` and `remedy`."}
        return {"get": {"summary": summary, "responses": {"200": ok, "304": same, "503": away}}}

    return {
        "openapi": "3.1.0",
        "info": {"title": "Position Sync", "version": str(VERSION)},
        "paths": {
            "/api/v1/figures": get("All figures", "application/json", figures),
            "/api/v1/positions.csv": get("Open positions", "text/csv", {"type": "string"}),
        },
    }
