"""The asset `position_queue`: the requests to value a position without a market data line."""

import asyncio

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import POSITIONS, data_version, table_asset
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.lake.schema.tables import POSITION_QUEUE


@table_asset(
    POSITION_QUEUE,
    group=POSITIONS,
    deps=["active_strategies"],
    description="Requests to value a position without a market data line. The gateway's owner "
    "enqueues; materializing refreshes everything monitored from one broker snapshot.",
)
@dagster_failures
def position_queue(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Enqueue every monitored holding of one broker snapshot."""
    from position_sync_dagster.sync.drain.refresh import refresh

    lake = position_sync.lake
    report = asyncio.run(refresh(lake, position_sync.settings, run_id=context.run.run_id))
    version = report.queue_version or lake.queue.table.version()
    return dg.MaterializeResult(
        metadata={
            "enqueued": report.enqueued,
            "positions": report.positions,
            "accounts": report.accounts,
            "incomplete_accounts": len(report.incomplete_accounts),
            "connections": int(report.connected),
            "delta_version": version,
            "duration_s": report.duration_s,
            "note": report.reason or "",
        },
        data_version=data_version(version),
    )
