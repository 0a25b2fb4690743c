"""The pages: their frame and files, the feed of the money page, and the routes of pages and API.

The browser asks for what came since its last answer; the server answers when there is something.
No connection stays open: a viewer who stops reading asks no more, and the server keeps nothing for
him. Every viewer gets the same bytes, made once.

`pages/` has the frame and the panels of each page, a heading and a place for content; the module of
`static/app` with the page's name draws them, from the feed or from `/api/v1`. Text reaches a page
as text: `html.escape` here, `textContent` in the browser.

Nobody can write: the tables that a viewer sorts and groups are in his own browser, and every route
is for GET alone.
"""

import asyncio
import gzip
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property, partial
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from anyio import CapacityLimiter, to_thread
from polars import DataFrame
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.processes.home import Home
from position_sync_dagster.settings import load_settings
from position_sync_dagster.terminal.text import PROGRAM_NAME, program_as_typed
from position_sync_dagster.web.api import Question, answer, openapi, query_of, refusal
from position_sync_dagster.web.api_answers import FeedQuery
from position_sync_dagster.web.metrics import MetricsPage
from position_sync_dagster.web.served_figures import PageFigures
from position_sync_dagster.web.turns import BusyError, Turns

logger = logging.getLogger(__name__)

PAGES_FOLDER = Path(__file__).parent / "pages"
STATIC = Path(__file__).parent / "static"
CONTENT_TYPES = {
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
    main = (PAGES_FOLDER / f"{name}.html").read_text("utf-8")
    frame = (PAGES_FOLDER / "frame.html").read_text("utf-8")
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
    beside = Path(sys.executable).with_name(PROGRAM_NAME)
    return shlex.quote(program_as_typed(str(beside)) if beside.exists() else PROGRAM_NAME)


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
        return packed_answer(request, _packed_file(file), CONTENT_TYPES[file.suffix], REVALIDATED)

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
        if file.suffix in CONTENT_TYPES:
            yield file_route(f"/money/{file.relative_to(STATIC).as_posix()}", file)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPace:
    """How often the figures are read.

    Attributes:
        period_s: They are read once per period; less often if that takes this thread over `share`
            of a core. The threads of Polars, which cannot be told apart, take up to half as much
            again.
        longest_s: Those of a large book are read at least so often: after 15 s the page calls them
            from before.
        wait_s: An answer waits at most this long; the reading ends when nobody has asked for twice
            this time.
    """

    period_s: float = 2.0
    share: float = 0.03
    longest_s: float = 10.0
    wait_s: float = 10.0


FEED_PACE = FeedPace()

# How many questions of a kind are answered at once, and how many large ones wait: a page of risk
# asks six. Python computes on one core: a second one takes from the header, and brings nothing.
LARGE_AT_ONCE, MOST_LARGE_WAITING = 1, 16
SMALL_AT_ONCE = 2


@dataclass(frozen=True)
class State:
    """The figures after one read: all of them, and what differs from the read before, if any."""

    sequence: int
    rows: DataFrame
    figures: Mapping[str, Any]
    changed: bytes | None

    @cached_property
    def whole(self) -> bytes:
        """All figures, for a viewer who has none or an old state."""
        return _packed(self.sequence, self.rows, self.figures, all=True)


def next_state(
    before: State | None, sequence: int, rows: DataFrame, figures: dict[str, Any]
) -> State:
    """Return the state after a read, with what differs from the state before."""
    # Without a read that succeeded there are no parts, nor kinds of columns.
    if before is None or not rows.columns or before.rows.schema != rows.schema:
        return State(sequence, rows, figures, changed=None)

    changed_rows = rows.join(
        before.rows, on=rows.columns, how="anti", nulls_equal=True, maintain_order="left"
    )
    gone = before.rows.join(rows, on="key", how="anti", maintain_order="left")["key"].to_list()
    changed_figures = {
        name: value for name, value in figures.items() if before.figures.get(name) != value
    }
    return State(
        sequence, rows, figures, _packed(sequence, changed_rows, changed_figures, gone=gone)
    )


# Writes plain values in a fifth of the time that `json` takes.
_JSON = TypeAdapter[Any](Any)


def _packed(sequence: int, rows: DataFrame, figures: Mapping[str, Any], **more: Any) -> bytes:
    message = {"sequence": sequence, "rows": rows.rows(), "figures": figures, **more}
    try:
        text = _JSON.dump_json(message)
    except ValueError:  # a name that is no UTF-8, as of a file
        text = json.dumps(message).encode()
    return gzip.compress(text, 1, mtime=0)


class Feed:
    """Reads the figures while somebody looks, in a thread, and keeps the newest state.

    Args:
        open_figures: Returns what is read, the same each time.
        more: Figures that stay as they are.
        pace: How often they are read.
    """

    def __init__(
        self,
        open_figures: Callable[[], PageFigures],
        more: Mapping[str, Any],
        pace: FeedPace = FEED_PACE,
    ) -> None:
        self._open = open_figures
        self._more = more
        self._pace = pace
        self._thread = CapacityLimiter(1)
        self._state: State | None = None
        self._asked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._newer = asyncio.Event()

    async def after(self, sequence: int) -> bytes | None:
        """Return what came after a state, compressed; None if nothing came in time."""
        self._asked_at = time.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._read_on())

        state = self._state
        if state is None or state.sequence == sequence:
            try:
                async with asyncio.timeout(self._pace.wait_s):
                    await self._newer.wait()
            except TimeoutError:
                return None
            state = self._state

        if state is None:
            return None
        if state.changed is not None and state.sequence == sequence + 1:
            return state.changed
        return state.whole

    def played_back(self, at: datetime, *, curves: bool) -> bytes:
        """Return all figures of a past moment, compressed; blocks.

        Args:
            curves: Whether the curves of the day until then are among them.

        Raises:
            PositionSyncError: They cannot be read.
        """
        now = utc_now()
        of_moment = self._open().played_back(at, now)
        rows, figures = of_moment.read(now)
        if curves:
            figures |= of_moment.curves(now)
        return State(0, rows, {**figures, **self._more, "trouble": None}, changed=None).whole

    async def _read_on(self) -> None:
        pace = self._pace
        while time.monotonic() - self._asked_at < 2 * pace.wait_s:
            began = time.monotonic()
            state, worked_s = await to_thread.run_sync(
                self._read, self._state, limiter=self._thread
            )
            self._state = state

            newer = self._newer
            self._newer = asyncio.Event()
            newer.set()
            # What is computed beside the first read is shown as soon as it is there.
            is_full = state.figures.get("decisions") is not None
            period_s = pace.period_s
            if is_full:
                period_s = min(max(period_s, worked_s / pace.share), pace.longest_s)
            await asyncio.sleep(began + period_s - time.monotonic())
        self._state = None  # an old state is not shown as new later

    def _read(self, before: State | None) -> tuple[State, float]:
        """Return the next state, and the processor time that it took in this thread."""
        began = time.thread_time()
        trouble = None
        # The time makes the numbers of two starts of the server differ.
        sequence = round(time.time() * 1000)
        if before:
            sequence = before.sequence + 1

        try:
            rows, figures = self._open().read(utc_now())
            figures |= self._more
        except Exception as error:  # the values from before must not look like present ones
            trouble = str(error)
            if not isinstance(error, PositionSyncError):
                logger.exception("The money page could not be read.")
                trouble = f"The tables cannot be read: {type(error).__name__}, {error}."
            rows = before.rows if before else DataFrame()
            figures = dict(before.figures) if before else {}

        state = next_state(before, sequence, rows, figures | {"trouble": trouble})
        return state, time.thread_time() - began


