"""The job that records trading days, and its schedules: after the close, and again by night."""

from datetime import date, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from position_sync_dagster.defs.assets.daily_positions import daily_asset
from position_sync_dagster.defs.assets.exchange_partitions import exchange_partitions, known_days
from position_sync_dagster.defs.run_history import CLOSE_JOB, IMPORT_JOB
from position_sync_dagster.settings import load_settings
from position_sync_dagster.sync.reports.exchange_days import ExchangeDays

LATE_DAYS = 3
"""How many trading days are recorded again by night: rows and statements may come late."""

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dg.definitions
def daily() -> dg.Definitions:
    """Build asset, job and schedules for the exchange that the settings name."""
    days, first = known_days(load_settings())
    asset = daily_asset(exchange_partitions(days, first))
    job = dg.define_asset_job(
        CLOSE_JOB,
        selection=dg.AssetSelection.assets(asset) | dg.AssetSelection.checks_for_assets(asset),
        description="Record every holding at the close of a trading day, or of a range of them.",
    )
    importing = dg.define_asset_job(
        IMPORT_JOB,
        selection=dg.AssetSelection.assets("flex_statements", "executions"),
        description="Download the Flex query of the settings, and store trades and cash of all "
        "statements.",
    )
    schedules = [closing_schedule(days), late_schedule(days, first), statement_schedule(days)]
    return dg.Definitions(assets=[asset], jobs=[job, importing], schedules=schedules)


def closing_schedule(days: ExchangeDays) -> dg.ScheduleDefinition:
    """Build the schedule that records each trading day shortly after its usual close.

    Dagster's own schedule for partitions would run on holidays too, for the trading day before,
    unless the job were given its partitions in a way that is deprecated.
    """
    at = days.settled_at

    @dg.schedule(
        name="after_the_close",
        job_name=CLOSE_JOB,
        cron_schedule=f"{at.minute} {at.hour} * * 1-5",
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


def late_schedule(days: ExchangeDays, first: date) -> dg.ScheduleDefinition:
    """Build the schedule that records the last trading days again, before the next one opens.

    Rows may be written late, and the broker makes a day's statement in the night after it. A day
    without news changes nothing.
    """

    @dg.schedule(
        name="late_rows",
        job_name=CLOSE_JOB,
        cron_schedule="15 6 * * 2-6",
        execution_timezone=days.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"By night: the last {LATE_DAYS} trading days again, for late rows and "
        "statements.",
    )
    def late_rows(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        today = context.scheduled_execution_time.astimezone(ZoneInfo(days.timezone)).date()
        last = [day for day in last_days(days, before=today) if day >= first]
        if not last:
            return dg.SkipReason("No trading day is over yet.")
        return dg.RunRequest(
            tags={RANGE_START: last[0].isoformat(), RANGE_END: last[-1].isoformat()}
        )

    return late_rows


def statement_schedule(days: ExchangeDays) -> dg.ScheduleDefinition:
    """Build the schedule that imports statements, before the last days are recorded again."""

    @dg.schedule(
        name="nightly_statements",
        job_name=IMPORT_JOB,
        cron_schedule="0 6 * * 2-6",
        execution_timezone=days.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="By night: download and import the broker's statements, if there are any.",
    )
    def nightly_statements(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        settings = load_settings()
        if settings.flex_token is None and not settings.flex_folder.is_dir():
            return dg.SkipReason(
                "No statements: POSITION_SYNC_FLEX_FOLDER is no folder, and no "
                "POSITION_SYNC_FLEX_TOKEN is set."
            )
        return dg.RunRequest()

    return nightly_statements


def last_days(days: ExchangeDays, *, before: date, count: int = LATE_DAYS) -> list[date]:
    """Return the last trading days before a day, oldest first."""
    found: list[date] = []
    day = before
    while len(found) < count:
        day -= timedelta(days=1)
        if days.is_trading_day(day):
            found.append(day)
    return found[::-1]
