"""Run the simulator from a shell: `ib-gateway-simulator --book demo`."""

from __future__ import annotations

import typer

from ib_gateway_simulator.command_line import simulate


def main() -> None:
    """Run the command line of the simulator."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(simulate)
    app()


if __name__ == "__main__":
    main()
