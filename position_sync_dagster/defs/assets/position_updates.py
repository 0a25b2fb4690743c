"""The asset `position_updates`: the ledger of values; materializing it drains the queue."""

import asyncio

import dagster as dg

from position_sync_dagster.defs import runs
from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.lake.schema.tables import POSITION_UPDATES
from position_sync_dagster.sync.drain import drain


@table_asset.table_asset(
    POSITION_UPDATES,
    deps=["position_queue", "active_strategies", "broker_positions", "contracts"],
    job=runs.STREAM_JOB,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def position_updates(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """The ledger: every value of every position, streamed or drained, and what reports are made of.

    Written by the job stream_positions, with one commit a second, and by the sensor drain_queue,
    with one commit a batch of requests. Materializing drains the queue as a tick does.

    How to read it: rows are only appended; the newest row of a holding is its value. source is
    STREAM or QUEUE; run_id, session_id, batch_id and request_id name the writer. An
    unknown value is null, never zero.

    Events: each row is counted in exactly one of them, as one of rows, whoever wrote it: drained
    rows at once, streamed ones once a minute. delta_version_from and delta_version are the versions
    around them. The event of a run has no rows; the next tick reports them.

    Live: `position-sync money` shows these figures as they move, second by second.
    """
    report = asyncio.run(
        drain(position_sync.lake, position_sync.settings, run_id=context.run.run_id)
    )
    if report.error is not None:
        raise report.error
    return dg.MaterializeResult(
        metadata=table_asset.known(
            claimed=report.claimed,
            succeeded=report.succeeded,
            failed=report.failed,
            released=report.released,
            pending_after=report.pending_after,
            duration_s=round(report.duration_s, 2),
            note=report.reason,
        ),
        data_version=dg.DataVersion(table_asset.FOLLOWED),
    )
