"""The asset `daily_positions`: every holding at the close of each trading day."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.assets.money_metadata import day_metadata, seldom
from position_sync_dagster.defs.assets.table_asset import (
    DATA_VERSION,
    Lineage,
    column_lineage,
    data_version,
    replacement_metadata,
    table_asset,
)
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.run_history import CLOSE_JOB
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.lake.schema.tables import DAILY_POSITIONS

if TYPE_CHECKING:
    from position_sync_dagster.lake.derived import Replaced
    from position_sync_dagster.sync.history.closing import ClosedDay, ClosedDays

CLOSED_DAYS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=5), warn_window=timedelta(days=4)
)
"""A trading day is filled at its close; no pause of an exchange is longer than four days."""

LINEAGE: Lineage = {name: [("position_updates", name)] for name in DAILY_POSITIONS.columns} | {
    "session_date": [("position_updates", "timestamp")],
    "closed_at": [("position_updates", "timestamp")],
    "age_s": [("position_updates", "value_time"), ("position_updates", "timestamp")],
}


def daily_asset(
    partitions: dg.TimeWindowPartitionsDefinition, *, clock: Clock = utc_now
) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange."""

    @table_asset(
        DAILY_POSITIONS,
        deps=["position_updates", "flex_statements"],
        lineage=LINEAGE,
        job=CLOSE_JOB,
        freshness=CLOSED_DAYS,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "session_date"},
        output_required=False,
        description="""
Every holding at the close of a trading day: the last value at or before the close, with its age.

- **Written by** the job `close_day`, shortly after each close, and by backfills of any range.
- **How to read it:** one row per trading day, account and contract. A day is replaced whole, so
  filling it again changes nothing. `age_s` says how old a value was at the close. Where the program
  did not run, the rows are what the broker's statement says (source FLEX). A day that nothing is
  known of stays missing.
""",
    )
    def daily_positions(
        context: dg.AssetExecutionContext, position_sync: PositionSyncResource
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetMaterialization | dg.AssetObservation]:
        """Replace the partitions of all the run's days that have a source, in one commit."""
        found, result = fill(context, position_sync)
        table = position_sync.derived_table(DAILY_POSITIONS)
        shared = (
            {} if result is None else replacement_metadata(table, result) | column_lineage(LINEAGE)
        )
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
