"""The pages: their frame and files, the feed of the money page, and the routes of pages and API.

`pages/` has the frame and the panels of each page, a heading and a place for content; the module of
`static/app` with the page's name draws them, from the feed or from `/api/v1`. Text reaches a page
as text: `html.escape` here, `textContent` in the browser.

Nobody can write: the tables that a viewer sorts and groups are in his own browser, and every route
is for GET alone.
"""

import asyncio
import gzip
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path
from string import Template

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.processes.home import Home
from position_sync_dagster.settings import load_settings
from position_sync_dagster.terminal.text import NAME, program_as_typed
from position_sync_dagster.web.api import answer, openapi, query_of, refusal
from position_sync_dagster.web.api_answers import FeedQuery
from position_sync_dagster.web.feed import PACE, Feed, FeedPace
from position_sync_dagster.web.metrics import MetricsPage
from position_sync_dagster.web.served_figures import PageFigures

PAGES = Path(__file__).parent / "pages"
STATIC = Path(__file__).parent / "static"
KINDS = {
    ".css": "text/css", ".js": "text/javascript", ".json": "application/json", ".txt": "text/plain",
}  # fmt: skip

# uPlot sets sizes in the page: styles are inline.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

REVALIDATED = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}


def page_html(path: str) -> str:
    """Return the page of a path, without figures: the module of `static/app` fills its panels."""
    name = path.rpartition("/")[2]
    main = (PAGES / f"{name}.html").read_text("utf-8")
    frame = (PAGES / "frame.html").read_text("utf-8")
    frame = frame.replace(f'<a href="{path}">', f'<a href="{path}" aria-current="page">')
    return Template(frame).substitute(
        title=name.capitalize(),
        module=f"{name}_page",
        program=escape(_program()),
        home=escape(_option_of_home()),
        main=main,
    )


def _program() -> str:
    """Return the program as a shell takes it in any folder: its path if it is not on the PATH."""
    beside = Path(sys.executable).with_name(NAME)
    return shlex.quote(program_as_typed(str(beside)) if beside.exists() else NAME)


def _option_of_home() -> str:
    """Return the option that names the home of this process; empty if it has none."""
    named = os.environ.get("DAGSTER_HOME")
    if named is None:
        return ""

    home = Home.at(Path(named).parent)
    if home.dagster_home != Path(named).absolute() or home.is_new:
        return ""
    return f" --home {shlex.quote(str(home.path))}"


@cache
def _packed_file(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), 6, mtime=0)


def packed_answer(
    request: Request, packed: bytes, kind: str, headers: Mapping[str, str]
) -> Response:
    """Return compressed content, unpacked for a client that does not take it so."""
    headers = {**HEADERS, **headers}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, 200, {**headers, "Content-Encoding": "gzip"}, kind)
    return Response(gzip.decompress(packed), 200, headers, kind)


def file_route(path: str, file: Path) -> Route:
    """Return the route of a file; Starlette calls it in a thread, so it blocks no other request."""

    def answer(request: Request) -> Response:
        return packed_answer(request, _packed_file(file), KINDS[file.suffix], REVALIDATED)

    return Route(path, answer, methods=["GET"])


def html_route(path: str) -> Route:
    """Return the route of a page, which is the same for every request."""
    packed = gzip.compress(page_html(path).encode(), 6, mtime=0)

    def answer(request: Request) -> Response:
        return packed_answer(request, packed, "text/html", REVALIDATED)

    return Route(path, answer, methods=["GET"])


def static_routes() -> Iterator[Route]:
    """Yield a route for each file of `static`."""
    for file in sorted(STATIC.rglob("*")):
        if file.suffix in KINDS:
            yield file_route(f"/money/{file.relative_to(STATIC).as_posix()}", file)


def money_routes(
    *,
    dagster: bool = True,
    open_figures: Callable[[], PageFigures] = lambda: PageFigures(load_settings()),
    pace: FeedPace = PACE,
) -> list[BaseRoute]:
    """Return the routes of the pages and of the API; the caller puts the guard before them.

    Args:
        dagster: Whether Dagster's pages are on the same port, so that rows can link to their runs.
        open_figures: Opens what the feed reads.
        pace: How often it reads.
    """
    opened = cache(open_figures)
    return [
        *map(html_route, ("/money", "/money/risk", "/money/results")),
        *static_routes(),
        _feed_route(Feed(opened, {"dagster": dagster}, pace)),
        *_api_routes(opened),
        _metrics_route(opened),
    ]


def _milliseconds_now() -> str:
    """Return the time that the ages in an answer count to, however old its figures are."""
    return str(round(utc_now().timestamp() * 1000))


def _feed_route(feed: Feed) -> Route:
    async def data(request: Request) -> Response:
        try:
            query = query_of(FeedQuery, dict(request.query_params))
            packed = None
            if query.at is not None:
                packed = await asyncio.to_thread(feed.played_back, query.at, curves=query.curves)
        except (PositionSyncError, ValidationError) as error:
            refused = refusal(error)
            refused.headers.update(HEADERS)
            return refused

        if query.at is None:
            packed = await feed.after(query.after)
        headers = {"Server-Time": _milliseconds_now(), "Cache-Control": "no-store"}
        if packed is None:
            return Response(status_code=204, headers={**HEADERS, **headers})
        return packed_answer(request, packed, "application/json", headers)

    return Route("/money/data", data, methods=["GET"])


# Starlette calls an endpoint that is no coroutine in a thread: it blocks no other request.
def _api_routes(opened: Callable[[], PageFigures]) -> list[Route]:
    def api(request: Request) -> Response:
        known_tags = request.headers.get("if-none-match", "")
        name = request.path_params["name"]
        response = answer(name, request.query_params, known_tags, opened(), utc_now())
        response.headers.update({**HEADERS, "Cache-Control": "no-cache"})
        response.headers["Server-Time"] = _milliseconds_now()
        return response

    def description(request: Request) -> Response:
        return JSONResponse(openapi(), headers={**HEADERS, "Cache-Control": "no-cache"})

    return [
        Route("/api/v1/openapi.json", description, methods=["GET"]),
        Route("/api/v1/{name}", api, methods=["GET"]),
    ]


def _metrics_route(opened: Callable[[], PageFigures]) -> Route:
    @cache
    def metrics_page() -> MetricsPage:
        return MetricsPage(opened().figures, opened().lake.updates.sync)

    def metrics(request: Request) -> Response:
        response = metrics_page().answer(request.headers.get("accept", ""), utc_now())
        response.headers.update({**HEADERS, "Cache-Control": "no-store"})
        return response

    return Route("/metrics", metrics, methods=["GET"])
