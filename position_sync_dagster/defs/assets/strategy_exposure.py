"""The asset `strategy_exposure`: what each strategy holds and is worth."""

from dataclasses import asdict
from datetime import UTC, datetime

import dagster as dg

from position_sync_dagster.defs.assets.asset_metadata import (
    DERIVED,
    KINDS,
    OWNERS,
    TAGS,
    columns_of,
    data_version,
    written,
)
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import GatewayResource, LakeResource
from position_sync_dagster.lake.derived import (
    LATEST_POSITIONS,
    STRATEGY_EXPOSURE,
    DerivedTable,
    current_values,
)
from position_sync_dagster.lake.storage.codec import frame_of, updates_of
from position_sync_dagster.sync.reports.exposure import exposures


@dg.asset(
    deps=["position_updates", "active_strategies"],
    group_name=DERIVED,
    owners=OWNERS,
    kinds=KINDS,
    tags=TAGS,
    metadata=columns_of(STRATEGY_EXPOSURE),
    description="Per strategy, currency and class of asset: value, profit and greeks over what "
    "is known, with the number of legs that are not. Futures count as notional, never as value.",
)
def strategy_exposure(
    context: dg.AssetExecutionContext, lake: LakeResource, gateway: GatewayResource
) -> dg.MaterializeResult[None]:
    """Sum the newest rows over the legs of each strategy."""
    with dagster_failures():
        settings = gateway.settings(lake)
        tables = lake.open(settings)
        latest = DerivedTable(settings.table("latest_positions"), LATEST_POSITIONS)
        values = updates_of(current_values(tables.updates.sync, latest))
        found = exposures(tables.registry.sync.get_all_active(), values)
        table = DerivedTable(settings.table("strategy_exposure"), STRATEGY_EXPOSURE)
        rows = frame_of(STRATEGY_EXPOSURE, (asdict(exposure) for exposure in found))
        result = table.replace(rows, run_id=context.run.run_id)
    times = [e.oldest_value_at for e in found if e.oldest_value_at is not None]
    metadata = written(table, result) | {
        "dagster/row_count": result.rows,
        "strategies": len({e.strategy_id for e in found}),
        "legs": sum(e.legs for e in found),
        "legs_held": sum(e.legs_held for e in found),
        "legs_without_value": sum(e.legs_without_value for e in found),
        "legs_without_greeks": sum(e.legs_without_greeks for e in found),
    }
    if times:
        metadata["oldest_value_age_s"] = (datetime.now(UTC) - min(times)).total_seconds()
    return dg.MaterializeResult(metadata=metadata, data_version=data_version(result.version))
