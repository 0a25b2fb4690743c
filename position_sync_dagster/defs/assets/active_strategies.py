"""The asset `active_strategies`: the legs of active strategies, from the strategies file."""

from collections.abc import Sequence

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import runless, table_asset
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema.tables import ACTIVE_STRATEGIES
from position_sync_dagster.lake.strategies_file import follow_file
from position_sync_dagster.settings import Settings

MOST_ROLLED = 50
"""Maximum number of rolled legs that an event lists."""


@table_asset(ACTIVE_STRATEGIES)
def active_strategies(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """The legs of active strategies: these are valued by market data lines.

    Written by position-sync strategies, the library, or the strategies file, which the sensor
    drain_queue applies when it is saved; materializing does the same.

    How to read it: a row is the membership of a leg in a strategy, from added_at until
    removed_at, which is null while the leg is active. A leg without an account is held in any.
    """
    apply_file(position_sync.lake, position_sync.settings)
    found = event(position_sync.lake, position_sync.settings)
    version = position_sync.lake.registry.sync.version
    return dg.MaterializeResult(metadata=found.metadata, data_version=dg.DataVersion(str(version)))


def apply_file(lake: tables.Lake, settings: Settings) -> None:
    """Make the table equal to the strategies file, if there is one.

    Raises:
        StrategiesFileError: The file cannot be read or has a mistake; nothing was changed.
        InvalidLegError: A leg is impossible; nothing was changed.
    """
    path = settings.strategies_file
    if path is not None:
        follow_file(lake.registry.sync, path)


def event(lake: tables.Lake, settings: Settings) -> dg.AssetMaterialization:
    """Return the event of the table: how many legs and strategies are active, and which rolled."""
    registry = lake.registry.sync
    legs = registry.get_all_active()
    metadata: dict[str, dg.RawMetadataValue] = {
        "dagster/row_count": len(legs),
        "strategies": len({leg.strategy_id for leg in legs}),
        "conids": len({leg.conid for leg in legs}),
        "delta_version": str(registry.version),
        "strategies_file": str(settings.strategies_file or "none: the table rules"),
        **_rolled(legs),
    }
    return runless(ACTIVE_STRATEGIES.name, metadata, str(registry.version))


def _rolled(legs: Sequence[ActiveContract]) -> dict[str, dg.MetadataValue]:
    """Return the legs that took the place of others by rolls, one line each."""
    lines = [
        f"- {leg.strategy_id}: {contract_name(leg)} "
        f"({leg.conid}) in the place of {leg.rolled_from} since {leg.added_at:%Y-%m-%d %H:%M} UTC"
        for leg in legs
        if leg.rolled_from
    ]
    return {"rolled": dg.MetadataValue.md("\n".join(lines[:MOST_ROLLED]))} if lines else {}
