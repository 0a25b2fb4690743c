"""The assets of past days, with their checks.

They are `daily_positions`, `profit_explained`, `books` and `closed_campaigns`.

The first has every holding at the close of each trading day, the second where the profit of the
day came from, the third why net liquidation moved. The trading days of an exchange are the
partitions of all; each exists from its close on. The job `close_day` records them after the close,
and again at night.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl

from position_sync_dagster.defs import resources
from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.assets.derived_tables import plotted, seldom
from position_sync_dagster.defs.assets.table_asset import Derived, derived_asset
from position_sync_dagster.defs.checks.evaluation import failed, passed, table_check
from position_sync_dagster.defs.dagster_internals import WITHOUT_EVENTS
from position_sync_dagster.defs.resources import CLOSE_JOB
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.lake import derived, schema
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema import (
    BOOKS,
    DAILY_POSITIONS,
    PROFIT_EXPLAINED,
    TableSpec,
)
from position_sync_dagster.lake.storage.object_store import first_ledger_day
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.past.statement_folder import StatementFolder
from position_sync_dagster.money.profit.books import close_books, open_books
from position_sync_dagster.money.profit.profit import (
    TradingDay,
    explain_days,
    unknown_profits,
)
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import exchange_days
from position_sync_dagster.sync.past_days import ClosedDay, ClosedDays, ClosingService

# A trading day is recorded after its close; an exchange is never closed for more than four
# days.
CLOSED_DAYS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=5), warn_window=timedelta(days=4)
)

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


def replaced_days(
    context: dg.AssetExecutionContext,
    lake: tables.Lake,
    spec: TableSpec,
    frames: Mapping[date, pl.DataFrame],
) -> dg.MaterializeResult[None]:
    """Replace days of a derived table, and return what the event of the run says."""
    table = lake.derived_table(spec)
    result = derived.replace(table, frames, run_id=context.run.run_id)
    metadata = table_asset.replacement_metadata(result)
    version = dg.DataVersion(str(result.version))
    return dg.MaterializeResult(metadata=metadata, data_version=version)


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
        deps=["position_updates", "flex_statements"],
        freshness_policy=CLOSED_DAYS,
        metadata=table_asset.column_lineage(DAILY_POSITIONS, MADE_OF),
    )
    def daily_positions(
        context: dg.AssetExecutionContext, position_sync: resources.PositionSyncResource
    ) -> dg.MaterializeResult[None]:
        """Every holding at the close of a trading day: its last value until then, with its age.

        The check days_are_complete is yellow while a past trading day is missing. Nothing is wrong
        then: choose Materialize, then Missing, then Launch backfill. The demo begins with five such
        days.

        Written by the job close_day, shortly after each close, and by backfills of any range.

        How to read it: one row per trading day, account and contract. A day is replaced whole, so
        filling it again changes nothing. age_s says how old a value was at the close. If the
        program did not run, the rows come from the broker's statement (source FLEX). A day
        without any source stays missing.
        """
        lake = position_sync.lake
        run_id = context.run.run_id
        service = ClosingService(lake, position_sync.settings, clock=clock)

        def make() -> tuple[ClosedDays, dict[date, pl.DataFrame]]:
            closed_days = service.collect(days_of(context))
            # A day that has rows is not filled again: they come last.
            service.record_differences(closed_days.filled, run_id=run_id)
            frames = {day: closed.rows for day, closed in closed_days.filled.items()}
            return closed_days, frames

        table = lake.derived_table(DAILY_POSITIONS)
        closed_days, result = derived.derive(table, make, run_id=run_id)
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


def describe(closed: ClosedDay) -> "Mapping[str, dg.RawMetadataValue]":
    """Return the metadata of one day: counts, and the profit and loss by currency."""
    rows = closed.rows
    held = rows.filter(pl.col.position != 0)
    without = seldom(
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
        **plotted(numbers),
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
    start = _first_day(settings)
    last_year = datetime.now(UTC).year + YEARS_AHEAD
    days = exchange_days.exchange_days(settings.calendar, start, date(last_year, 12, 31))
    return days, start


def exchange_partitions(
    days: exchange_days.ExchangeDays, first: date
) -> dg.TimeWindowPartitionsDefinition:
    """Return one partition per trading day, which Dagster offers once the day can be recorded.

    Dagster offers a partition when its window is over. The window of a day is the minute before the
    day can be recorded: the windows between two days, and those of holidays, are left out.
    """
    end = days.settled_at
    minute_before = datetime.combine(first, end) - timedelta(minutes=1)
    begin = minute_before.time()
    hours = sorted({begin.hour, end.hour})
    minutes = sorted({begin.minute, end.minute})

    # A cron schedule has each minute in each hour: all but the begin of the window are left out.
    exclusions: list[str | datetime] = []
    for hour, minute in product(hours, minutes):
        if (hour, minute) != (begin.hour, begin.minute):
            exclusions.append(f"{minute} {hour} * * 1-5")

    return dg.TimeWindowPartitionsDefinition(
        start=first.isoformat(),
        fmt="%Y-%m-%d",
        timezone=days.timezone,
        cron_schedule=f"{_listed(minutes)} {_listed(hours)} * * 1-5",
        exclusions=[*exclusions, *days.holidays_at(begin)],
    )


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _first_day(settings: Settings) -> date:
    """Return the setting, or the first day of the ledger or of a statement; else today."""
    if settings.daily_start:
        return date.fromisoformat(settings.daily_start)

    of_ledger = first_ledger_day(settings.table("position_updates"))
    of_statements = StatementFolder(settings.flex_folder).first_day()
    first_days = [day for day in (of_ledger, of_statements) if day is not None]
    return min(first_days, default=datetime.now(UTC).date())


# Number of trading days recorded again at night: rows may come late, and statements a week later.
LATE_DAYS = 8

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@derived_asset(
    schema.CLOSED_CAMPAIGNS,
    # Not the strategies and daily_positions, which it reads too: they change all day, and it would
    # be shown as stale until the next close.
    deps=["executions", "statement_events", "closures"],
    writer=CLOSE_JOB,
)
def closed_campaigns(lake: tables.Lake, settings: Settings, run_id: str | None) -> Derived:
    """What each campaign of a strategy brought from its first trade until nothing was left of it.

    Written by the job close_day, after daily_positions, with the strategies as they are then.

    How to read it: one row for each campaign that is over, and for each structure of options that
    was in no strategy. Rolls, and what assignments left, belong to it. Profit is after fees. What
    is null, and why, is in profit_unknown and why_unknown. position-sync results has the sums.
    """
    rows = CampaignBook(lake, settings).rows()
    table = lake.derived_table(schema.CLOSED_CAMPAIGNS)
    frame = schema.frame_of(table.spec, rows)
    result = derived.replace(table, frame, run_id=run_id)

    metadata = table_asset.replacement_metadata(result)
    unknown = frame["profit"].null_count()
    metadata["profits_unknown"] = str(unknown)
    return Derived(metadata=metadata, version=str(result.version))


@dg.definitions
def daily() -> dg.Definitions:
    """Build asset, check, jobs and schedules for the exchange in the settings."""
    days, first = known_days(resources.POSITION_SYNC.read_settings())
    partitions = exchange_partitions(days, first)
    asset = daily_asset(partitions)
    explained = explained_asset(partitions)
    books = books_asset(partitions)
    closing = _job_of(
        resources.CLOSE_JOB,
        "Record every holding at the close of a trading day, or of a range of them.",
    )
    importing = _job_of(
        resources.IMPORT_JOB,
        "Download the Flex query of the settings, and store trades and cash of all statements.",
    )
    return dg.Definitions(
        assets=[asset, explained, books, closed_campaigns],
        asset_checks=[days_are_complete, profits_are_explained, books_close],
        jobs=[closing, importing],
        schedules=schedules_of(days, first),
    )


def _job_of(name: str, description: str) -> Any:
    """Return the job that materializes the assets which it writes."""
    selection = dg.AssetSelection.tag(resources.WRITTEN_BY, name)
    return dg.define_asset_job(
        name,
        executor_def=dg.in_process_executor,
        selection=selection,
        description=description,
    )


def schedules_of(days: exchange_days.ExchangeDays, first: date) -> list[dg.ScheduleDefinition]:
    """Build the schedules, which run from the start, in the time zone of the exchange.

    Dagster's own schedule for partitions would also run on holidays, for the previous trading day,
    unless the job got its partitions in a deprecated way. At night, statements are imported before
    the last trading days are recorded again: rows may be written late, and the broker makes the
    statement of a day in the following night. A day without new data does not change.
    """
    zone = ZoneInfo(days.timezone)
    at = days.settled_at

    def scheduled(job: str, cron: str) -> Callable[[Any], dg.ScheduleDefinition]:
        def decorate(evaluate: Any) -> dg.ScheduleDefinition:
            define = dg.schedule(
                job_name=job,
                cron_schedule=cron,
                execution_timezone=days.timezone,
                default_status=dg.DefaultScheduleStatus.RUNNING,
                description=inspect.getdoc(evaluate),
            )
            return define(evaluate)

        return decorate

    @scheduled(resources.CLOSE_JOB, f"{at.minute} {at.hour} * * 1-5")
    def after_the_close(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Shortly after the usual close of the exchange, on its trading days."""
        day = context.scheduled_execution_time.astimezone(zone).date()
        if not days.is_trading_day(day):
            return dg.SkipReason(f"{days.calendar} is closed on {day}.")
        return dg.RunRequest(partition_key=day.isoformat())

    @scheduled(resources.CLOSE_JOB, "15 6 * * 2-6")
    def late_rows(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """At night: the last eight trading days again, for late rows and statements."""
        today = context.scheduled_execution_time.astimezone(zone).date()
        over = [day for day in last_days(days, LATE_DAYS, before=today) if day >= first]
        if not over:
            return dg.SkipReason("No trading day is over yet.")
        day_range = {RANGE_START: over[0].isoformat(), RANGE_END: over[-1].isoformat()}
        return dg.RunRequest(tags=day_range)

    @scheduled(resources.IMPORT_JOB, "0 6 * * 2-6")
    def nightly_statements(_context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """At night: download and import the broker's statements, if there are any."""
        settings = resources.POSITION_SYNC.read_settings()
        if settings.flex_token is None and not settings.flex_folder.is_dir():
            return dg.SkipReason(
                "No statements: POSITION_SYNC_FLEX_FOLDER is no folder, and no "
                "POSITION_SYNC_FLEX_TOKEN is set."
            )
        return dg.RunRequest()

    return [after_the_close, late_rows, nightly_statements]


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

    A failure names the first and the last day to fill. A day on which nothing was held, as a
    statement says, is no gap. Neither is the day after whose close the first row of the ledger was
    written.
    """
    exchange, first = known_days(settings)
    keys = exchange_partitions(exchange, first).get_partition_keys()
    # Right after today's close its run may not have ended.
    today = datetime.now(ZoneInfo(exchange.timezone)).date()
    over = {day for day in map(date.fromisoformat, keys) if day < today}

    last_values = _last_values(lake, exchange.timezone)
    if first in over - last_values.keys() and _begins_after_close(lake, settings, first):
        over.remove(first)
    if not over:
        return passed("No trading day is over yet.")

    without = over - last_values.keys()
    missing = without - ClosingService(lake, settings).flat_days(without)
    older: set[date] = set()
    for day in over:
        newest_value = last_values.get(day)
        if newest_value is not None and newest_value < day:
            older.add(day)

    numbers: dict[str, dg.RawMetadataValue] = {
        "days": len(over),
        "missing": len(missing),
        "only_older_values": len(older),
    }
    to_fill = sorted(missing | older)
    if not to_fill:
        return passed(f"{len(over)} trading days, all recorded", **numbers)

    to_do = (
        f"Put statements of {to_fill[0]} to {to_fill[-1]} into the folder of "
        "POSITION_SYNC_FLEX_FOLDER and materialize these days of daily_positions."
    )
    days_without = f"{len(missing)} of {len(over)} trading days have no rows"
    text = f"{days_without}, {len(older)} only older values. {to_do}"
    return failed(text, what_to_do=to_do, **numbers)


def _begins_after_close(lake: tables.Lake, settings: Settings, first: date) -> bool:
    """Return whether the ledger begins after the close of the first day, so that it misses none."""
    if settings.daily_start or StatementFolder(settings.flex_folder).first_day() == first:
        return False
    closed = exchange_days.closing_times(settings.calendar, [first])[first]
    return lake.updates.sync.last_before(closed).is_empty()


def _last_values(lake: tables.Lake, timezone: str) -> dict[date, date]:
    """Return the day of the newest value of each recorded day, in a time zone."""
    rows = lake.derived_table(DAILY_POSITIONS).rows(columns=["session_date", "timestamp"])
    newest = rows.group_by("session_date").agg(pl.col.timestamp.max())
    day = pl.col.timestamp.dt.convert_time_zone(timezone).dt.date()
    return dict(newest.select("session_date", day).iter_rows())


# Maximum number of strategies that the check names.
STRATEGIES_SHOWN = 5


def explained_asset(partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange."""

    @over_trading_days(
        PROFIT_EXPLAINED,
        partitions,
        deps=["daily_positions", "position_updates", "executions", "closures"],
    )
    def profit_explained(
        context: dg.AssetExecutionContext, position_sync: resources.PositionSyncResource
    ) -> dg.MaterializeResult[None]:
        """Where the profit of each trading day came from, by strategy and account.

        Written by the job close_day, after daily_positions, and by backfills of any range.

        How to read it: profit is the sum of the parts: the move of the underlyings (delta, gamma),
        of the volatilities (vega), time (theta), the rest of the repricing, trades and their fees,
        assignments, cash of statements, and what no trade explains. A day is replaced whole.
        """
        lake = position_sync.lake
        settings = position_sync.settings
        days = days_of(context)
        days_before = [exchange_days.session_before(settings.calendar, day) for day in days]
        closes = exchange_days.closing_times(settings.calendar, [*days, *days_before])
        # What the new rows of daily_positions say of contracts may make a movement's cash known.
        MovementBook(lake, settings.calendar, run_id=context.run.run_id).update()

        trading_days: list[TradingDay] = []
        for day, before in zip(days, days_before, strict=True):
            trading_days.append(TradingDay(day, before, closes[before], closes[day]))
        frames = explain_days(lake, settings, trading_days)

        result = replaced_days(context, lake, PROFIT_EXPLAINED, frames)
        for day, rows in frames.items():
            profits = rows["profit"]
            legs_unknown = int(rows["legs_unknown"].sum())
            numbers: dict[str, float] = {
                "dagster/partition_row_count": rows.height,
                "legs_unknown": legs_unknown,
            }
            if not profits.has_nulls():
                numbers["profit"] = float(profits.sum())
            context.add_asset_metadata(numbers, partition_key=day.isoformat())
        return result

    return profit_explained


def books_asset(partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange."""

    @over_trading_days(BOOKS, partitions, deps=["profit_explained", "statement_events"])
    def books(
        context: dg.AssetExecutionContext, position_sync: resources.PositionSyncResource
    ) -> dg.MaterializeResult[None]:
        """Why the net liquidation of each account moved on each trading day.

        Written by the job close_day, after profit_explained, and by backfills of any range.

        How to read it: change = profit + income + fees + interest + accruals + rates + owner +
        difference, in the base currency of the account, by the statements of the day and of the
        day before. Where a part is not known, so is the difference.
        """
        lake = position_sync.lake
        settings = position_sync.settings
        frames: dict[date, pl.DataFrame] = {}
        for day in days_of(context):
            before = exchange_days.session_before(settings.calendar, day)
            frames[day] = close_books(lake, settings, day, before=before)
        return replaced_days(context, lake, BOOKS, frames)

    return books


@table_check(BOOKS.name)
def books_close(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the change of net liquidation of each account is explained on the newest day.

    It fails where more than 1 unit of the base currency, and more than 0.01 % of net liquidation,
    is not explained. An account of which a part is not known is not judged.

    What to do: Compare the largest part with the statement: a booking that no section of the Flex
    query has, or a holding of a type that is not followed, is missing.
    """
    newest = derived.newest_day(lake.derived_table(BOOKS))
    not_known = newest["difference"].null_count()
    differences = open_books(newest.to_dicts())
    if not differences:
        return passed("", accounts=newest.height, not_known=not_known)

    named = "; ".join(differences[:ACCOUNTS_SHOWN])
    return failed(
        f"Not explained: {named}.",
        open=len(differences),
        accounts=newest.height,
        not_known=not_known,
    )


# Maximum number of accounts that the check of the books names.
ACCOUNTS_SHOWN = 5


@table_check(PROFIT_EXPLAINED.name)
def profits_are_explained(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the profit of each strategy is known: what moved its holdings, and both values.

    It looks at the newest recorded day. A profit is not known if a quantity came or went without a
    movement, beyond a value of 25 units, or if a value, a price paid or a commission is not known.

    What to do: Import the statement of the day, which names trades and bookings, and fill the
    day again; compare the quantities with TWS.
    """
    newest = derived.newest_day(lake.derived_table(PROFIT_EXPLAINED))
    unknown = unknown_profits(newest.iter_rows(named=True))
    if not unknown:
        return passed("", strategies=newest.height)

    named = "; ".join(unknown[:STRATEGIES_SHOWN])
    return failed(
        f"Not known: {named}.",
        strategies=newest.height,
        unexplained=len(unknown),
    )
