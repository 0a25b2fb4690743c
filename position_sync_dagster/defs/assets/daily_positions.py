"""The asset `daily_positions`: every holding at the close of each trading day."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.assets.money_metadata import day_metadata, seldom
from position_sync_dagster.defs.assets.table_asset import (
    DATA_VERSION,
    DERIVED,
    data_version,
    replacement_metadata,
    table_asset,
)
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.lake.derived import DAILY_POSITIONS

if TYPE_CHECKING:
    from position_sync_dagster.lake.derived import Replaced
    from position_sync_dagster.sync.history.closing import ClosedDay, ClosedDays


def daily_asset(
    partitions: dg.TimeWindowPartitionsDefinition, *, clock: Clock = utc_now
) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange."""

    @table_asset(
        DAILY_POSITIONS,
        group=DERIVED,
        deps=["position_updates", "flex_statements"],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "session_date"},
        output_required=False,
        description="The last value of every holding at or before the close of a trading day, "
        "with its age; where the program did not run, what the broker's statement says (source "
        "FLEX). A day is replaced whole, so filling it again changes nothing. A day that nothing "
        "is known of stays missing.",
    )
    def daily_positions(
        context: dg.AssetExecutionContext, position_sync: PositionSyncResource
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetMaterialization | dg.AssetObservation]:
        """Replace the partitions of all the run's days that have a source, in one commit."""
        found, result = fill(context, position_sync)
        table = position_sync.derived_table(DAILY_POSITIONS)
        shared = {} if result is None else replacement_metadata(table, result)
        if result is not None and not found.skipped:
            for day, closed in found.filled.items():
                context.add_asset_metadata(describe(closed), partition_key=day.isoformat())
            yield dg.MaterializeResult(metadata=shared, data_version=data_version(result.version))
            return
        for day, closed in found.filled.items():
            yield dg.AssetMaterialization(
                DAILY_POSITIONS.name,
                partition=day.isoformat(),
                metadata={**shared, **describe(closed)},
                tags={DATA_VERSION: str(result.version)} if result else None,
            )
        for day, why in found.skipped.items():
            yield dg.AssetObservation(
                DAILY_POSITIONS.name,
                partition=day.isoformat(),
                description=f"Not filled: {why}.",
                metadata={"skipped": why},
            )

    def fill(
        context: dg.AssetExecutionContext, position_sync: PositionSyncResource
    ) -> "tuple[ClosedDays, Replaced | None]":
        from position_sync_dagster.sync.history.closing import ClosingService

        days = [date.fromisoformat(key) for key in context.partition_keys]
        service = ClosingService(position_sync.lake, position_sync.settings, clock=clock)
        found = service.collect(days)
        for error in found.unreadable:
            context.log.warning(f"A statement was left out: {error}")
        for day, why in found.skipped.items():
            context.log.warning(f"{day} is not filled: {why}.")
        if not found.filled:
            return found, None
        frames = {day: closed.rows for day, closed in found.filled.items()}
        table = position_sync.derived_table(DAILY_POSITIONS)
        result = table.replace_days(frames, run_id=context.run.run_id)
        service.record_differences(found.filled, run_id=context.run.run_id)
        return found, result

    return daily_positions


def describe(closed: "ClosedDay") -> "Mapping[str, dg.RawMetadataValue]":
    """Return the metadata of one day."""
    rows = closed.rows
    return {
        "dagster/partition_row_count": rows.height,
        "held": rows.filter(rows["position"] != 0).height,
        **seldom(without_value=rows["market_value"].null_count()),
        **day_metadata(rows),
        "oldest_value_age_s": rows["age_s"].max() or 0.0,
        "closed_at": dg.MetadataValue.timestamp(closed.closed_at),
        "written_that_day": closed.written,
        "from_statement": closed.stated,
        "differences": len(closed.differences),
        "statements": ", ".join(closed.files),
    }
