"""The asset `daily_positions` with its check: every holding at the close of each trading day.

The trading days of an exchange are the partitions of all assets of past days; each exists from its
close on. The job `close_day` records them after the close, and again at night.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl

from position_sync_dagster.dagster_files import LAUNCHED_BY
from position_sync_dagster.defs import resources
from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.checks.evaluation import failed, passed, table_check
from position_sync_dagster.defs.dagster_internals import WITHOUT_EVENTS
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.lake import derived
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema import DAILY_POSITIONS, TableSpec
from position_sync_dagster.lake.storage.object_store import first_ledger_day
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import exchange_days
from position_sync_dagster.sync.past_days import ClosedDay, ClosedDays, ClosingService, StatedDays

# A trading day is recorded after its close; an exchange is never closed for more than four
# days.
CLOSED_DAYS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=5), warn_window=timedelta(days=4)
)

# Makes the source of stated positions for a lake; definitions above the core fill it as they are
# loaded. It has the days of every account where no lake is named.
STATED: list[Callable[[Settings, Any], StatedDays]] = []

# The assets that this source reads.
STATED_BY: list[str] = []


def stated_days(settings: Settings, lake: tables.Lake | None = None) -> StatedDays | None:
    """Return the source of stated positions, if there is one."""
    if not STATED:
        return None

    return STATED[0](settings, lake)


def closing_service(
    lake: tables.Lake, settings: Settings, clock: Clock = utc_now
) -> ClosingService:
    """Return what collects the rows of past days of a lake."""
    return ClosingService(lake, settings, stated=stated_days(settings, lake), clock=clock)


MADE_OF = {"session_date": "timestamp", "closed_at": "timestamp", "age_s": "value_time timestamp"}


def over_trading_days(
    spec: TableSpec,
    partitions: dg.TimeWindowPartitionsDefinition,
    *,
    metadata: "Mapping[str, dg.RawMetadataValue] | None" = None,
    **options: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return the decorator of an asset whose partitions are the trading days of an exchange.

    Args:
        spec: The table; a day of it is replaced whole.
        partitions: The trading days.
        metadata: Further metadata of the definition.
        options: Other arguments of `dg.asset`, such as `deps`.
    """
    return table_asset.table_asset(
        spec,
        writer=resources.CLOSE_JOB,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "session_date", **(metadata or {})},
        **options,
    )


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """Return the trading days that a run is to fill."""
    return [date.fromisoformat(key) for key in context.partition_keys]


