"""Hang assets, a check and a freshness of your own on the tables. It needs no gateway.

`.venv/bin/python examples/library/own_assets.py`
"""

import warnings
from datetime import date, timedelta
from tempfile import TemporaryDirectory

import dagster as dg
import polars as pl

from position_sync_dagster import (
    MoneyLake,
    PositionSyncComponent,
    PositionSyncResource,
    exchange_of,
    exchange_partitions,
    load_settings,
)

# It runs once holdings, limits, breaks or sessions changed, and each quarter of an hour.
AT_EACH_EVENT = dg.AutomationCondition.eager()

# Values alone are told each quarter of an hour: an asset that follows them is older then.
FRESH = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(minutes=45), warn_window=timedelta(minutes=25)
)


@dg.asset(deps=["latest_positions"], automation_condition=AT_EACH_EVENT, freshness_policy=FRESH)
def held_by_underlying(position_sync: PositionSyncResource) -> int:
    """How many underlyings are held."""
    lake = position_sync.lake_of(MoneyLake)
    held = lake.updates.sync.latest().filter(pl.col("position") != 0)
    return held["symbol"].n_unique()


@dg.asset_check(asset="latest_positions", blocking=True, automation_condition=AT_EACH_EVENT)
def every_holding_has_a_value(position_sync: PositionSyncResource) -> dg.AssetCheckResult:
    """Whether each holding has a value; where not, no asset after it in the same run is made."""
    held = position_sync.lake.updates.sync.latest().filter(pl.col("position") != 0)
    unknown = held["market_value"].null_count()
    return dg.AssetCheckResult(passed=not unknown, metadata={"without_value": unknown})


@dg.asset(deps=["latest_positions"])
def value_each_minute(position_sync: PositionSyncResource) -> float:
    """The sum of the known values, as they are now."""
    return float(position_sync.lake.updates.sync.latest()["market_value"].sum())


# A partition for each trading day, as `daily_positions` has.
DAYS = exchange_partitions(exchange_of("XNYS"), date(2026, 1, 2))


@dg.asset(deps=["daily_positions"], partitions_def=DAYS)
def held_at_the_close(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> int:
    """How many holdings were open at the close of a trading day."""
    day = date.fromisoformat(context.partition_key)
    rows = pl.read_delta(position_sync.settings.table("daily_positions"))
    return rows.filter(pl.col("session_date") == day, pl.col("position") != 0).height


# What reads the rows of now needs no event.
EACH_MINUTE = dg.ScheduleDefinition(
    name="each_minute", target=[value_each_minute], cron_schedule="* * * * *"
)

# Dagster's own sensor for conditions is stopped until a person starts it; this one runs. It names
# what it starts: an asset may be the target of one such sensor alone.
WITH_CONDITIONS = dg.AssetSelection.assets(held_by_underlying) | dg.AssetSelection.checks(
    every_holding_has_a_value
)
# A person may run both at once: the check first, and the asset only if it passes.
OWN_JOB = dg.define_asset_job("own", selection=WITH_CONDITIONS)

AT_EACH_EVENT_SENSOR = dg.AutomationConditionSensorDefinition(
    name="at_each_event",
    target=WITH_CONDITIONS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)

OWN = dg.Definitions(
    assets=[held_by_underlying, value_each_minute, held_at_the_close],
    asset_checks=[every_holding_has_a_value],
    jobs=[OWN_JOB],
    schedules=[EACH_MINUTE],
    sensors=[AT_EACH_EVENT_SENSOR],
)


def main() -> None:
    """Let a tick report the tables, and print what that makes run."""
    warnings.simplefilter("ignore", dg.BetaWarning)
    with TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        theirs = PositionSyncComponent().definitions(load_settings(), {"lake": folder})
        project = dg.Definitions.merge(theirs, OWN)

        begin = dg.evaluate_automation_conditions(project, instance)
        drain_queue = project.resolve_sensor_def("drain_queue")
        with dg.build_sensor_context(instance=instance) as context:
            ticked = drain_queue.evaluate_tick(context)
        for event in ticked.asset_events:
            instance.report_runless_asset_event(event)

        after = dg.evaluate_automation_conditions(project, instance, cursor=begin.cursor)
        print(f"{after.total_requested} of ours run after the first tick")
        assert after.get_num_requested(held_by_underlying.key) == 1

        ran = project.resolve_job_def("own").execute_in_process(instance=instance)
        print(f"{ran.output_for_node('held_by_underlying')} underlyings are held")
        [check] = ran.get_asset_check_evaluations()
        assert check.passed


if __name__ == "__main__":
    main()
