"""The stream: one long-running op that owns the login and values legs with market data lines."""

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._utils.interrupts import capture_interrupts, check_captured_interrupt

from position_sync_dagster.defs.audit.patient_log import PatientLog, is_storage_error
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import POSITION_SYNC, PositionSyncResource
from position_sync_dagster.defs.run_history import LOGINS, STREAM_JOB
from position_sync_dagster.defs.stream_events import StreamEvents
from position_sync_dagster.defs.stream_thread import StreamThread
from position_sync_dagster.errors import GatewaysFileError, PositionSyncError
from position_sync_dagster.sync.owner.native_threads import one_native_thread_each

if TYPE_CHECKING:
    from position_sync_dagster.settings import Settings

CLEAN_END_S = 10.0
"""A stream that was asked to stop has this long to free its lines and its lease."""

LOOK_S = 2.0
"""How often a stream looks whether the gateways file still has its login, and Dagster its run."""


@dg.op(tags={"domain": "positions"})
@dagster_failures
@one_native_thread_each()
def stream_legs(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Own a login: stream active legs, write `broker_positions`, enqueue everything else.

    The op runs until it is interrupted, its rotation is due, the gateways file no longer has its
    login as it was, or Dagster no longer has its run; the supervisor starts another one. Its events
    are those of `StreamEvents`, which evaluates the ledger's checks after each materialization.

    An interrupt ends it cleanly: the last rows are logged and the run succeeds. A person's
    termination in the UI ends it in the same way, as a canceled run: that pauses the stream.
    """
    lake, instance = position_sync.lake, context.instance
    name = context.partition_key if context.has_partition_key else None
    settings = position_sync.settings.for_login(name)
    login = LoginWatch(settings)
    own_run = RunWatch(instance, context.run_id)
    events = StreamEvents(lake, settings, instance)
    log = PatientLog(events, context.log_event, context.run_id)
    thread = StreamThread(lake, settings, run_id=context.run_id)
    watched = False
    try:
        with log.keeping_lines(), capture_interrupts(), thread.running(grace_s=CLEAN_END_S):
            for report in thread.reports(
                stop=lambda: check_captured_interrupt() or login.is_gone() or own_run.is_gone(),
                between=log.deliver,
                grace_s=CLEAN_END_S,
            ):
                log.add(report)
            if login.gone:
                context.log.info(f"{settings.gateways_file} no longer has {name} as it was.")
            run = instance.get_run_by_id(context.run_id)
            if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
                raise DagsterExecutionInterruptedError
            total = thread.result()
            watched = True
    finally:
        if not watched:
            with suppress(PositionSyncError):
                events.evaluate(context.run_id)
    context.log.info(
        f"The stream ended: {total.rows} rows in {total.commits} commits, "
        f"{total.enqueued} requests enqueued, {total.reconnects} reconnects."
    )


class LoginWatch:
    """Looks now and then whether the gateways file still has a login as it was."""

    def __init__(self, login: "Settings") -> None:
        self._login = login
        self._next_look = 0.0
        self.gone = False

    def is_gone(self) -> bool:
        """Return whether the login was removed or changed; a file that cannot be read says no."""
        if self._login.gateways_file is None or time.monotonic() < self._next_look:
            return self.gone
        self._next_look = time.monotonic() + LOOK_S
        with suppress(GatewaysFileError):
            self.gone = self._login not in self._login.logins
        return self.gone


class RunWatch:
    """Looks now and then whether Dagster still has a run: one that it has not cannot be ended."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance = instance
        self._run_id = run_id
        self._next_look = time.monotonic() + LOOK_S

    def is_gone(self) -> bool:
        """Return whether the run was deleted; a storage that cannot be read says no."""
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK_S
        try:
            return not self._instance.has_run(self._run_id)
        except Exception as error:
            if is_storage_error(error):
                return False
            raise


def stream_job(partitions: dg.PartitionsDefinition | None = None) -> dg.JobDefinition:
    """Return the job that streams: of the one login, or with a partition for each of several."""

    @dg.job(
        name=STREAM_JOB,
        executor_def=dg.in_process_executor,
        # Of runs that wait together the stream's is launched first.
        tags={"dagster/max_retries": "0", "dagster/priority": "1", "domain": "positions"},
        partitions_def=partitions,
    )
    def stream() -> None:
        """Stream the legs of active strategies; a login's lease allows one stream at a time."""
        stream_legs()

    return stream


stream_positions = stream_job()


@dg.definitions
def stream_definitions() -> dg.Definitions:
    """Define the job, with partitions if a gateways file is configured."""
    several = POSITION_SYNC.read_settings().gateways_file is not None
    return dg.Definitions(jobs=[stream_job(LOGINS) if several else stream_positions])