def daily_asset(
    partitions: dg.TimeWindowPartitionsDefinition, *, clock: Clock = utc_now
) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange."""

    @over_trading_days(
        DAILY_POSITIONS,
        partitions,
        deps=["position_updates", *STATED_BY],
        freshness_policy=CLOSED_DAYS,
        metadata=table_asset.column_lineage(DAILY_POSITIONS, MADE_OF),
    )
    def daily_positions(
        context: dg.AssetExecutionContext, position_sync: resources.PositionSyncResource
    ) -> dg.MaterializeResult[None]:
        """Every holding at the close of a trading day: its last value until then, with its age.

        The check days_are_complete is yellow while a trading day since the first recorded one is
        missing. Earlier days that statements have wait for you: choose Materialize, then Missing,
        then Launch backfill. The demo begins with five such days.

        Written by the job close_day, shortly after each close, and by backfills of any range.

        How to read it: one row per trading day, account and contract. A day is replaced whole, so
        filling it again changes nothing. age_s says how old a value was at the close. If the
        program did not run, the rows come from the broker's statement (source FLEX). A day
        without any source stays missing.
        """
        closed_days, result = fill(
            position_sync.lake, position_sync.settings, days_of(context),
            run_id=context.run.run_id, clock=clock,
        )  # fmt: skip
        for error in closed_days.unreadable:
            context.log.warning(f"A statement was left out: {error}")

        version = str(result.version)
        shared = table_asset.replacement_metadata(result)
        if not closed_days.skipped:
            for day, closed in closed_days.filled.items():
                context.add_asset_metadata(describe(closed), partition_key=day.isoformat())
            return dg.MaterializeResult(metadata=shared, data_version=dg.DataVersion(version))

        key = resources.key_of(DAILY_POSITIONS.name)
        for day, closed in closed_days.filled.items():
            event = dg.AssetMaterialization(
                key,
                partition=day.isoformat(),
                metadata={**shared, **describe(closed)},
                tags={table_asset.DATA_VERSION: version},
            )
            context.log_event(event)
        for day, why in closed_days.skipped.items():
            skipped = dg.AssetObservation(
                key,
                partition=day.isoformat(),
                description=f"Not filled: {why}.",
                metadata={"skipped": why},
            )
            context.log_event(skipped)
        return dg.MaterializeResult(metadata=WITHOUT_EVENTS)

    return daily_positions


def fill(
    lake: tables.Lake,
    settings: Settings,
    days: list[date],
    *,
    run_id: str | None = None,
    clock: Clock = utc_now,
) -> tuple[ClosedDays, derived.Replaced]:
    """Write the rows of trading days, and record what differs from the broker's statements."""

    def make() -> ClosedDays:
        service = closing_service(lake, settings, clock)
        closed_days = service.collect(days)
        # A day that has rows is not filled again: they come last.
        service.record_differences(closed_days.filled, run_id=run_id)
        return closed_days

    def rows_of(closed_days: ClosedDays) -> dict[date, pl.DataFrame]:
        return {day: closed.rows for day, closed in closed_days.filled.items()}

    return derived.derive(lake.derived_table(DAILY_POSITIONS), make, rows_of, run_id=run_id)


def describe(closed: ClosedDay) -> "Mapping[str, dg.RawMetadataValue]":
    """Return the metadata of one day: counts, and the profit and loss by currency."""
    rows = closed.rows
    held = rows.filter(pl.col.position != 0)
    without = table_asset.seldom(
        without_value=rows["market_value"].null_count(),
        without_daily_pnl=held["daily_pnl"].null_count(),
        rows_left_out=len(closed.left_out),
    )

    ages = rows["age_s"]
    oldest_s: Any = None if ages.has_nulls() else ages.max()
    numbers: dict[str, float | None] = {"oldest_value_age_s": oldest_s}
    for (currency,), part in rows.group_by("currency", maintain_order=True):
        for name in ("daily_pnl", "unrealized_pnl"):
            amounts = part[name].drop_nulls()
            total = sum(amounts) if amounts.len() else None
            numbers[f"{name}/{currency}"] = total

    return {
        "dagster/partition_row_count": rows.height,
        "held": held.height,
        **without,
        **table_asset.plotted(numbers),
        "closed_at": dg.MetadataValue.timestamp(closed.closed_at),
        "from_statement": closed.stated,
        "differences": len(closed.differences),
        "statements": ", ".join(closed.files),
    }


# Years ahead for which holidays are looked up: a code location may run that long.
YEARS_AHEAD = 2


def known_days(settings: Settings) -> tuple[exchange_days.ExchangeDays, date]:
    """Return the days of the exchange in the settings, and the first day that is a partition.

    Raises:
        SettingsError: The exchange is not known.
    """
    start = _first_day(settings, [_first_stated_day(settings)])
    last_year = datetime.now(UTC).year + YEARS_AHEAD
    return exchange_days.exchange_days(settings.calendar, start, date(last_year, 12, 31)), start


