"""The command `position-sync simulate`: the gateway simulator alone."""

import sys
from typing import Annotated

import typer

Port = typer.Option(min=0, max=65535)


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
