"""The stream: one long-running op that owns the login and values legs with market data lines."""

import dagster as dg

from position_sync_dagster.defs.assets.position_updates import stream_metadata
from position_sync_dagster.defs.assets.table_asset import DATA_VERSION
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.stream_thread import StreamThread
from position_sync_dagster.sync.run_reports import StreamReport

STREAM_JOB = "stream_positions"

CLEAN_END_S = 10.0
"""A stream that was asked to stop has this long to free its lines and its lease."""


@dg.op(tags={"domain": "positions"})
@dagster_failures
def stream_legs(context: dg.OpExecutionContext, position_sync: PositionSyncResource) -> None:
    """Own the login: stream active legs, write `broker_positions`, enqueue everything else.

    The op runs until it is terminated or its rotation is due. At most once a minute it logs a
    materialization of `position_updates`, and of `position_queue` when it enqueued.
    """
    thread = StreamThread(position_sync.lake, position_sync.settings, run_id=context.run.run_id)
    with thread.running(grace_s=CLEAN_END_S):
        for report in thread.reports():
            for event in materializations(report):
                context.log_event(event)
    total = thread.result()
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


def materializations(report: StreamReport) -> list[dg.AssetMaterialization]:
    """Return a report of the stream as events on the tables that it changed.

    Each event carries the table's Delta version. Without it, Dagster would show downstream assets
    as stale, or not, by chance.
    """
    events: list[dg.AssetMaterialization] = []
    if report.version_to is not None:
        events.append(
            dg.AssetMaterialization(
                asset_key="position_updates",
                description=f"Streamed: {report.state.lower()}",
                metadata=stream_metadata(report),
                tags={DATA_VERSION: str(report.version_to)},
            )
        )
    if report.enqueued and report.queue_version is not None:
        events.append(
            dg.AssetMaterialization(
                asset_key="position_queue",
                description="Enqueued by the stream",
                metadata=_known(enqueued=report.enqueued, delta_version=report.queue_version),
                tags={DATA_VERSION: str(report.queue_version)},
            )
        )
    return events


def _known(**values: float | str | None) -> dict[str, float | str]:
    return {name: value for name, value in values.items() if value is not None}
