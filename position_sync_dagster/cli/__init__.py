"""The command line, `position-sync`: its commands by subject.

Only the entry point uses `main`; nothing else of the package imports it. It may import every
other package except the gateway. `app` imports the module of a command when the command is called.
Of `defs` only `audit verify` imports anything: the events of Dagster are read there.
"""

import os
import sys

RUN_UNTIL_STOPPED = ("demo", "dev")
"""The commands that read the stop signals themselves, and then end their processes."""


def main() -> None:
    """Run the command line. An error of this package becomes a message and an exit code.

    What it and its processes create is for the user alone: tables, Dagster's state and logs hold
    account data.
    """
    os.umask(0o077)
    if sys.argv[1:2] and sys.argv[1] in RUN_UNTIL_STOPPED:
        from position_sync_dagster.processes.stop_request import block_stop_signals

        # Before the slow imports below, and until the process ends: a signal at any moment leads
        # to the same end.
        block_stop_signals()

    from position_sync_dagster.sync.owner.process import exempt_from_collection

    with exempt_from_collection():
        from position_sync_dagster.cli.app import app, print_error
        from position_sync_dagster.errors import PositionSyncError

        try:
            app()
        except PositionSyncError as error:
            sys.exit(print_error(error))
