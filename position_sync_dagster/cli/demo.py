"""The command `position-sync demo`: the whole system on a simulated gateway."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from position_sync_dagster.cli.options import EndWith, Json


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
