"""Dagster's webserver with the loopback guard, and without GraphQL by GET.

Dagster executes any GraphQL document by GET, also mutations. An image on any web page could thus
end a stream, and a browser sends no origin for an image. The UI itself uses POST and WebSockets.

Run as `python -m position_sync_dagster.dagster_host.webserver --port N --workspace FILE`, with
DAGSTER_HOME. In a container, `--host 0.0.0.0` listens at all its addresses. The guard still
applies: publish the port at 127.0.0.1 of the machine.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import uvicorn
from dagster_webserver.cli import (
    DEFAULT_DB_STATEMENT_TIMEOUT,
    DEFAULT_POOL_MAX_OVERFLOW,
    DEFAULT_POOL_RECYCLE,
)
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from ib_gateway_simulator.loopback_guard import LoopbackGuard
from position_sync_dagster import last_work
from position_sync_dagster.dagster_host import LACKING, dagster_internals
from position_sync_dagster.processes.ports import LOOPBACK
from position_sync_dagster.web.money_page import money_routes

LIVE_DATA_POLL_MS = 2000
"""Polling interval of the UI for the state of assets, as in `dagster dev`."""


def stats(_: Request) -> JSONResponse:
    """Return the last work of each program and the problems, as in `status --json`."""
    found, now = last_work.read(), datetime.now(UTC)
    programs = [
        {"program": one.program, "seconds": (now - one.at).total_seconds(), "late": one.late}
        for one in found.works
    ]
    return JSONResponse({"programs": programs, "problems": found.problems})


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's webserver with the guard on each route."""

    def build_middleware(self) -> list[Middleware]:
        """Return Dagster's own middleware behind the guard."""
        return [Middleware(LoopbackGuard), *super().build_middleware()]

    def build_routes(self) -> list[BaseRoute]:
        """Return Dagster's own routes after `/stats` and the money page."""
        own = [Route("/stats", stats), *money_routes()]
        return [*own, *super().build_routes()]  # type: ignore[no-untyped-call]

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Execute a GraphQL document posted as JSON; a GET only shows the playground."""
        shows_page = "text/html" in request.headers.get("accept", "")
        if request.method == "GET" and not shows_page:
            return PlainTextResponse("Post GraphQL as application/json.", 405, {"Allow": "POST"})
        if request.method == "POST":
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in ("application/json", "application/graphql"):
                return PlainTextResponse("Post GraphQL as application/json.", 415)
        answer: Response = await super().graphql_http_endpoint(request)
        return answer


def is_no_interrupt(record: logging.LogRecord) -> bool:
    """Return whether to log a line: False for the traceback of what an interrupt cancelled."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return False
    last = record.getMessage().rstrip().rpartition("\n")[2]
    return not last.startswith(("asyncio.exceptions.CancelledError", "KeyboardInterrupt"))


def serve(host: str, port: int, workspace: str) -> None:
    """Serve the UI until an interrupt.

    Raises:
        SystemExit: Dagster lacks a private symbol that this needs.
    """
    internals = dagster_internals.WEBSERVER.load()
    if internals is None:
        sys.exit(LACKING)
    internals.configure_loggers(formatter="colored", log_level="INFO")
    internals.setup_interrupt_handlers()
    with internals.get_instance_for_cli() as instance:
        instance.optimize_for_webserver(
            DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW
        )
        with internals.WorkspaceProcessContext(
            instance,
            version=__version__,
            workspace_load_target=internals.WorkspaceFileTarget([workspace]),
        ) as context:
            app = GuardedWebserver(context, "", LIVE_DATA_POLL_MS).create_asgi_app()
            logging.getLogger("uvicorn.error").addFilter(is_no_interrupt)
            with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has shut down
                uvicorn.run(app, host=host, port=port, log_level="warning")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="webserver", description="Serve Dagster's UI, guarded.")
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workspace", required=True)
    options = parser.parse_args(arguments)
    serve(host=options.host, port=options.port, workspace=options.workspace)


if __name__ == "__main__":
    main()
