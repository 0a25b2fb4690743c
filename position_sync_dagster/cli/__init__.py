"""The command line, `position-sync`: its commands by subject.

No other package imports this one. It may import every other package except `gateway` and `defs`.
"""

import errno
import os
import sys
from typing import Any

# The commands that run until a stop signal. They handle it, then end their processes.
RUN_UNTIL_STOPPED = ("demo", "dev")

# The environment variables with the thread counts of Polars and Delta Lake. The default of each is
# the number of processors; a stream writes a hundred rows a second, for which one is enough.
THREAD_COUNTS = ("POLARS_MAX_THREADS", "TOKIO_WORKER_THREADS")


def main() -> None:
    """Run the command line. An error of this package becomes a message and an exit code.

    Only the user may read the files that it and its processes create: tables, Dagster's state and
    logs hold account data.
    """
    os.umask(0o077)
    # A panic of Polars at a damaged file becomes an error of ours, without pages of native stacks.
    os.environ["RUST_BACKTRACE"] = "0"
    if sys.stdout is None:  # it was closed, as by `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    # A terminal of another encoding lacks some characters, such as the dash for what is unknown.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")

    runs_until_stopped = "".join(sys.argv[1:2]) in RUN_UNTIL_STOPPED
    if runs_until_stopped:
        from position_sync_dagster.processes.child_process import block_stop_signals

        # Before the slow imports below, so that a signal during them is handled in the same way.
        block_stop_signals()
        for name in THREAD_COUNTS:
            os.environ.setdefault(name, "1")

    from position_sync_dagster.cli.app import discard_output, print_error
    from position_sync_dagster.errors import PositionSyncError

    try:
        try:
            commands()()
        finally:
            if not runs_until_stopped and not sys.stdout.closed:
                sys.stdout.flush()
    except PositionSyncError as error:
        sys.exit(print_error(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise

        discard_output()
        if error.errno == errno.ENOSPC:
            file = error.filename or ("A file" if runs_until_stopped else "The output")
            print_error(
                PositionSyncError(
                    f"{file} cannot be written: {error.strerror}.",
                    remedy="Free some space, or write elsewhere.",
                )
            )
        sys.exit(1)


def commands() -> Any:
    """Return the program; it imports the module of a command when that is called."""
    from position_sync_dagster.cli.app import program

    return program
