"""The asset `position_queue`: the requests to value a position without a market data line."""

import asyncio
from collections.abc import Mapping

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import STREAM_JOB
from position_sync_dagster.domain.update import QueueStatus
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema import tables as specs
from position_sync_dagster.sync import drain


@table_asset.table_asset(
    specs.POSITION_QUEUE,
    deps=["active_strategies", "broker_positions"],
    job=STREAM_JOB,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def position_queue(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Requests to value a position without a market data line.

    Written by the stream, which inserts a request when a position changed, and by interval.
    Materializing inserts one for each holding of broker_positions that is in no strategy.

    How to read it: a request is PENDING, then PROCESSING under a lease, then SUCCESS or FAILED;
    error_message says why. position-sync queue list shows the same.
    """
    lake, settings = position_sync.lake, position_sync.settings
    requests = asyncio.run(drain.enqueue_monitored(lake, settings))
    if not requests:
        context.log.warning(
            "Nothing is queued: broker_positions has no holding outside the strategies. The job "
            "stream_positions reads the holdings from the gateway."
        )
    found = event(lake)
    return dg.MaterializeResult(
        metadata={"requests": len(requests), **found.metadata},
        data_version=dg.DataVersion(table_asset.FOLLOWED),
    )


def event(lake: tables.Lake, sources: Mapping[str, str] | None = None) -> dg.AssetMaterialization:
    """Return the event of the table: how many requests wait, and how many failed."""
    backlog = lake.queue.sync.overview()
    metadata: dict[str, dg.RawMetadataValue] = {
        "pending": backlog.counts[QueueStatus.PENDING],
        "processing": backlog.counts[QueueStatus.PROCESSING],
        "failed": backlog.counts[QueueStatus.FAILED],
        "delta_version": str(backlog.version),
    }
    return table_asset.runless(specs.POSITION_QUEUE.name, metadata)
