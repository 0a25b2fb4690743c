"""Dagster's daemon on several hosts, or in several pods, of which one works at a time.

Dagster supports one daemon per instance: two would start the same queued run twice, and Dagster
only logs that there are two. For that reason the daemon works only while its process holds an
advisory lock in the Postgres of Dagster's state; the daemons of other hosts wait for it. The lock
is released when the connection of its holder ends. Postgres ends the connection of a holder that
sends nothing for `SILENCE_S`, because its host lost power or network, or is suspended. A holder
that loses the lock ends at once; when it is restarted, it waits for the lock.

Run as `python -m position_sync_dagster.dagster_host.standby_daemon --workspace FILE`, with
DAGSTER_HOME. In the image, `deploy/dagster-daemon` is this program too: Dagster's chart starts it.
"""

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from dagster import DagsterInstance
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from position_sync_dagster.dagster_host import LACKING, dagster_internals
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.processes.ports import ProbeResult, probe

LOCK = 7497
"""The key of the advisory lock, in the database of the instance."""

SILENCE_S = 15
"""Postgres ends the connection of a holder that sends nothing for this time."""

PULSE_S = 3.0
POLL_S = 1.0

CODE_S, CODE_POLL_S = 30.0, 0.1
"""Maximum wait for the code servers in seconds, and the time between two attempts to connect. The
sensors tick every 5 s from the start of the daemon on, and a tick without a code server is lost."""

LOST = 75
"""Exit code after the loss of the lock: temporary, start it again (EX_TEMPFAIL)."""

WAITS = "The daemon of another host works. This one waits."

logger = logging.getLogger("dagster.daemon.host")


def run(workspace: str, internals: Any) -> int:
    """Wait for Postgres and for the lock, run the daemon, and return the exit code."""
    with ExitStack() as stack:
        instance = stack.enter_context(opened_instance())
        url = getattr(instance.run_storage, "postgres_url", None)
        if url is None:
            logger.error(
                "The storage of this Dagster instance is not Postgres, which several hosts need. "
                "Take `storage` from deploy/dagster.yaml, or run `dagster-daemon run`."
            )
            return 1
        lock = acquire(url)
        threading.Thread(target=keep, args=(lock,), name="lock", daemon=True).start()
        target = internals.WorkspaceFileTarget([workspace])
        await_code_servers(target.create_origins())
        stack.enter_context(internals.capture_interrupts())
        controller = stack.enter_context(
            internals.daemon_controller_from_instance(instance, workspace_load_target=target)
        )
        controller.check_daemon_loop()
    return 0


def await_code_servers(origins: Sequence[Any]) -> None:
    """Wait until the code servers of a workspace listen, or `CODE_S` are over."""
    until = time.monotonic() + CODE_S
    for origin in origins:
        host, port = getattr(origin, "host", None), getattr(origin, "port", None)
        while host and port and probe(host, port) is not ProbeResult.OPEN:
            if time.monotonic() >= until:
                return
            time.sleep(CODE_POLL_S)


def opened_instance() -> DagsterInstance:
    """Wait until Postgres answers, and return Dagster's instance."""
    log = OutageLog(logger)
    while True:
        try:
            return DagsterInstance.get()
        except DagsterPostgresException as error:
            log.report(unusable(error.__cause__ or error))
            time.sleep(POLL_S)


def acquire(url: str) -> Connection:
    """Wait until this process holds the lock, and return the connection that holds it."""
    engine = create_engine(
        url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args=dagster_internals.DEAD_PEER,
    )
    log = OutageLog(logger)
    while True:
        try:
            connection = engine.connect()
            connection.execute(text(f"SET idle_session_timeout = '{SILENCE_S}s'"))
            while not connection.scalar(text(f"SELECT pg_try_advisory_lock({LOCK})")):
                log.report(WAITS, level=logging.INFO)
                time.sleep(POLL_S)
        except SQLAlchemyError as error:
            log.report(unusable(error))
            time.sleep(POLL_S)
        else:
            logger.info("This host's daemon works: it holds the lock.")
            return connection


def keep(lock: Connection) -> None:
    """Keep the lock's connection active; end this process if the lock is lost."""
    try:
        while True:
            lock.execute(text("SELECT 1"))
            time.sleep(PULSE_S)
    except SQLAlchemyError as error:
        logger.error(unusable(error))
        logger.error("The lock is lost: this daemon ends, for another may work by now.")
        logging.shutdown()
        os._exit(LOST)


def unusable(error: BaseException) -> str:
    """Return why Postgres cannot be used, as one line."""
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    return f"Postgres cannot be used; trying again: {reason}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="daemon", description="Run Dagster's daemon on one of several hosts at a time."
    )
    parser.add_argument("-w", "--workspace", required=True)
    options = parser.parse_args(arguments)
    internals = dagster_internals.DAEMON.load()
    if internals is None:
        logger.error("Run `dagster-daemon run` on one of the hosts, and on no other.")
        return LACKING
    internals.configure_loggers(formatter="colored", log_level="INFO")
    internals.setup_interrupt_handlers()
    dagster_internals.keep_postgres_connections()
    try:
        return run(options.workspace, internals)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
