"""The commands that need the simulator, a distribution of its own: `demo`, `record`, `simulate`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ib_gateway_simulator.command_line import simulate
from ib_gateway_simulator.recording import program
from position_sync_dagster.cli import options
from position_sync_dagster.cli.app import app
from position_sync_dagster.demo import Options
from position_sync_dagster.demo import run as run_demo
from position_sync_dagster.processes.home import demo_home

app.command()(simulate)


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
    options.require_extra("dagster_webserver", "webserver")
    sys.exit(
        run_demo(
            Options(
                home=home or demo_home(),
                seconds=seconds,
                ui_port=ui_port,
                gateway_port=gateway_port,
                control_port=control_port,
                calm=calm,
                json=json,
                end_with=end_with,
            )
        )
    )


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
    raise typer.Exit(
        program.run(
            out,
            (settings.gateway_host, settings.gateway_port),
            port=port,
            minutes=minutes,
            keep_quantities=keep_quantities,
        )
    )