def exchange_partitions(
    days: exchange_days.ExchangeDays, first: date
) -> dg.TimeWindowPartitionsDefinition:
    """Return one partition per trading day, which Dagster offers once the day can be recorded.

    Dagster offers a partition when its window is over. The window of a day is the minute before the
    day can be recorded: the windows between two days, and those of holidays, are left out.
    """
    end = days.settled_at
    begin = (datetime.combine(first, end) - timedelta(minutes=1)).time()
    hours = sorted({begin.hour, end.hour})
    minutes = sorted({begin.minute, end.minute})
    weekdays = days.cron_days()

    # A cron schedule has each minute in each hour: all but the begin of the window are left out.
    exclusions = [
        f"{minute} {hour} * * {weekdays}"
        for hour, minute in product(hours, minutes)
        if (hour, minute) != (begin.hour, begin.minute)
    ]

    return dg.TimeWindowPartitionsDefinition(
        start=first.isoformat(),
        fmt="%Y-%m-%d",
        timezone=days.timezone,
        cron_schedule=f"{_listed(minutes)} {_listed(hours)} * * {weekdays}",
        exclusions=[*exclusions, *days.holidays_at(begin)],
    )


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _first_day(settings: Settings, days: Iterable[date | None]) -> date:
    """Return the setting, or the first of some days and the first day of the ledger; else today."""
    if settings.daily_start:
        return date.fromisoformat(settings.daily_start)

    of_ledger = first_ledger_day(settings.table("position_updates"))
    first_days = filter(None, (of_ledger, *days))
    return min(first_days, default=datetime.now(UTC).date())


def _first_stated_day(settings: Settings) -> date | None:
    stated = stated_days(settings)
    if stated is None:
        return None

    return min(stated.days(), default=None)


# Number of trading days recorded again at night: rows may come late, and statements a week later.
LATE_DAYS = 8

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dg.definitions
def daily() -> dg.Definitions:
    """Build asset, check, job and schedules for the exchange in the settings."""
    days, first = known_days(resources.POSITION_SYNC.read_settings())
    closing = job_of(
        resources.CLOSE_JOB,
        "Record a trading day after its close, or a range of days: each holding, what moved its "
        "profit, the books, and the campaigns that are over.",
    )
    return dg.Definitions(
        assets=[daily_asset(exchange_partitions(days, first))],
        asset_checks=[days_are_complete],
        jobs=[closing],
        schedules=schedules_of(days, first),
    )


def job_of(name: str, description: str) -> Any:
    """Return the job that materializes the assets which it writes."""
    selection = dg.AssetSelection.tag(resources.WRITTEN_BY, name)
    return dg.define_asset_job(
        name,
        executor_def=dg.in_process_executor,
        selection=selection,
        description=description,
    )


def scheduled(job: str, cron: str, timezone: str) -> Callable[[Any], dg.ScheduleDefinition]:
    """Return the decorator of a schedule that runs from the start; its docstring describes it."""

    def decorate(evaluate: Any) -> dg.ScheduleDefinition:
        define = dg.schedule(
            job_name=job,
            cron_schedule=cron,
            execution_timezone=timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=inspect.getdoc(evaluate),
        )
        return define(evaluate)

    return decorate


