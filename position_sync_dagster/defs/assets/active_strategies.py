"""The asset `active_strategies`: the legs of active strategies, from the strategies file."""

from collections.abc import Iterator, Sequence

import dagster as dg

from position_sync_dagster.defs import staying
from position_sync_dagster.defs.assets.table_asset import table_asset
from position_sync_dagster.defs.checks.evaluation import KEYS, evaluated
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import DRAIN_JOB, FILE_REFUSED, REGISTRY_VERSION
from position_sync_dagster.domain.instrument import contract_name
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError
from position_sync_dagster.lake.schema.tables import ACTIVE_STRATEGIES

MOST_ROLLED = 50
"""Maximum number of rolled legs that an event lists."""


@table_asset(
    ACTIVE_STRATEGIES,
    job=DRAIN_JOB,
)
def active_strategies(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> Iterator[dg.MaterializeResult[None]]:
    """The legs of active strategies: these are valued by market data lines.

    Written by position-sync strategies, the library, or the strategies file; materializing
    makes the table equal to that file if there is one, and otherwise records its contents.

    How to read it: a row is the membership of a leg in a strategy, from added_at until
    removed_at, which is null while the leg is active. A leg without an account is held in any.
    """
    path = position_sync.settings.strategies_file
    registry = position_sync.lake.registry.sync
    if path is not None:
        try:
            registry.follow(path)
        except (StrategiesFileError, InvalidLegError):
            context.instance.add_run_tags(context.run.run_id, {FILE_REFUSED: "true"})
            raise
    legs = registry.get_all_active()
    context.instance.add_run_tags(context.run.run_id, {REGISTRY_VERSION: str(registry.version)})
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(legs),
            "strategies": len({leg.strategy_id for leg in legs}),
            "conids": len({leg.conid for leg in legs}),
            "delta_version": registry.version,
            "strategies_file": str(path or "none: the table rules"),
            **_rolled(legs),
        },
        data_version=dg.DataVersion(str(registry.version)),
    )
    # If the drain also materializes the ledger, that step evaluates the checks.
    alone = dg.AssetKey("position_updates") not in (context.run.asset_selection or ())
    if context.job_name == DRAIN_JOB and alone:
        checks = [key for key in KEYS if key.asset_key == context.asset_key]
        lake, settings, run_id = position_sync.lake, position_sync.settings, context.run.run_id
        for event in evaluated(lake, settings, context.instance, run_id=run_id, checks=checks):
            context.log_event(event)
        staying.stay(context, position_sync)


def _rolled(legs: Sequence[ActiveContract]) -> dict[str, dg.MetadataValue]:
    """Return the legs that took the place of others by rolls, one line each."""
    lines = [
        f"- {leg.strategy_id}: {contract_name(leg)} "
        f"({leg.conid}) in the place of {leg.rolled_from} since {leg.added_at:%Y-%m-%d %H:%M} UTC"
        for leg in legs
        if leg.rolled_from
    ]
    return {"rolled": dg.MetadataValue.md("\n".join(lines[:MOST_ROLLED]))} if lines else {}
