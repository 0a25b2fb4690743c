"""The commands of the simulator: `ib-gateway-simulator`, and `ib-gateway-record`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ib_gateway_simulator.errors import OptionError
from ib_gateway_simulator.options import PROGRAM_OPTIONS


def _port(help_text: str) -> Any:
    return typer.Option(min=0, max=65535, help=help_text)


def _seconds(help_text: str) -> Any:
    return typer.Option(min=0.01, metavar="SECONDS", help=help_text)


def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = PROGRAM_OPTIONS.host,
    port: Annotated[int, _port("Port of the gateway.")] = PROGRAM_OPTIONS.port,
    next_ports: Annotated[
        int, typer.Option(min=0, help="How many of the ports after it to try where it is taken.")
    ] = PROGRAM_OPTIONS.next_ports,
    control_port: Annotated[
        int, _port("Port of the controls, on 127.0.0.1.")
    ] = PROGRAM_OPTIONS.control_port or 0,
    book: Annotated[str, typer.Option(help="demo, small, or a YAML file.")] = "demo",
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same prices.")
    ] = PROGRAM_OPTIONS.seed,
    closed_days: Annotated[
        float, typer.Option(min=0, max=30, help="How many days ago the previous close was.")
    ] = PROGRAM_OPTIONS.closed_days,
    max_lines: Annotated[
        int, typer.Option(min=1, help="Market data lines of the login.")
    ] = PROGRAM_OPTIONS.max_lines,
    tick_interval: Annotated[
        float, _seconds("Time between two steps of the market.")
    ] = PROGRAM_OPTIONS.tick_interval_s,
    refresh_interval: Annotated[
        float, _seconds("Time between two account updates.")
    ] = PROGRAM_OPTIONS.refresh_interval_s,
    time_zone: Annotated[
        str, typer.Option(help="Zone of the gateway and of its account times.")
    ] = PROGRAM_OPTIONS.time_zone,
    scenario: Annotated[
        str | None, typer.Option(metavar="FILE", help="A YAML list of what happens when.")
    ] = None,
    tick_ring: Annotated[
        int, typer.Option(min=0, help="Sent ticks to keep for GET /ticks?recent=1.")
    ] = PROGRAM_OPTIONS.tick_ring,
    replay: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Play a recording instead of a book; no control port."),
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Play a recording so many times as fast.")
    ] = 1.0,
    end_with: Annotated[
        int | None,
        typer.Option(hidden=True, help="End when this process is no longer the parent."),
    ] = None,
) -> None:
    """Run the gateway simulator alone. Port 0 takes any free one; the ports are printed."""
    from ib_gateway_simulator import program

    if replay is not None and scenario is not None:
        raise typer.BadParameter("--scenario and --replay exclude each other")

    try:
        options = replace(
            PROGRAM_OPTIONS,
            host=host,
            port=port,
            next_ports=next_ports,
            control_port=control_port,
            seed=seed,
            closed_days=closed_days,
            max_lines=max_lines,
            tick_interval_s=tick_interval,
            refresh_interval_s=refresh_interval,
            time_zone=time_zone,
            tick_ring=tick_ring,
        )
    except OptionError as error:
        raise typer.BadParameter(str(error)) from None
    if replay is not None:
        raise typer.Exit(program.replay(replay, options, speed=speed))
    raise typer.Exit(program.run(book, options, scenario=scenario, end_with=end_with))


def record(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The recording; a new file.")],
    gateway_port: Annotated[int, _port("Port of the real gateway.")],
    gateway_host: Annotated[str, typer.Option(help="Its address.")] = "127.0.0.1",
    port: Annotated[int, _port("Port for the client, on 127.0.0.1; 0: any free.")] = 0,
    minutes: Annotated[
        float, typer.Option(min=0.01, max=1440, help="How long to record; Ctrl-C ends it earlier.")
    ] = 30.0,
    keep_quantities: Annotated[
        bool, typer.Option("--keep-quantities", help="Write quantities and amounts as they are.")
    ] = False,
) -> None:
    """Record what a client and a real gateway say to each other, without account data.

    The client connects to the printed port instead of the gateway's. Account ids, names,
    quantities and amounts are replaced before they are written; orders are never passed on.
    """
    from ib_gateway_simulator.recording import program

    gateway = (gateway_host, gateway_port)
    raise typer.Exit(
        program.run(out, gateway, port=port, minutes=minutes, keep_quantities=keep_quantities)
    )
