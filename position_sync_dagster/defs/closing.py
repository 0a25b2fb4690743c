"""The job `close_day`, which records past days, and its schedules.

It runs after the close of the exchange, or a minute before midnight if that is the close, and again
at night. Stated positions are those of the source that an extension has.
"""

import inspect
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import dagster as dg

from position_sync_dagster.dagster_files import LAUNCHED_BY
from position_sync_dagster.defs.assets.past_days import (
    daily_asset,
    exchange_partitions,
    exchange_since,
)
from position_sync_dagster.defs.composition import composition_of
from position_sync_dagster.defs.resources import CLOSE_JOB, WRITTEN_BY, Automation
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.sync import exchange_days

# Number of trading days recorded again at night: rows and stated positions may come a week late.
LATE_DAYS = 8

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dg.definitions
def closing(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Define the asset of past days, its job and its schedules for the exchange in the settings."""
    composition = composition_of(context, Lake)
    stated = composition.extension.stated  # the class that collects past days
    # Stated positions may be of days before the ledger: they move the first partition.
    exchange, first_partition = exchange_since(composition.read_settings(), stated)
    partitions = exchange_partitions(exchange, first_partition)
    daily = daily_asset(
        partitions,
        composition.extension.lake,
        stated,
        longest_closed=exchange.longest_closed(utc_now().date()),
    )
    job = job_of(
        CLOSE_JOB,
        "Record a trading day after its close, or a range of days: each holding, and what is made "
        "of them.",
    )
    return dg.Definitions(
        assets=[daily],
        jobs=[job],
        schedules=schedules_of(exchange, first_partition, composition.automation),
    )


def job_of(name: str, description: str) -> Any:
    """Return the job that materializes the assets whose tag (`WRITTEN_BY`) has its name."""
    return dg.define_asset_job(
        name,
        executor_def=dg.in_process_executor,
        selection=dg.AssetSelection.tag(WRITTEN_BY, name),
        description=description,
    )


def scheduled(
    automation: Automation, job: str, cron: str, timezone: str
) -> Callable[[Any], dg.ScheduleDefinition]:
    """Return the decorator of a schedule of a project; its docstring describes it."""

    def decorate(evaluate: Any) -> dg.ScheduleDefinition:
        return dg.schedule(
            job_name=job,
            cron_schedule=cron,
            execution_timezone=timezone,
            default_status=dg.DefaultScheduleStatus(automation.status),
            owners=automation.owners,
            description=inspect.getdoc(evaluate),
        )(evaluate)

    return decorate


def schedules_of(
    days: exchange_days.Exchange, first: date, automation: Automation
) -> list[dg.ScheduleDefinition]:
    """Build the schedules, in the time zone of the exchange.

    Dagster's own schedule for partitions would also run on holidays, for the previous trading day,
    unless the job got its partitions in a deprecated way. At night the last trading days are
    recorded again: rows may be written late, and stated positions of a day come in the night after
    it or later. A day without new data does not change.

    Args:
        days: The exchange.
        first: The first day that is a partition: Dagster refuses a run of an earlier one.
        automation: Their owners, and whether they run from the start.
    """
    at = days.settled_at

    @scheduled(
        automation, CLOSE_JOB, f"{at.minute} {at.hour} * * {days.cron_days()}", days.timezone
    )
    def record_day_after_close(
        context: dg.ScheduleEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        """Record the trading day, about twenty minutes after the usual close of the exchange.

        If it closes at midnight, the day is recorded at 23:59, and with its end at night.
        """
        day = exchange_days.day_of(days.calendar, context.scheduled_execution_time)
        if not days.is_trading_day(day):
            return dg.SkipReason(f"{days.calendar} is closed on {day}.")
        return dg.RunRequest(
            partition_key=day.isoformat(), tags={LAUNCHED_BY: "record_day_after_close"}
        )

    @scheduled(automation, CLOSE_JOB, f"15 6 * * {days.cron_days(days_later=1)}", days.timezone)
    def record_late_rows(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Record the last eight trading days again at night, for late rows and stated positions."""
        today = exchange_days.day_of(days.calendar, context.scheduled_execution_time)
        over = [day for day in last_days(days, LATE_DAYS, before=today) if day >= first]
        if not over:
            return dg.SkipReason("No trading day is over yet.")
        day_range = {RANGE_START: over[0].isoformat(), RANGE_END: over[-1].isoformat()}
        return dg.RunRequest(tags={**day_range, LAUNCHED_BY: "record_late_rows"})

    return [record_day_after_close, record_late_rows]


def last_days(days: exchange_days.Exchange, number: int, *, before: date) -> list[date]:
    """Return the last trading days before a day, oldest first."""
    span = timedelta(days=3 * number + 7)  # weekends and holidays are fewer
    return days.trading_days(before - span, before - timedelta(days=1))[-number:]
