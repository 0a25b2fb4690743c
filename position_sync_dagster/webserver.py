"""Dagster's webserver with the loopback guard, the money page, and without GraphQL by GET.

Dagster executes any GraphQL document by GET, also mutations. An image on any web page could thus
end a stream, and a browser sends no origin for an image. The UI itself uses POST and WebSockets.

Run as `python -m position_sync_dagster.webserver`, with the options of `dagster-webserver`. In a
container, `--host 0.0.0.0` listens at all its addresses. The guard still applies: publish the port
at 127.0.0.1 of the machine.
"""

import os
import sys
from typing import Any

from anyio import to_thread
from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from position_sync_dagster.processes.child_process import MARKER
from position_sync_dagster.processes.unknown_settings import warnings_of
from position_sync_dagster.settings import load_settings
from position_sync_dagster.web.loopback_guard import LoopbackGuard

# The UI's largest requests have some 100 kB; JSON takes four times its size in memory.
LARGEST_BODY = 8 * 2**20

JSON = ("application/json", "application/graphql")


class BodyLimit:
    """ASGI middleware that refuses bodies larger than any request of Dagster's UI or of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on while its body is small; Starlette answers any other with 413."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise HTTPException(413, "The body is larger than 8 MB.")
            return message

        await self.app(scope, bounded_receive, send)


# The paths of our pages, their files, their API and the metrics.
OUR_PATHS = ("/money", "/money/{page:path}", "/api/v1/{name}", "/metrics")


class OurPages:
    """ASGI application of our pages, which are imported when somebody first looks."""

    def __init__(self) -> None:
        self._router: Router | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the route of its path."""
        if self._router is None:
            routes = await to_thread.run_sync(_our_routes)
            # Of requests that waited together, all get the same routes.
            self._router = self._router or Router(routes)
        await self._router(scope, receive, send)


def _our_routes() -> list[BaseRoute]:
    # It takes 40 MB, with Polars and Delta Lake.
    from position_sync_dagster.web.money_page import money_routes

    return money_routes()


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's webserver with the guard on each route, and our own routes."""

    def build_middleware(self) -> list[Middleware]:
        """Return Dagster's own middleware behind the guard and the limit of bodies."""
        return [Middleware(LoopbackGuard), Middleware(BodyLimit), *super().build_middleware()]

    def build_routes(self) -> list[BaseRoute]:
        """Return Dagster's own routes after ours, which the settings may leave out."""
        routes: list[BaseRoute] = super().build_routes()  # type: ignore[no-untyped-call]
        if load_settings().money:
            pages = OurPages()
            routes = [*(Route(path, pages) for path in OUR_PATHS), *routes]
        return routes

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Execute a GraphQL document posted as JSON; a GET only shows the playground."""
        if request.method == "GET" and "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse("Post GraphQL as application/json.", 405, {"Allow": "POST"})
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and kind not in JSON:
            return PlainTextResponse("Post GraphQL as application/json.", 415)
        answer: Response = await super().graphql_http_endpoint(request)
        return answer


def main() -> None:
    """Run `dagster-webserver` with the guarded class in place of Dagster's own.

    Where `position-sync dev` did not start it, it says which settings are unknown.
    """
    if MARKER not in os.environ:
        for line in warnings_of(os.environ):
            print(f"position-sync: {line}", file=sys.stderr)  # noqa: T201 - before any log is set up
    vars(app)["DagsterWebserver"] = GuardedWebserver
    cli.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