def money_routes(
    *,
    dagster: bool = True,
    open_figures: Callable[[], PageFigures] = lambda: PageFigures(load_settings()),
    pace: FeedPace = FEED_PACE,
) -> list[BaseRoute]:
    """Return the routes of the pages and of the API; the caller puts the guard before them.

    Args:
        dagster: Whether Dagster's pages are on the same port, so that rows can link to their runs.
        open_figures: Opens what the feed reads.
        pace: How often it reads.
    """
    opened = cache(open_figures)
    turns = _AllTurns()
    return [
        *map(html_route, ("/money", "/money/risk", "/money/results")),
        *static_routes(),
        _feed_route(Feed(opened, {"dagster": dagster}, pace), turns),
        *_api_routes(opened, turns),
        _metrics_route(opened),
    ]


class _AllTurns:
    """Whose turn it is to be answered; the feed has a thread besides."""

    def __init__(self) -> None:
        self.header = Turns(1)
        self.small = Turns(SMALL_AT_ONCE)
        self.large = Turns(LARGE_AT_ONCE, most_waiting=MOST_LARGE_WAITING)


def _milliseconds_now() -> str:
    """Return the time that the ages in an answer count to, however old its figures are."""
    return str(round(utc_now().timestamp() * 1000))


def _feed_route(feed: Feed, turns: _AllTurns) -> Route:
    async def data(request: Request) -> Response:
        try:
            query = query_of(FeedQuery, dict(request.query_params))
            packed = None
            if query.at is not None:
                played_back = partial(feed.played_back, query.at, curves=query.curves)
                packed = await turns.large.take(request, played_back)
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


def _api_routes(opened: Callable[[], PageFigures], turns: _AllTurns) -> list[Route]:
    async def api(request: Request) -> Response:
        known_tags = request.headers.get("if-none-match", "")
        name = request.path_params["name"]
        turn = turns.header if name == "header" else turns.small

        def asked() -> Response | Question:
            return answer(name, request.query_params, known_tags, opened(), utc_now())

        try:
            response = await turn.take(request, asked)
            if isinstance(response, Question):
                large = partial(response.response, known_tags)
                response = await turns.large.take(request, large)
        except BusyError as error:
            response = refusal(error)
        response.headers.update({**HEADERS, "Cache-Control": "no-cache"})
        response.headers["Server-Time"] = _milliseconds_now()
        return response

    # Starlette calls an endpoint that is no coroutine in a thread: it blocks no other request.
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
