"""The command line, `position-sync`: one module per command.

Only the entry point uses `main`; nothing else of the package imports it. It may import every
other package except `defs` and the gateway, and imports the heavy ones when a command runs.
"""

import sys


def main() -> None:
    """Run the command line. An error of this package becomes a message and an exit code."""
    from position_sync_dagster.cli.app import app
    from position_sync_dagster.cli.errors import print_error
    from position_sync_dagster.errors import PositionSyncError

    try:
        app()
    except PositionSyncError as error:
        sys.exit(print_error(error))
