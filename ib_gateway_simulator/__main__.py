"""Run the simulator from a shell: `ib-gateway-simulator --book demo`."""

from __future__ import annotations

from collections.abc import Callable

import typer

from ib_gateway_simulator import command_line


def main() -> None:
    """Run the command line of the simulator."""
    _run(command_line.simulate)


def record() -> None:
    """Run the command line of the recorder."""
    _run(command_line.record)


def _run(command: Callable[..., None]) -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    app()


if __name__ == "__main__":
    main()
