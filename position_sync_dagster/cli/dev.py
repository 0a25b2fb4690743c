"""The commands that run programs: `dev` for your own gateway, `demo`, `record` and `money`."""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ib_gateway_simulator.command_line import simulate
from ib_gateway_simulator.recording import program
from position_sync_dagster import dagster_files
from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.demo import LOOK_INTERVAL_S, LiveDisplay, Options, frames
from position_sync_dagster.demo import run as run_demo
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.strategies_file import load_strategies
from position_sync_dagster.money.reports.figures import Figures, read_figures
from position_sync_dagster.processes import ports, supervisor
from position_sync_dagster.processes.child_process import ChildProcess, StopRequest, StopRequested
from position_sync_dagster.processes.home import HomeError, exclusive_use
from position_sync_dagster.settings import PREFIX, Settings, load_settings, read_env_file
from position_sync_dagster.sync.exchange_days import require_known

UI_URL = f"{PREFIX}UI_URL"
LOG_NAME = "dagster-dev.log"

app.command()(simulate)


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
    settings = load_settings()
    options.warn_of_unknown_settings()
    _ = settings.logins  # reads the gateways file
    if settings.strategies_file is not None:
        load_strategies(settings.strategies_file)  # else the stream followed an older registry
    require_known(settings.calendar)
    ports.require_free(ui_port, purpose="Dagster UI", option="--ui-port")

    home = dagster_files.dagster_home()
    stop = StopRequest(end_with=end_with)
    log = home / LOG_NAME if sys.stdout.isatty() and sys.stderr.isatty() else None
    is_ui_url_set = "ui_url" in settings.model_fields_set
    address = settings.ui_url if is_ui_url_set else supervisor.url(ui_port)
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
    """Copy our `dagster.yaml` into the package's own home; one of your own is kept if it works.

    Raises:
        HomeError: A home of your own has that of an old release.
    """
    file = home / "dagster.yaml"
    former = file.exists() and FORMER_CLASSES in file.read_text(encoding="utf-8")
    if home == dagster_files.own_dagster_home() and (former or not file.exists()):
        shutil.copyfile(dagster_files.instance_file(), file)
    elif former:
        raise HomeError(
            f"{file} names classes of an earlier release, in {FORMER_CLASSES}.",
            remedy=f"Copy {dagster_files.instance_file()} there, or remove both.",
        )


def variables_of_the_folder() -> dict[str, str]:
    """Return what `.env` holds for other libraries, such as AWS_REGION; we read our settings."""
    if not os.path.exists(".env"):
        return {}
    variables = read_env_file(Path(".env"))
    return {name: text for name, text in variables.items() if not name.startswith(PREFIX)}


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

    lake = Lake.of(settings)

    def read() -> Figures | None:
        return read_figures(lake, settings, utc_now()) if lake.exists else None

    with LiveDisplay() as screen:
        for _ in frames(dagster.check, ui_port, screen, read, [("logs", str(dagster.log))]):
            stop.pause(LOOK_INTERVAL_S)


@app.command()
def demo(
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            min=1,
            metavar="SECONDS",
            help="Run unattended for this time, then compare the figures with the wanted ones.",
        ),
    ] = None,
    ui_port: Annotated[
        int, options.port("Port of the Dagster UI.", least=0, default="3000 or the next free")
    ] = 0,
    gateway_port: Annotated[
        int,
        options.port(
            "Port of the simulated gateway.",
            least=0,
            default="that of the start before, 17497, or the next free",
        ),
    ] = 0,
    control_port: Annotated[
        int, options.port("Port of the simulator's controls.", least=0, default="any free")
    ] = 0,
    home: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the demo's tables and settings.",
            show_default=".demo; of an installed package, where the platform keeps data",
        ),
    ] = None,
    calm: Annotated[
        bool, typer.Option("--calm", help="Without fills, rolls and outages; only prices move.")
    ] = False,
    empty: Annotated[
        bool, typer.Option("--empty", help="Begin a new home without a strategy.")
    ] = False,
    json: options.Json = False,
    end_with: options.EndWith = None,
) -> None:
    """Run the whole system on a simulated gateway: 200 option legs, 20 of them streamed.

    After 40 s the simulated market has events: fills, rolls, an outage of some seconds every
    10 min.

    Without --for it runs until you stop it: with Ctrl-C, SIGTERM, or by closing the terminal. The
    exit code is then 0.

    With --for the exit code is 0 if all figures are met and 1 if not. If it is stopped before its
    time, the code is 128 plus the number of the signal: 130 after Ctrl-C.
    """
    chosen = Options(
        home=home or dagster_files.demo_home(),
        seconds=seconds,
        ui_port=ui_port,
        gateway_port=gateway_port,
        control_port=control_port,
        calm=calm,
        empty=empty,
        json=json,
        end_with=end_with,
    )
    sys.exit(run_demo(chosen))


@app.command()
def record(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The recording; a new file.")],
    minutes: Annotated[
        float, typer.Option(min=0.01, max=1440, help="How long to record; Ctrl-C ends it earlier.")
    ] = 30.0,
    port: Annotated[
        int, options.port("Port for the client, on 127.0.0.1; 0: any free.", least=0)
    ] = 0,
    login: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which login of the gateways file.")
    ] = None,
    keep_quantities: Annotated[
        bool, typer.Option("--keep-quantities", help="Write quantities and amounts as they are.")
    ] = False,
    home: options.HomeFolder = None,
) -> None:
    """Record what a client and the gateway of the settings say to each other.

    The client connects to the printed port instead of the gateway's. Account ids, names,
    quantities and amounts are replaced before they are written; orders are never passed on.
    """
    settings = options.settings_for(home).for_login(login)
    gateway = (settings.gateway_host, settings.gateway_port)
    raise typer.Exit(
        program.run(out, gateway, port=port, minutes=minutes, keep_quantities=keep_quantities)
    )


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

    from ib_gateway_simulator.loopback_guard import LoopbackGuard
    from position_sync_dagster.web.money_page import money_routes
    from position_sync_dagster.web.served_figures import PageFigures

    settings, _lake = options.opened(home)
    ports.require_free(port, purpose="money page", option="--port")
    routes = money_routes(
        dagster=False,
        open_figures=lambda: PageFigures(settings),
    )
    app = Starlette(routes=routes, middleware=[Middleware(LoopbackGuard)])
    typer.echo(f"The money page is at http://{ports.LOOPBACK}:{port}/money (Ctrl-C ends it).")
    uvicorn.run(app, host=ports.LOOPBACK, port=port, log_level="warning")
