"""The command `money`: the money page of a lake, without Dagster."""

from typing import Annotated

import typer
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

from ib_gateway_simulator.loopback_guard import LoopbackGuard
from position_sync_dagster.cli import options
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.processes import ports
from position_sync_dagster.web.money_page import money_routes
from position_sync_dagster.web.page_figures import PageFigures


def money(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 3001,
    home: options.HomeFolder = None,
) -> None:
    """Show the money page of the tables in a browser, without Dagster, until Ctrl-C.

    It only reads, at 127.0.0.1. The server of `dev` and `demo` has the same page, at /money.
    """
    settings = options.settings_for(home)
    options.existing(Lake.of(settings))
    ports.require_free(port, purpose="money page", option="--port")
    routes = money_routes(dagster=False, open_figures=lambda: PageFigures(settings))
    app = Starlette(routes=routes, middleware=[Middleware(LoopbackGuard)])
    typer.echo(f"The money page is at http://{ports.LOOPBACK}:{port}/money (Ctrl-C ends it).")
    uvicorn.run(app, host=ports.LOOPBACK, port=port, log_level="warning")
