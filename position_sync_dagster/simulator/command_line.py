"""The command line of the simulator, made from the fields of `Options`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace

from position_sync_dagster.simulator.books.loader import shipped_books
from position_sync_dagster.simulator.errors import OptionError
from position_sync_dagster.simulator.options import PROGRAM_OPTIONS, Options
from position_sync_dagster.simulator.program import DEFAULT_BOOK, run

PROGRAM = "python -m position_sync_dagster.simulator"


def main(arguments: Sequence[str] | None = None, *, program: str = PROGRAM) -> int:
    """Read the command line, run the simulator, and return its exit code.

    Args:
        arguments: The arguments; None takes those of the process.
        program: The name to show in the usage.
    """
    parser = _parser(program)
    given = parser.parse_args(arguments)
    changes = {name: getattr(given, name) for name, _ in _command_line_fields()}
    try:
        options = replace(PROGRAM_OPTIONS, **changes)
    except OptionError as error:
        parser.error(str(error))
    return run(given.book, options, scenario=given.scenario)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Serve a simulated Interactive Brokers gateway until a signal.",
    )
    parser.add_argument(
        "--book",
        default=DEFAULT_BOOK,
        help=f"{', '.join(shipped_books())}, or the path of a YAML file (default: {DEFAULT_BOOK})",
    )
    for name, help_text in _command_line_fields():
        default = getattr(PROGRAM_OPTIONS, name)
        parser.add_argument(
            f"--{name.removesuffix('_s').replace('_', '-')}",
            dest=name,
            type=type(default),
            default=default,
            help=f"{help_text} (default: {default})",
        )
    parser.add_argument("--scenario", metavar="FILE", help="a YAML list of {at_s, do, …}")
    return parser


def _command_line_fields() -> list[tuple[str, str]]:
    return [(each.name, each.metadata["help"]) for each in fields(Options) if each.metadata]
