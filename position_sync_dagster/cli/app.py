"""The application `position-sync` with all its commands."""

from typing import Annotated

import typer

from position_sync_dagster.cli import (
    demo,
    dev,
    doctor,
    exposure,
    maintain,
    positions,
    queue,
    record,
    status,
    strategies,
)
from position_sync_dagster.cli.audit import history, trace, verify
from position_sync_dagster.simulator.command_line import simulate

app = typer.Typer(
    name="position-sync",
    help="Every option leg of an Interactive Brokers account, valued into Delta tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("dev")(dev.dev)
app.command("simulate")(simulate)
app.command("record")(record.record)
app.command("status")(status.status)
app.command("positions")(positions.positions)
app.command("trace")(trace.trace)
app.command("history")(history.history)
app.command("exposure")(exposure.exposure)
app.command("doctor")(doctor.doctor)
app.command("maintain")(maintain.maintain)
app.add_typer(strategies.app, name="strategies")
app.add_typer(queue.app, name="queue")
app.add_typer(verify.app, name="audit")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"position-sync {version('position-sync-dagster')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Value every option leg of an Interactive Brokers account into Delta tables."""
