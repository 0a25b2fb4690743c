"""The money page at `/money`: its routes, and the feed that all viewers share.

The browser asks for what came since its last answer; the server answers when there is something.
No connection stays open: a viewer who stops reading asks no more, and the server keeps nothing for
him. Every viewer gets the same bytes, made once. Nobody can write: the tables that a viewer sorts
and groups are in his own browser, and every route is for GET alone.

Perspective's files come from the wheel of `perspective-python`. Its engine runs in the browser, and
is not imported here. What reads the lake is imported when somebody first opens the page.
"""

import asyncio
import gzip
import json
import logging
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from importlib import metadata, util
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import (
    MissingExtraError,
    PositionSyncError,
    UnknownStrategyError,
)

logger = logging.getLogger(__name__)

PERIOD_S = 1.0
# The figures are read once per `PERIOD_S`; less often if that takes over `SHARE` of a core.
SHARE = 0.08

# An answer waits at most this long; the reading ends when nobody has asked for twice this time.
WAIT_S = 10.0

STATIC = Path(__file__).parent / "static"
KINDS = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json",
}  # fmt: skip
FOR_EVER = "public, max-age=31536000, immutable"
# Perspective sets the widths of columns in the page: its styles are inline.
POLICY = (
    "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class FiguresSource(Protocol):
    """What the feed reads: `PageFigures`."""

    def read(self, now: datetime) -> tuple[dict[str, list[Any]], dict[str, Any]]:
        """Return the parts of the holdings by their key, and all other figures; blocks."""

    def figures(self, now: datetime) -> Any:
        """Return the figures as the API serves them; blocks."""

    def risk(self, now: datetime) -> Any:
        """Return the book and its legs as the option model has them; blocks."""

    def compared(self, changes: Any, now: datetime) -> Any:
        """Return that book before and after trades; blocks."""

    def explained(self, now: datetime) -> Any:
        """Return why today's profit is what it is, at most a minute old; blocks."""


@dataclass(frozen=True)
class State:
    """The figures after one read: all of them, and what differs from the read before."""

    sequence: int
    rows: Mapping[str, list[Any]]
    figures: Mapping[str, Any]
    changed: bytes

    @cached_property
    def whole(self) -> bytes:
        """All figures, for a viewer who has none or an old state."""
        return _packed(self.sequence, [*self.rows.values()], self.figures, all=True)


def next_state(
    before: State | None, sequence: int, rows: dict[str, list[Any]], figures: dict[str, Any]
) -> State:
    """Return the state after a read, with what differs from the state before."""
    known, shown = (before.rows, before.figures) if before else ({}, {})
    changed = _packed(
        sequence,
        [row for key, row in rows.items() if known.get(key) != row],
        {name: one for name, one in figures.items() if name not in shown or shown[name] != one},
        gone=[key for key in known if key not in rows],
    )
    return State(sequence, rows, figures, changed)


def _packed(sequence: int, rows: list[list[Any]], figures: Mapping[str, Any], **more: Any) -> bytes:
    message = {"sequence": sequence, "rows": rows, "figures": figures, **more}
    text = json.dumps(message, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode(), 1, mtime=0)


class Feed:
    """Reads the figures while somebody looks, in a thread, and keeps the newest state.

    Args:
        open_figures: Returns what is read, the same each time.
        more: Figures that stay as they are.
    """

    def __init__(self, open_figures: Callable[[], FiguresSource], more: Mapping[str, Any]) -> None:
        self._open = open_figures
        self._more = more
        self._state: State | None = None
        self._asked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._newer = asyncio.Event()

    async def after(self, sequence: int) -> bytes | None:
        """Return what came after a state, compressed; None if nothing came for WAIT_S."""
        self._asked_at = time.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._read_on())
        state = self._state
        if state is None or state.sequence == sequence:
            try:
                await asyncio.wait_for(self._newer.wait(), WAIT_S)
            except TimeoutError:
                return None
            state = self._state
        if state is None:
            return None
        return state.changed if state.sequence == sequence + 1 else state.whole

    async def _read_on(self) -> None:
        while time.monotonic() - self._asked_at < 2 * WAIT_S:
            began = time.monotonic()
            self._state, worked_s = await asyncio.to_thread(self._read, self._state)
            newer, self._newer = self._newer, asyncio.Event()
            newer.set()
            await asyncio.sleep(began + max(PERIOD_S, worked_s / SHARE) - time.monotonic())
        self._state = None  # an old state is not shown as new later

    def _read(self, before: State | None) -> tuple[State, float]:
        """Return the next state, and the processor time that it took in this thread."""
        began, trouble = time.thread_time(), None
        # The time makes the numbers of two starts of the server differ.
        sequence = before.sequence + 1 if before else round(time.time() * 1000)
        try:
            rows, figures = self._open().read(utc_now())
            figures |= self._more
        except Exception as error:  # the values from before must not look like present ones
            trouble = str(error)
            if not isinstance(error, PositionSyncError):
                logger.exception("The money page could not be read.")
                trouble = f"The tables cannot be read: {type(error).__name__}, {error}."
            rows, figures = (dict(before.rows), dict(before.figures)) if before else ({}, {})
        state = next_state(before, sequence, rows, figures | {"trouble": trouble})
        return state, time.thread_time() - began


def _open_figures() -> FiguresSource:
    """Import what reads the lake, and open the lake of the settings."""
    from position_sync_dagster.settings import load_settings
    from position_sync_dagster.web.served_figures import PageFigures

    return PageFigures(load_settings())