def schedules_of(days: exchange_days.ExchangeDays, first: date) -> list[dg.ScheduleDefinition]:
    """Build the schedules, in the time zone of the exchange.

    Dagster's own schedule for partitions would also run on holidays, for the previous trading day,
    unless the job got its partitions in a deprecated way. At night, statements are imported before
    the last trading days are recorded again: rows may be written late, and the broker makes the
    statement of a day in the following night. A day without new data does not change.
    """
    zone = ZoneInfo(days.timezone)
    at = days.settled_at

    @scheduled(resources.CLOSE_JOB, f"{at.minute} {at.hour} * * {days.cron_days()}", days.timezone)
    def record_day_after_close(
        context: dg.ScheduleEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        """Record the trading day, twenty minutes after the usual close of the exchange."""
        day = context.scheduled_execution_time.astimezone(zone).date()
        if not days.is_trading_day(day):
            return dg.SkipReason(f"{days.calendar} is closed on {day}.")
        launched_by = {LAUNCHED_BY: "record_day_after_close"}
        return dg.RunRequest(partition_key=day.isoformat(), tags=launched_by)

    @scheduled(resources.CLOSE_JOB, f"15 6 * * {days.cron_days(days_later=1)}", days.timezone)
    def record_late_rows(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Record the last eight trading days again at night, for late rows and statements."""
        today = context.scheduled_execution_time.astimezone(zone).date()
        over = [day for day in last_days(days, LATE_DAYS, before=today) if day >= first]
        if not over:
            return dg.SkipReason("No trading day is over yet.")
        day_range = {RANGE_START: over[0].isoformat(), RANGE_END: over[-1].isoformat()}
        return dg.RunRequest(tags={**day_range, LAUNCHED_BY: "record_late_rows"})

    return [record_day_after_close, record_late_rows]


def last_days(days: exchange_days.ExchangeDays, number: int, *, before: date) -> list[date]:
    """Return the last trading days before a day, oldest first."""
    newest_first: list[date] = []
    day = before
    while len(newest_first) < number:
        day -= timedelta(days=1)
        if days.is_trading_day(day):
            newest_first.append(day)
    return newest_first[::-1]


@table_check(DAILY_POSITIONS.name)
def days_are_complete(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether each trading day since the first is recorded, with values of that day.

    The first is that of POSITION_SYNC_DAILY_START, of the ledger or of what is recorded. Earlier
    days that statements have wait for a backfill. A failure names the first and the last day to
    fill. A day on which nothing was held, as a statement says, is no gap. Neither is the day after
    whose close the first row of the ledger was written.
    """
    exchange, first_partition = known_days(settings)
    keys = exchange_partitions(exchange, first_partition).get_partition_keys()
    last_values = _last_values(lake, exchange.timezone)
    first = _first_day(settings, last_values)
    # Right after today's close its run may not have ended.
    today = datetime.now(ZoneInfo(exchange.timezone)).date()
    over = {day for day in map(date.fromisoformat, keys) if first <= day < today}
    if first in over - last_values.keys() and _begins_after_close(lake, settings, first):
        over.remove(first)
    if not over:
        return passed("No trading day is over yet.")

    without = over - last_values.keys()
    service = closing_service(lake, settings)
    missing = without - service.flat_days(without)
    older = {day for day in over - without if last_values[day] < day}

    numbers: dict[str, dg.RawMetadataValue] = {
        "days": len(over),
        "missing": len(missing),
        "only_older_values": len(older),
    }
    to_fill = sorted(missing | older)
    if not to_fill:
        holds = f"{len(over)} trading days, all recorded"
        if first > first_partition:
            holds += f". Earlier ones, from {first_partition} on, wait for a backfill."
        return passed(holds, **numbers)

    to_do = f"Materialize {to_fill[0]} to {to_fill[-1]} of daily_positions."
    stated = () if service.stated is None else service.stated.days()
    unstated = [day for day in to_fill if day not in stated]
    if unstated:
        span = f"{unstated[0]} to {unstated[-1]}"
        to_do = f"Put statements of {span} into the folder of POSITION_SYNC_FLEX_FOLDER. {to_do}"
    days_without = f"{len(missing)} of {len(over)} trading days have no rows"
    return failed(
        f"{days_without}, {len(older)} only older values. {to_do}", what_to_do=to_do, **numbers
    )


def _begins_after_close(lake: tables.Lake, settings: Settings, first: date) -> bool:
    """Return whether the ledger begins after the close of the first day, so that it misses none."""
    if settings.daily_start or _first_stated_day(settings) == first:
        return False
    closed = exchange_days.closing_times(settings.calendar, [first])[first]
    return lake.updates.sync.last_before(closed).is_empty()


def _last_values(lake: tables.Lake, timezone: str) -> dict[date, date]:
    """Return the day of the newest value of each recorded day, in a time zone."""
    rows = lake.derived_table(DAILY_POSITIONS).rows(columns=["session_date", "timestamp"])
    newest = rows.group_by("session_date").agg(pl.col.timestamp.max())
    local_day = pl.col.timestamp.dt.convert_time_zone(timezone).dt.date()
    return dict(newest.select("session_date", local_day).iter_rows())
