"""Errors on the command line: a message for a person, an exit code for a script."""

import sys

from position_sync_dagster.errors import (
    AmbiguousIdError,
    AmbiguousRemovalError,
    InvalidLegError,
    PositionSyncError,
    RequestStateError,
    SettingsError,
    StrategiesFileError,
    UnknownIdError,
    UnknownLegError,
    UnknownRequestError,
    UnknownStrategyError,
)
from position_sync_dagster.processes.home import HomeError
from position_sync_dagster.processes.home_lock import HomeInUseError
from position_sync_dagster.processes.ports import PortTakenError
from position_sync_dagster.terminal.text import printable
from position_sync_dagster.terminal.typed import as_typed

FAILED = 1
MISUSED = 2

MISUSES = (
    AmbiguousIdError,
    AmbiguousRemovalError,
    HomeError,
    HomeInUseError,
    InvalidLegError,
    PortTakenError,
    RequestStateError,
    SettingsError,
    StrategiesFileError,
    UnknownIdError,
    UnknownLegError,
    UnknownRequestError,
    UnknownStrategyError,
)
"""Errors that the user can correct on the command line, in a file or in the environment."""


def exit_code(error: PositionSyncError) -> int:
    """Return 2 for an error that the user can correct, else 1."""
    return MISUSED if isinstance(error, MISUSES) else FAILED


def print_error(error: PositionSyncError) -> int:
    """Print the error and its remedy to stderr; return the exit code."""
    for text in (f"position-sync: {error.what}", f"  {error.remedy}"):
        for line in as_typed(text).splitlines():
            print(printable(line), file=sys.stderr)  # noqa: T201 - the command line's output
    return exit_code(error)
