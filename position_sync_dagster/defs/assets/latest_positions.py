"""The asset `latest_positions`: the newest row of every holding, as a table."""

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
from position_sync_dagster.lake.derived import LATEST_POSITIONS, DerivedTable, current_values


@dg.asset(
    deps=["position_updates"],
    group_name=DERIVED,
    owners=OWNERS,
    kinds=KINDS,
    tags=TAGS,
    metadata=columns_of(LATEST_POSITIONS),
    description="The newest row of every holding. A snapshot every quarter of an hour for "
    "readers without code; `PositionUpdatesTable.latest()` gives the same at any moment.",
)
def latest_positions(
    context: dg.AssetExecutionContext, lake: LakeResource, gateway: GatewayResource
) -> dg.MaterializeResult[None]:
    """Replace the table by the newest rows; unchanged rows make no new version."""
    with dagster_failures():
        settings = gateway.settings(lake)
        table = DerivedTable(settings.table("latest_positions"), LATEST_POSITIONS)
        rows = current_values(lake.open(settings).updates.sync, table)
        result = table.replace(rows, run_id=context.run.run_id)
    return dg.MaterializeResult(
        metadata=written(table, result)
        | {
            "dagster/row_count": result.rows,
            "held": rows.filter(rows["position"] != 0).height,
            "without_value": rows["market_value"].null_count(),
        },
        data_version=data_version(result.version),
    )
