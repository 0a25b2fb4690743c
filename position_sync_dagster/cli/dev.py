"""The commands that run programs on what you have: `dev` for your own gateway, and `money`."""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from position_sync_dagster import dagster_files
from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports.figures import Figures, read_figures
from position_sync_dagster.money.strategies.strategies_file import load_strategies
from position_sync_dagster.processes import ports, supervisor
from position_sync_dagster.processes.child_process import ChildProcess, StopRequest, StopRequested
from position_sync_dagster.processes.home import HomeError, exclusive_use, instance_file, without
from position_sync_dagster.processes.live_status import LOOK_INTERVAL_S, LiveDisplay, frames
from position_sync_dagster.settings import PREFIX, Settings, load_settings, read_env_file
from position_sync_dagster.sync.exchange_days import exchange_of

UI_URL = f"{PREFIX}UI_URL"
LOG_NAME = "dagster-dev.log"


@app.command()
def dev(
    ui_port: Annotated[int, options.port("Port of the Dagster UI.")] = 3000,
    end_with: options.EndWith = None,
) -> None:
    """Run Dagster against your own TWS or IB Gateway, as the settings say.

    A terminal shows the live status, and Dagster's output goes to a file that the status names.
    Elsewhere Dagster's output is printed, with what the stream warns of.

    It runs until you stop it: with Ctrl-C, SIGTERM, or by closing the terminal. The exit code is
    then 0.
    """
    options.require_extra("dagster_webserver", "webserver")
    settings = load_settings()
    options.warn_of_unknown_settings()
    _ = settings.logins  # reads the gateways file
    if settings.strategies_file is not None:
        load_strategies(settings.strategies_file)  # else the stream followed an older registry
    exchange_of(settings.calendar)  # unknown, no definition could be loaded
    ports.require_free(ui_port, purpose="Dagster UI", option="--ui-port (make: UI_PORT=)")

    home = dagster_files.dagster_home()
    stop = StopRequest(end_with=end_with)
    log = None
    if sys.stdout.isatty() and sys.stderr.isatty():
        log = home / LOG_NAME
    address = supervisor.url(ui_port)
    if "ui_url" in settings.model_fields_set:
        address = settings.ui_url
    with suppress(StopRequested), exclusive_use(home, purpose="position-sync dev"):
        put_instance(home)
        with supervisor.start(
            env={**variables_of_the_folder(), **os.environ, UI_URL: address},
            dagster_home=home,
            ui_port=ui_port,
            cwd=Path.cwd(),
            log=log,
        ) as dagster:
            watch(dagster, settings, ui_port, stop)


# What a `dagster.yaml` of an earlier release names: its launcher and its queue of runs.
FORMER_CLASSES = "position_sync_dagster.dagster_host"


def put_instance(home: Path) -> None:
    """Copy our `dagster.yaml` into the package's own home, and close that home to other users.

    One of your own is kept if it works.

    Raises:
        HomeError: A home of your own has that of an old release.
    """
    if home == dagster_files.own_dagster_home():
        home.chmod(0o700)
    file = home / "dagster.yaml"
    former = file.exists() and FORMER_CLASSES in file.read_text(encoding="utf-8")
    if home == dagster_files.own_dagster_home() and (former or not file.exists()):
        shutil.copyfile(instance_file(), file)
    elif former:
        raise HomeError(
            f"{file} names classes of an earlier release, in {FORMER_CLASSES}.",
            remedy=f"Copy {instance_file()} there, or remove both.",
        )


def variables_of_the_folder() -> dict[str, str]:
    """Return what `.env` holds for other libraries, such as AWS_REGION; we read our settings."""
    file = Path(".env")
    if not file.exists():
        return {}

    return without(read_env_file(file), PREFIX)


def watch(dagster: ChildProcess, settings: Settings, ui_port: int, stop: StopRequest) -> None:
    """Show the status on a terminal; elsewhere Dagster's own output has what happens.

    Raises:
        StopRequested: This process shall stop, or the terminal is closed.
        ChildEndedError: Dagster has ended.
    """
    if dagster.log is None:
        while True:
            dagster.check()
            stop.pause(LOOK_INTERVAL_S)

    lake = MoneyLake.of(settings)

    def read() -> Figures | None:
        return read_figures(lake, settings, utc_now()) if lake.exists else None

    def serves() -> bool:
        return supervisor.is_serving(ui_port, dagster.pid)

    logs = [("logs", str(dagster.log))]
    with LiveDisplay() as screen:
        for _ in frames(dagster.check, serves, ui_port, screen, read, logs):
            stop.pause(LOOK_INTERVAL_S)


@app.command()
def money(
    port: Annotated[int, options.port("Port of the page.")] = 3001,
    home: options.HomeFolder = None,
) -> None:
    """Show the money page of the tables in a browser, without Dagster, until Ctrl-C.

    It only reads, at 127.0.0.1. The server of `dev` and `demo` has the same page, at /money.
    """
    # The other commands of this module start without a web server.
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    from position_sync_dagster.web.loopback_guard import LoopbackGuard
    from position_sync_dagster.web.money_page import money_routes
    from position_sync_dagster.web.served_figures import PageFigures

    settings, _lake = options.opened(home)
    ports.require_free(port, purpose="money page", option="--port")
    app = Starlette(
        routes=money_routes(dagster=False, open_figures=lambda: PageFigures(settings)),
        middleware=[Middleware(LoopbackGuard)],
    )
    typer.echo(f"The money page is at http://{ports.LOOPBACK}:{port}/money (Ctrl-C ends it).")
    uvicorn.run(app, host=ports.LOOPBACK, port=port, log_level="warning")
