"""The commands that run something: `demo`, `dev`, `simulate`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from position_sync_dagster.cli.options import Json

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


PASSED_ON: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
}
"""Settings of a command that passes all its arguments on, `--help` included."""


def simulate(context: typer.Context) -> None:
    """Run the gateway simulator alone. Port 0 takes any free one; the ports are printed."""
    from position_sync_dagster.simulator.command_line import main

    sys.exit(main(context.args, program=context.command_path))
