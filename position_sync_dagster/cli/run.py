"""The commands that run something: `demo`, `dev`, `simulate`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from position_sync_dagster.cli.options import Json

Port = typer.Option(min=0, max=65535)
EndWith = Annotated[
    int | None,
    typer.Option("--end-with", hidden=True, help="End when this process is the parent no more."),
]


def demo(
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            min=1,
            metavar="SECONDS",
            help="Run unattended for so long; the exit code tells whether the figures were met.",
        ),
    ] = None,
    ui_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of the Dagster UI.", show_default="3000 or the next free"
        ),
    ] = None,
    control_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of the simulator's controls.", show_default="any free"
        ),
    ] = None,
    home: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the demo's tables and settings.")
    ] = Path(".demo"),
    json: Json = False,
    end_with: EndWith = None,
) -> None:
    """Run the whole with a simulated gateway: 200 option legs, 20 of them streamed."""
    from position_sync_dagster.demo.run import Options, run

    options = Options(
        home=home,
        seconds=seconds,
        ui_port=ui_port,
        control_port=control_port,
        as_json=json,
        end_with=end_with,
    )
    sys.exit(run(options))


def dev(
    ui_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
    end_with: EndWith = None,
) -> None:
    """Run Dagster against your own TWS or IB Gateway, as the settings say."""
    from position_sync_dagster.cli.dev import run

    sys.exit(run(ui_port=ui_port, end_with=end_with))


def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Port] = 7497,
    control_port: Annotated[int, Port] = 0,
    book: Annotated[str, typer.Option(help="demo, small, or a YAML file.")] = "demo",
    seed: Annotated[int, typer.Option(help="The same seed gives the same session.")] = 7,
    max_lines: Annotated[int, typer.Option(min=1, help="Market data lines of the login.")] = 100,
    tick_interval: Annotated[
        float, typer.Option(min=0.01, metavar="SECONDS", help="Time between two steps.")
    ] = 0.5,
    scenario: Annotated[
        str | None, typer.Option(metavar="FILE", help="A YAML list of what happens when.")
    ] = None,
) -> None:
    """Run the gateway simulator alone. Port 0 takes any free one; the ports are printed."""
    from position_sync_dagster.simulator import run

    code = run(
        host=host,
        port=port,
        control_port=control_port,
        book=book,
        seed=seed,
        max_lines=max_lines,
        tick_interval_s=tick_interval,
        scenario=scenario,
    )
    sys.exit(code)