@cache
def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".html":
        content = content.replace(b"{perspective}", metadata.version("perspective-python").encode())
    return gzip.compress(content, 6, mtime=0)


def _answer(request: Request, packed: bytes, kind: str, headers: Mapping[str, str]) -> Response:
    """Return compressed content, unpacked for a client that does not take it so."""
    takes_it = "gzip" in request.headers.get("accept-encoding", "")
    return Response(
        packed if takes_it else gzip.decompress(packed),
        headers={**HEADERS, **headers, **({"Content-Encoding": "gzip"} if takes_it else {})},
        media_type=kind,
    )


def _perspective() -> Path | None:
    """Return the folder of Perspective's files; None: it is not installed. Its engine stays out."""
    found = util.find_spec("perspective")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "widget" / "static"


def money_routes(
    *,
    dagster: bool = True,
    home: str | None = None,
    open_figures: Callable[[], FiguresSource] = _open_figures,
) -> list[BaseRoute]:
    """Return the routes of the page; the caller puts the guard before them.

    Args:
        dagster: Whether Dagster's pages are on the same port, so that rows can link to their runs.
        home: The folder that commands need as --home; None: none.
        open_figures: Opens what the feed reads.
    """
    opened = cache(open_figures)
    feed = Feed(opened, {"dagster": dagster, "home": home and shlex.quote(home)})

    # Starlette calls an endpoint that is no coroutine in a thread: it blocks no other request.
    def static(path: str, found: Path, cached: str = "no-cache") -> Route:
        def answer(request: Request) -> Response:
            headers = {"Cache-Control": cached, "Vary": "Accept-Encoding"}
            return _answer(request, _content(found), KINDS[found.suffix], headers)

        return Route(path, answer, methods=["GET"])

    async def data(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not after.isdecimal() or len(after) > 16:
            return PlainTextResponse("`after` is no number of a state.", 400, HEADERS)
        found = await feed.after(int(after))
        # The ages that a viewer sees count to this moment, however old the state is.
        at = str(round(utc_now().timestamp() * 1000))
        headers = {"Server-Time": at, "Cache-Control": "no-store"}
        if found is None:
            return Response(status_code=204, headers={**HEADERS, **headers})
        return _answer(request, found, "application/json", headers)

    def api(request: Request) -> Response:
        from position_sync_dagster.web.api import ApiSource, answer

        source = ApiSource(
            figures=lambda: opened().figures(utc_now()),
            risk=lambda: opened().risk(utc_now()),
            compared=lambda changes: opened().compared(changes, utc_now()),
            explained=lambda: opened().explained(utc_now()),
        )
        known_tags = request.headers.get("if-none-match", "")
        response = answer(request.path_params["name"], request.query_params, known_tags, source)
        at = str(round(utc_now().timestamp() * 1000))
        response.headers.update({**HEADERS, "Cache-Control": "no-cache", "Server-Time": at})
        return response

    @cache
    def metrics_page() -> Any:
        from position_sync_dagster.lake.lake import Lake
        from position_sync_dagster.settings import load_settings
        from position_sync_dagster.web.metrics import MetricsPage

        updates = Lake.of(load_settings()).updates.sync
        return MetricsPage(lambda: opened().figures(utc_now()), updates)

    def metrics(request: Request) -> Response:
        response: Response = metrics_page().answer(request.headers.get("accept", ""))
        response.headers.update({**HEADERS, "Cache-Control": "no-store"})
        return response

    def description(request: Request) -> Response:
        from position_sync_dagster.web.api import openapi

        return JSONResponse(openapi(), headers={**HEADERS, "Cache-Control": "no-cache"})

    def risk(request: Request) -> Response:
        from position_sync_dagster.lake.lake import Lake
        from position_sync_dagster.settings import load_settings
        from position_sync_dagster.web.risk_page import risk_html

        settings = load_settings()
        try:
            strategy = request.query_params.get("strategy")
            trade = request.query_params.get("trade")
            text = risk_html(Lake.of(settings), settings, utc_now(), strategy, trade)
        except UnknownStrategyError as error:
            return PlainTextResponse(str(error), 404, HEADERS)
        except PositionSyncError as error:
            return PlainTextResponse(str(error), 503, HEADERS)
        # The form of this page asks for it again, with a trade.
        policy = POLICY.replace("form-action 'none'", "form-action 'self'")
        headers = {**HEADERS, "Content-Security-Policy": policy, "Cache-Control": "no-store"}
        return Response(text, headers=headers, media_type="text/html")

    def missing(_: Request) -> Response:
        why = MissingExtraError("perspective-python", "money")
        return PlainTextResponse(str(why), 503, HEADERS)

    always = [
        Route("/money/risk", risk, methods=["GET"]),
        static("/money/money.css", STATIC / "money.css"),
        static("/money/header.js", STATIC / "header.js"),
        static("/money/risk.js", STATIC / "risk.js"),
        Route("/api/v1/openapi.json", description, methods=["GET"]),
        Route("/api/v1/{name}", api, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
    vendor = _perspective()
    if vendor is None:
        return [Route("/money", missing, methods=["GET"]), *always]
    folder = f"/money/{metadata.version('perspective-python')}"
    return [
        static("/money", STATIC / "money.html"),
        static("/money/money.js", STATIC / "money.js"),
        static(f"{folder}/perspective.js", vendor / "perspective-anywidget.js", FOR_EVER),
        static(f"{folder}/perspective.css", vendor / "perspective-anywidget.css", FOR_EVER),
        Route("/money/data", data, methods=["GET"]),
        *always,
    ]
