"""The asset `position_queue`: the requests to value a position without a market data line."""

import asyncio

import dagster as dg

from position_sync_dagster.defs.assets.external_tables import gateway_seen, observe_table
from position_sync_dagster.defs.assets.table_asset import QUARTER_HOURLY, data_version, table_asset
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.run_history import STREAM_JOB
from position_sync_dagster.lake.schema.tables import (
    BROKER_POSITIONS,
    GATEWAY_SESSIONS,
    POSITION_QUEUE,
)


@table_asset(
    POSITION_QUEUE,
    deps=["active_strategies", "broker_positions"],
    job=STREAM_JOB,
    freshness=QUARTER_HOURLY,
    description="""
Requests to value a position without a market data line.

- **Written by** the owner of the login: the stream inserts a request when a position changed, and
  by interval. Materializing does the same once, from one broker snapshot, while no stream lives.
- **How to read it:** a request is PENDING, then PROCESSING under a lease, then SUCCESS or FAILED;
  `error_message` says why. `position-sync queue list` shows the same.
- **Events:** an observation counts what was inserted since the last one; the stream materializes
  when its state changes and each quarter of an hour.
""",
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
    if report.connected:
        context.log_event(gateway_seen(position_sync.settings.gateway_id))
        for spec in (BROKER_POSITIONS, GATEWAY_SESSIONS):
            context.log_event(observe_table(lake, spec))
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
