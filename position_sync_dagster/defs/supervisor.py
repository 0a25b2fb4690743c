"""The supervisor: a sensor that keeps exactly one stream running."""

from datetime import UTC, datetime

import dagster as dg

from position_sync_dagster.defs.checks.a_stream_watches import CHECK_NAME, watched_now
from position_sync_dagster.defs.checks.check_results import check_evaluation, newest_materialization
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.defs.run_history import REASON, STREAM_JOB, recent_runs
from position_sync_dagster.defs.tick_cache import cached_instance, cached_lake
from position_sync_dagster.lake.schema.tables import POSITION_UPDATES
from position_sync_dagster.sync.decisions.supervision import supervise

RUNS_SEEN = 8
"""Enough to recognize a crash loop up to its longest delay."""


@dg.sensor(
    job_name=STREAM_JOB,
    minimum_interval_seconds=4,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Start the stream when its lease has ended: after a clean end, a crash, a kill. "
    "Terminating its run pauses it until this sensor is switched off and on, or the job launched.",
)
def supervise_stream(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request a stream run when none is alive; report a run as failed when its process is gone."""
    settings = POSITION_SYNC.read_settings()
    lake = cached_lake(settings)
    instance = cached_instance(context)
    started_at = context.last_sensor_start_time
    session = lake.sessions.sync.current(settings.gateway_id)
    decision = supervise(
        recent_runs(instance, STREAM_JOB, limit=RUNS_SEEN),
        session,
        now=datetime.now(UTC),
        supervised_since=None if started_at is None else datetime.fromtimestamp(started_at, UTC),
        rotate_after_s=settings.rotate_after_s,
        last_future_heartbeat=datetime.fromisoformat(context.cursor) if context.cursor else None,
    )
    if decision.future_heartbeat is not None:
        context.update_cursor(decision.future_heartbeat.isoformat())
    for run_id in decision.lost:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(
                run,
                "Its process is gone: its lease on the gateway ended and was not given up.",
            )
    if decision.lost:
        # Its stream cannot say any more that nobody sees the gateway.
        evaluation = check_evaluation(
            POSITION_UPDATES.name,
            CHECK_NAME,
            watched_now(lake, settings),
            newest_materialization(instance, POSITION_UPDATES.name),
        )
        instance.report_runless_asset_event(evaluation)
    if decision.paused and session is not None:
        lake.sessions.sync.annotate(session, decision.reason)  # for `position-sync status`
    if decision.start:
        return dg.RunRequest(tags={REASON: decision.reason})
    return dg.SkipReason(decision.reason)
