"""The frame of every page: header, navigation, search, notices; and the files that a page loads.

A page is a title, a path, a module of `static/app` and the panels of its `<main>`. Each panel is
drawn by its own module, from the feed or from `/api/v1`. Text reaches a page as text: `html.escape`
here, `textContent` in the browser.
"""

import gzip
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from position_sync_dagster.processes.home import Home
from position_sync_dagster.terminal.text import NAME, program_as_typed

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

# The pages in the order of the navigation.
NAVIGATION = {"/money": "Money", "/money/risk": "Risk", "/money/results": "Results"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A part of a page with a heading.

    Attributes:
        name: Its id; `static/app` finds it by this.
        title: The heading.
        content: HTML beneath the heading; what it holds of data is escaped already.
        tools: HTML beside the heading, such as a choice.
        is_hidden: Whether it is hidden at first.
    """

    name: str
    title: str
    content: str
    tools: str = ""
    is_hidden: bool = False

    def html(self) -> str:
        """Return the panel as HTML."""
        heading = f'<div class="bar"><h2 id="{self.name}-title">{self.title}</h2>{self.tools}</div>'
        hidden = " hidden" if self.is_hidden else ""
        labelled = f'aria-labelledby="{self.name}-title"{hidden}'
        opening = f'<section class="panel" id="{self.name}" {labelled}>'
        return f'{opening}{heading}<div class="body">{self.content}</div></section>'


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFrame:
    """What differs between pages.

    Attributes:
        title: The name of the page.
        path: Where it is served.
        module: The file of `static/app` that draws it.
        styles: Further style sheets.
    """

    title: str
    path: str
    module: str
    styles: Sequence[str] = ()

    def html(self, main: str) -> str:
        """Return the page around the HTML of its main part."""
        sheets = ("/money/app.css", *self.styles)
        links = "".join(f'<link rel="stylesheet" href="{escape(sheet)}">' for sheet in sheets)
        program = escape(_program())
        home = escape(_option_of_home())
        return f"""<!doctype html>
<html lang="en" data-page="{self.module}" data-program="{program}" data-home="{home}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(self.title)}</title>
<link rel="icon" href="data:,">
{links}
<script src="/money/app/theme.js"></script>
<script type="module" src="/money/app/{self.module}.js"></script>
</head>
<body>
{_header(self.path)}
<div id="alert" role="alert" hidden></div>
<p id="notice" role="status">Reading the tables …</p>
<div id="hints" role="status" hidden></div>
<p id="said" class="unseen" role="status"></p>
<main id="main" tabindex="-1">
<h1 class="unseen">{escape(self.title)}</h1>
{main}
</main>
</body>
</html>
"""


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


def _header(path: str) -> str:
    """Return the header of all pages; `static/app/header.js` fills it."""
    links = []
    for address, title in NAVIGATION.items():
        current = ' aria-current="page"' if address == path else ""
        links.append(f'<a href="{address}"{current}>{title}</a>')

    return f"""<a class="skip" href="#main">Skip to the panels</a>
<header>
  <div class="strip">
    <nav aria-label="Pages">{"".join(links)}</nav>
    <search><label class="unseen" for="find">Find a strategy, an underlying or a leg</label>
    <input id="find" type="search" autocomplete="off" role="combobox"
      placeholder="Strategy, underlying, leg (press /)" aria-expanded="false"
      aria-controls="matches" aria-autocomplete="list">
    <ul id="matches" role="listbox" aria-label="Matches" hidden></ul></search>
    <button type="button" id="theme">Light / dark</button>
  </div>
  <dl id="numbers" aria-label="The day"></dl>
  <details id="more-numbers"><summary>All numbers</summary>
  <dl id="accounts" aria-label="Accounts"></dl>
  <dl id="state" aria-label="State"></dl></details>
</header>"""


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
        headers = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        return packed_answer(request, _packed_file(file), KINDS[file.suffix], headers)

    return Route(path, answer, methods=["GET"])


def html_route(path: str, text: str) -> Route:
    """Return the route of a page that is the same for every request."""
    packed = gzip.compress(text.encode(), 6, mtime=0)

    def answer(request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        return packed_answer(request, packed, "text/html", headers)

    return Route(path, answer, methods=["GET"])


def static_routes() -> list[Route]:
    """Return a route for each file of `static`."""
    files = sorted(path for path in STATIC.rglob("*") if path.suffix in KINDS)
    return [file_route(f"/money/{file.relative_to(STATIC).as_posix()}", file) for file in files]
