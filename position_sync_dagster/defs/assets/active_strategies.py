"""The asset `active_strategies`: who is active, as the strategies file says."""

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
from position_sync_dagster.defs.run_history import REGISTRY_VERSION
from position_sync_dagster.lake.storage.schemas import ACTIVE_STRATEGIES


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds=KINDS,
    tags=TAGS,
    metadata=columns_of(ACTIVE_STRATEGIES),
    description="The legs of active strategies, each with the interval of its stay. Materializing "
    "makes the table equal to the strategies file, where there is one.",
)
def active_strategies(
    context: dg.AssetExecutionContext, lake: LakeResource, gateway: GatewayResource
) -> dg.MaterializeResult[None]:
    """Make the table equal to the strategies file; without a file, record what it holds."""
    with dagster_failures():
        settings = gateway.settings(lake)
        registry = lake.open(settings).registry.sync
        if settings.strategies_file is not None:
            from position_sync_dagster.lake.registry.strategies_file import load_strategies

            registry.replace_all(load_strategies(settings.strategies_file))
        legs = registry.get_all_active()
    context.instance.add_run_tags(context.run.run_id, {REGISTRY_VERSION: str(registry.version)})
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(legs),
            "strategies": len({leg.strategy_id for leg in legs}),
            "conids": len({leg.conid for leg in legs}),
            "delta_version": registry.version,
            "strategies_file": str(settings.strategies_file or "none: the table rules"),
        },
        data_version=data_version(registry.version),
    )
