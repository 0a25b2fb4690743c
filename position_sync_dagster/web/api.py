"""The figures over HTTP, for other programs: `/api/v1`, read only.

The guard of the page stands before it, and no header allows pages of other origins.
"""

import csv
import hashlib
import io
import re
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse, Response

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.sync.reports.figures import VERSION, Figures
from position_sync_dagster.sync.reports.positions import COLUMNS, GREEKS
from position_sync_dagster.terminal.text import cell_text


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
    """Return the entity tag: the version of the ledger, and what else changes without a row.

    That is the other tables that were read, the day, the state of each login and of each limit.
    """
    status = figures.status
    parts = (
        figures.versions,
        (figures.at.date(), figures.day.since),
        [(one.gateway_id, one.session_state, one.session_detail) for one in status.each_login],
        (len(status.attention), len(figures.current_keys)),
        [(one.limit, one.outcome) for one in figures.limits],
    )
    others = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return f'"{figures.ledger_version or 0}-{others}"'


BODIES: dict[str, tuple[str, Callable[[Figures], str]]] = {
    "figures": ("application/json", Figures.to_json),
    "positions.csv": ("text/csv", positions_csv),
}
"""The type and the content of each answer."""


def answer(name: str, known: str, read: Callable[[], Figures]) -> Response:
    """Return the answer to a request; blocks.

    Args:
        name: What is asked for: a name of BODIES, or openapi.json.
        known: The entity tags that the client has (If-None-Match).
        read: Reads the figures.
    """
    if name == "openapi.json":
        return JSONResponse(openapi())
    if name not in BODIES:
        return JSONResponse({"error": "Not found", "remedy": "/api/v1/openapi.json"}, 404)
    kind, body = BODIES[name]
    try:
        figures = read()
        headers = {"ETag": etag_of(figures)}
        if headers["ETag"] in re.findall(r'"[^"]*"', known):
            return Response(status_code=304, headers=headers)
        if name.endswith(".csv"):
            headers["Content-Disposition"] = f'attachment; filename="{figures.at:%Y-%m-%d}-{name}"'
        return Response(body(figures), headers=headers, media_type=kind)
    except PositionSyncError as error:
        return JSONResponse({"error": error.what, "remedy": error.remedy}, 503)


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
