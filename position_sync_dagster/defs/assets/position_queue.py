"""The asset `position_queue`: the requests to value a position without a market data line."""

import asyncio

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.libraries import refresh
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import REFRESHED, STREAM_JOB
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake.schema import tables as specs
from position_sync_dagster.sync.run_recorder import RefreshReport

REFRESH_S = 75.0
"""Time limit for the refresh of one of several logins; less than that of a drain run."""


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

    Written by the owner of the login: the stream inserts a request when a position changed, and
    by interval. Materializing does the same once, from one broker snapshot, while no stream lives.

    How to read it: a request is PENDING, then PROCESSING under a lease, then SUCCESS or FAILED;
    error_message says why. position-sync queue list shows the same.

    Events: an observation counts what was inserted since the last one; the stream materializes
    when its state changes and each quarter of an hour.
    """
    lake, settings = position_sync.lake, position_sync.settings
    named = context.run.tags.get(REFRESHED)
    logins = [
        login for login in settings.logins if named is None or login.gateway_id in named.split()
    ]
    several = len(settings.logins) > 1
    within_s = REFRESH_S if several else None
    found = asyncio.run(
        refresh.refresh_logins(lake, logins, run_id=context.run.run_id, within_s=within_s)
    )
    errors = {name: one for name, one in found.items() if isinstance(one, PositionSyncError)}
    reports = {name: one for name, one in found.items() if isinstance(one, RefreshReport)}
    if errors and not reports:  # else those that cannot be refreshed are logged
        raise next(iter(errors.values()))
    for name, error in errors.items():
        context.log.error(f"{name}: {error}")
    connected = [name for name, report in reports.items() if report.connected]
    version = max((report.queue_version or 0 for report in reports.values()), default=0)
    version = version or lake.queue.table.version()
    for name in connected:
        seen = {"state": "LIVE", "gateway": name}
        context.log_event(table_asset.gateway_seen("A refresh saw the gateway", seen))
    for spec in (specs.BROKER_POSITIONS, specs.GATEWAY_SESSIONS) if connected else ():
        context.log_event(table_asset.followed_table(lake, spec))
    notes = {name: report.reason for name, report in reports.items() if report.reason}
    notes |= {name: error.what for name, error in errors.items()}
    return dg.MaterializeResult(
        metadata={
            "enqueued": sum(report.enqueued for report in reports.values()),
            "positions": sum(report.positions for report in reports.values()),
            "accounts": sum(report.accounts for report in reports.values()),
            "incomplete_accounts": sum(len(one.incomplete_accounts) for one in reports.values()),
            "connections": len(connected),
            "delta_version": version,
            "duration_s": max((report.duration_s for report in reports.values()), default=0.0),
            "note": "; ".join(f"{n}: {why}" if several else why for n, why in notes.items()),
        },
        data_version=dg.DataVersion(str(version)),
    )
