"""The command line, `position-sync`: one module a command."""

import sys


def main() -> None:
    """Run the command line; an error of this package is a message and an exit code."""
    from position_sync_dagster.cli.app import app
    from position_sync_dagster.cli.errors import print_error
    from position_sync_dagster.errors import PositionSyncError

    try:
        app()
    except PositionSyncError as error:
        sys.exit(print_error(error))
