"""The asset `position_queue`: what is to be valued without a line."""

import asyncio

import dagster as dg

from position_sync_dagster.defs.assets.asset_metadata import (
    GROUP,
    KINDS,
    OWNERS,
    TAGS,
    columns_of,
    data_version,
)
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import GatewayResource, LakeResource
from position_sync_dagster.lake.storage.schemas import POSITION_QUEUE


@dg.asset(
    deps=["active_strategies"],
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    tags=TAGS,
    metadata=columns_of(POSITION_QUEUE),
    description="Requests to value a position without a market data line. The gateway's owner "
    "enqueues; materializing refreshes everything monitored from one broker snapshot.",
)
def position_queue(
    context: dg.AssetExecutionContext, lake: LakeResource, gateway: GatewayResource
) -> dg.MaterializeResult[None]:
    """Enqueue every monitored holding of one broker snapshot."""
    from position_sync_dagster.sync.drain.refresh import refresh

    with dagster_failures():
        settings = gateway.settings(lake)
        tables = lake.open(settings)
        report = asyncio.run(refresh(tables, settings, run_id=context.run.run_id))
        version = report.queue_version or tables.queue.table.version()
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
