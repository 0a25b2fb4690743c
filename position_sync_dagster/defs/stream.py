"""The stream: one long-running op that owns the login and values legs with market data lines."""

from contextlib import suppress

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._utils.interrupts import capture_interrupts, check_captured_interrupt

from position_sync_dagster.defs.audit.patient_log import PatientLog
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.run_history import STREAM_JOB
from position_sync_dagster.defs.stream_events import StreamEvents
from position_sync_dagster.defs.stream_thread import StreamThread
from position_sync_dagster.errors import PositionSyncError

CLEAN_END_S = 10.0
"""A stream that was asked to stop has this long to free its lines and its lease."""


@dg.op(tags={"domain": "positions"})
@dagster_failures
def stream_legs(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Own the login: stream active legs, write `broker_positions`, enqueue everything else.

    The op runs until it is interrupted or its rotation is due. Its events are those of
    `StreamEvents`, which evaluates the ledger's checks after each materialization.

    An interrupt ends it cleanly: the last rows are logged and the run succeeds. A person's
    termination in the UI ends it in the same way, as a canceled run: that pauses the stream.
    """
    lake, settings, instance = position_sync.lake, position_sync.settings, context.instance
    events = StreamEvents(lake, settings, instance)
    log = PatientLog(events, context.log_event, context.run_id)
    thread = StreamThread(lake, settings, run_id=context.run_id)
    watched = False
    try:
        with log.keeping_lines(), capture_interrupts(), thread.running(grace_s=CLEAN_END_S):
            for report in thread.reports(
                stop=check_captured_interrupt, between=log.deliver, grace_s=CLEAN_END_S
            ):
                log.add(report)
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


@dg.job(
    name=STREAM_JOB,
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "0", "domain": "positions"},
)
def stream_positions() -> None:
    """Stream the legs of active strategies; the session's lease allows one stream at a time."""
    stream_legs()
