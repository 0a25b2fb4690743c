"""The asset `active_strategies`: the legs of active strategies, by the strategies file."""

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import POSITIONS, data_version, table_asset
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.run_history import REGISTRY_VERSION
from position_sync_dagster.lake.schema.tables import ACTIVE_STRATEGIES


@table_asset(
    ACTIVE_STRATEGIES,
    group=POSITIONS,
    description="The legs of active strategies, each with the interval of its stay. Materializing "
    "makes the table equal to the strategies file, where there is one.",
)
@dagster_failures
def active_strategies(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """Make the table equal to the strategies file; without a file, record what it holds."""
    path = position_sync.settings.strategies_file
    registry = position_sync.lake.registry.sync
    if path is not None:
        from position_sync_dagster.lake.registry.strategies_file import load_strategies

        registry.replace_all(load_strategies(path))
    legs = registry.get_all_active()
    context.instance.add_run_tags(context.run.run_id, {REGISTRY_VERSION: str(registry.version)})
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(legs),
            "strategies": len({leg.strategy_id for leg in legs}),
            "conids": len({leg.conid for leg in legs}),
            "delta_version": registry.version,
            "strategies_file": str(path or "none: the table rules"),
        },
        data_version=data_version(registry.version),
    )
