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
            help="Run unattended for this time, then compare the figures with the wanted ones.",
        ),
    ] = None,
    ui_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of the Dagster UI.", show_default="3000 or the next free"
        ),
    ] = None,
    gateway_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Port of the simulated gateway.",
            show_default="that of the start before, 17497, or the next free",
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
    calm: Annotated[
        bool, typer.Option("--calm", help="Without fills, rolls and outages; only prices move.")
    ] = False,
    json: Json = False,
    end_with: EndWith = None,
) -> None:
    """Run the whole system on a simulated gateway: 200 option legs, 20 of them streamed.

    After 40 s the book has a day's life: fills, a roll, an outage of some seconds every 10 min.

    Without --for it runs until you stop it: with Ctrl-C, SIGTERM, or by closing the terminal. The
    exit code is then 0.

    With --for the exit code is 0 if all figures are met and 1 if not. If it is stopped before its
    time, the code is 128 plus the number of the signal: 130 after Ctrl-C.
    """
    from position_sync_dagster.demo.run import Options, run

    options = Options(
        home=home,
        seconds=seconds,
        ui_port=ui_port,
        gateway_port=gateway_port,
        control_port=control_port,
        as_json=json,
        end_with=end_with,
        calm=calm,
    )
    sys.exit(run(options))
