"""Run the simulator from a shell: `python -m position_sync_dagster.simulator --book demo`."""

from __future__ import annotations

import typer

from position_sync_dagster.simulator.command_line import simulate

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(simulate)
    app()
