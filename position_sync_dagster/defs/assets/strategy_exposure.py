"""The asset `strategy_exposure`: what each strategy holds, and its value."""

from dataclasses import asdict
from datetime import UTC, datetime

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import (
    DERIVED,
    data_version,
    replacement_metadata,
    table_asset,
)
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.lake.derived import LATEST_POSITIONS, STRATEGY_EXPOSURE, current_values
from position_sync_dagster.lake.schema.codec import frame_of, updates_of
from position_sync_dagster.sync.reports.confirmations import confirmed_times
from position_sync_dagster.sync.reports.exposure import exposures


@table_asset(
    STRATEGY_EXPOSURE,
    group=DERIVED,
    deps=["position_updates", "active_strategies"],
    description="Per strategy, currency and class of asset: value, profit and greeks over what "
    "is known, with the number of legs that are not. Futures count as notional, never as value.",
)
@dagster_failures
def strategy_exposure(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Sum the newest rows over the legs of each strategy."""
    lake = position_sync.lake
    latest = current_values(lake.updates.sync, position_sync.derived_table(LATEST_POSITIONS))
    legs, now = lake.registry.sync.get_all_active(), datetime.now(UTC)
    details = lake.contracts.sync.get({leg.conid for leg in legs})
    rows = updates_of(latest)
    confirmed = confirmed_times(rows, lake, position_sync.settings, now)
    found = exposures(legs, rows, now=now, details=details, confirmed=confirmed)
    table = position_sync.derived_table(STRATEGY_EXPOSURE)
    frame = frame_of(STRATEGY_EXPOSURE, (asdict(exposure) for exposure in found))
    result = table.replace(frame, run_id=context.run.run_id)
    times = [e.oldest_value_at for e in found if e.oldest_value_at is not None]
    metadata = replacement_metadata(table, result) | {
        "dagster/row_count": result.rows,
        "strategies": len({e.strategy_id for e in found}),
        "legs": sum(e.legs for e in found),
        "legs_held": sum(e.legs_held for e in found),
        "legs_without_value": sum(e.legs_without_value for e in found),
        "legs_without_greeks": sum(e.legs_without_greeks for e in found),
    }
    if times:
        metadata["oldest_value_age_s"] = (now - min(times)).total_seconds()
    return dg.MaterializeResult(metadata=metadata, data_version=data_version(result.version))
