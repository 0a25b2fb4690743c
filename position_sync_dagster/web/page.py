"""The frame of every page: header, navigation, search, notices; and the files that a page loads.

`pages/` has the frame and the panels of each page, a heading and a place for content; the module of
`static/app` with the page's name draws them, from the feed or from `/api/v1`. Text reaches a page
as text: `html.escape` here, `textContent` in the browser.
"""

import gzip
import os
import shlex
import sys
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from position_sync_dagster.processes.home import Home
from position_sync_dagster.terminal.text import NAME, program_as_typed

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
    frame = (PAGES / "frame.html").read_text("utf-8")
    current = frame.replace(f'<a href="{path}">', f'<a href="{path}" aria-current="page">')
    main = (PAGES / f"{name}.html").read_text("utf-8")
    return Template(current).substitute(
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
    is_home = home.dagster_home == Path(named).absolute() and not home.is_new
    return f" --home {shlex.quote(str(home.path))}" if is_home else ""


@cache
def _packed_file(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), 6, mtime=0)


def packed_answer(
    request: Request, packed: bytes, kind: str, headers: Mapping[str, str]
) -> Response:
    """Return compressed content, unpacked for a client that does not take it so."""
    takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
    encoding = {"Content-Encoding": "gzip"} if takes_gzip else {}
    content = packed if takes_gzip else gzip.decompress(packed)
    return Response(content, headers={**HEADERS, **headers, **encoding}, media_type=kind)


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


def static_routes() -> list[Route]:
    """Return a route for each file of `static`."""
    files = sorted(path for path in STATIC.rglob("*") if path.suffix in KINDS)
    return [file_route(f"/money/{file.relative_to(STATIC).as_posix()}", file) for file in files]
