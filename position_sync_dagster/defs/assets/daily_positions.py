"""The asset `daily_positions`: every holding at the close of each trading day."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from position_sync_dagster.defs.assets.exchange_partitions import exchange_partitions, known_days
from position_sync_dagster.defs.assets.table_asset import (
    Lineage,
    column_lineage,
    data_version,
    replacement_metadata,
    table_asset,
)
from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.lake.derived import DAILY_POSITIONS, values_at_close
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync.reports.exchange_days import ExchangeDays, closing_times

CLOSE_JOB = "close_day"

CLOSED_DAYS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=5), warn_window=timedelta(days=4)
)
"""A trading day is filled at its close; no pause of an exchange is longer than four days."""

LINEAGE: Lineage = {name: [("position_updates", name)] for name in DAILY_POSITIONS.columns} | {
    "session_date": [("position_updates", "timestamp")],
    "closed_at": [("position_updates", "timestamp")],
    "age_s": [("position_updates", "value_time"), ("position_updates", "timestamp")],
}

SETTLE = timedelta(minutes=20)
"""Index options trade, and the last values arrive, until a quarter of an hour after the close."""


def daily_asset(
    partitions: dg.DailyPartitionsDefinition, *, clock: Clock = utc_now
) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange."""

    @table_asset(
        DAILY_POSITIONS,
        deps=["position_updates"],
        lineage=LINEAGE,
        job=CLOSE_JOB,
        freshness=CLOSED_DAYS,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "session_date"},
        description="""
Every holding at the close of a trading day: the last value at or before the close, with its age.

- **Written by** the job `close_day`, shortly after each close, and by backfills of any range.
- **How to read it:** one row per trading day, account and contract. A day is replaced whole, so
  filling it again changes nothing. `age_s` says how old a value was at the close.
""",
    )
    @dagster_failures
    def daily_positions(
        context: dg.AssetExecutionContext, position_sync: PositionSyncResource
    ) -> dg.MaterializeResult[None]:
        """Replace the partitions of all the run's days in one commit."""
        days = {date.fromisoformat(key): key for key in context.partition_keys}
        closes = closing_times(position_sync.settings.calendar, days, now=clock())
        frames = {
            day: values_at_close(
                position_sync.lake.updates.sync,
                day,
                opened=partitions.time_window_for_partition_key(key).start,
                closed=closes[day],
            )
            for day, key in days.items()
        }
        table = position_sync.derived_table(DAILY_POSITIONS)
        result = table.replace_days(frames, run_id=context.run.run_id)
        for day, frame in frames.items():
            context.add_asset_metadata(
                {
                    "dagster/partition_row_count": frame.height,
                    "held": frame.filter(frame["position"] != 0).height,
                    "without_value": frame["market_value"].null_count(),
                    "oldest_value_age_s": frame["age_s"].max() or 0.0,
                    "closed_at": dg.MetadataValue.timestamp(closes[day]),
                },
                partition_key=days[day],
            )
        return dg.MaterializeResult(
            metadata=replacement_metadata(table, result) | column_lineage(LINEAGE),
            data_version=data_version(result.version),
        )

    return daily_positions


@dg.definitions
def daily() -> dg.Definitions:
    """Build asset, job and schedule for the exchange that the settings name."""
    settings = load_settings()
    days = known_days(settings.calendar, date.fromisoformat(settings.daily_start))
    partitions = exchange_partitions(days, settings.daily_start)
    asset = daily_asset(partitions)
    job = dg.define_asset_job(
        CLOSE_JOB,
        selection=[asset],
        description="Record every holding at the close of a trading day, or of a range of them.",
    )
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[closing_schedule(days)])


def closing_schedule(days: ExchangeDays) -> dg.ScheduleDefinition:
    """Build the schedule that records each trading day shortly after its usual close.

    Dagster's own schedule for partitions would run on holidays too, for the trading day before,
    unless the job were given its partitions in a way that is deprecated.
    """
    runs_at = datetime.combine(date(2000, 1, 1), days.closes_at) + SETTLE

    @dg.schedule(
        name="after_the_close",
        job_name=CLOSE_JOB,
        cron_schedule=f"{runs_at.minute} {runs_at.hour} * * 1-5",
        execution_timezone=days.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Shortly after the usual close of {days.calendar}, on its trading days.",
    )
    def after_the_close(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = context.scheduled_execution_time.astimezone(ZoneInfo(days.timezone)).date()
        if not days.is_trading_day(day):
            return dg.SkipReason(f"{days.calendar} is closed on {day}.")
        return dg.RunRequest(partition_key=day.isoformat())

    return after_the_close
