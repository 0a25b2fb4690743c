"""The asset `daily_positions` with its check: every holding at the close of each trading day.

The trading days of an exchange are the partitions of all assets of past days; each exists from its
close on. The job `close_day` records them (`defs/closing.py`). Stated positions are those that a
statement of the broker has: the parameter `stated` is the class that collects past days, from the
ledger and from them.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from polars import DataFrame

from position_sync_dagster.defs import resources
from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.checks.evaluation import TableCheck, failed, passed, table_check
from position_sync_dagster.defs.dagster_internals import WITHOUT_EVENTS
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.lake import L, Lake
from position_sync_dagster.lake.schema import DAILY_POSITIONS, TableSpec
from position_sync_dagster.lake.storage.object_store import absolute_path
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import exchange_days
from position_sync_dagster.sync.past_days import ClosedDay, ClosedDays, ClosingService

# New York is closed for so long around a weekend with a holiday.
LONG_WEEKEND = timedelta(days=4)

# What columns that the ledger does not have are made of, for `column_lineage`.
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
        options: Other arguments of `table_asset`, such as `deps`.
    """
    return table_asset.table_asset(
        spec,
        writer=table_asset.CLOSE,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "session_date", **(metadata or {})},
        **options,
    )


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """Return the trading days that a run is to fill."""
    return [date.fromisoformat(key) for key in context.partition_keys]


def daily_asset(
    partitions: dg.TimeWindowPartitionsDefinition,
    kind: type[L],
    stated: type[ClosingService[L]],
    *,
    longest_closed: timedelta = LONG_WEEKEND,
    clock: Clock = utc_now,
) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange, whose runs open a lake of a class.

    Args:
        partitions: The trading days.
        kind: The class of the lake.
        stated: What collects the days.
        longest_closed: For how long no trading day may be recorded, since the exchange is closed.
        clock: A day that is not over by it is left out.
    """
    overdue = max(longest_closed, LONG_WEEKEND)
    freshness = dg.FreshnessPolicy.time_window(
        fail_window=overdue + timedelta(days=1), warn_window=overdue
    )

    @over_trading_days(
        DAILY_POSITIONS,
        partitions,
        deps=["position_updates", *stated.assets],
        freshness_policy=freshness,
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
        lake = position_sync.lake_of(kind)
        # Made anew each time that the rows are: it reads the statements once.
        service = partial(stated, lake, position_sync.settings, clock=clock)
        closed_days, result = fill(lake, service, days_of(context), run_id=context.run.run_id)
        for error in closed_days.unreadable:
            context.log.warning(f"Left out: {error}")

        version = str(result.version)
        shared = table_asset.replacement_metadata(result)
        if not closed_days.skipped:
            for day, closed in closed_days.filled.items():
                context.add_asset_metadata(describe(closed), partition_key=day.isoformat())
            return dg.MaterializeResult(metadata=shared, data_version=dg.DataVersion(version))

        # Where a day is left out, the output has no event (WITHOUT_EVENTS), as it would count all
        # days of the run as filled: each filled day has one of its own.
        key = context.asset_key
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
    lake: L,
    open_service: Callable[[], ClosingService[L]],
    days: list[date],
    *,
    run_id: str | None = None,
) -> tuple[ClosedDays, derived.Replaced]:
    """Write the rows of trading days, and record where they differ from what is stated."""

    def make() -> ClosedDays:
        """Collect the rows; `derive` does so again if the tables changed meanwhile."""
        service = open_service()
        closed_days = service.collect(days)
        # Before the rows are written: after a kill in between the day has none, and is filled anew.
        service.record_differences(closed_days.filled, run_id=run_id)
        return closed_days

    def rows_of(closed_days: ClosedDays) -> dict[date, DataFrame]:
        return {day: closed.rows for day, closed in closed_days.filled.items()}

    return derived.derive(lake.derived_table(DAILY_POSITIONS), make, rows_of, run_id=run_id)


def describe(closed: ClosedDay) -> "Mapping[str, dg.RawMetadataValue]":
    """Return the metadata of one day: counts, and the known profit and loss by currency."""
    rows = closed.rows
    held = rows.filter(pl.col.position != 0)
    counts = {
        "without_value": rows["market_value"].null_count(),
        "without_daily_pnl": held["daily_pnl"].null_count(),
    }

    ages = rows["age_s"]
    oldest_s: Any = None if ages.has_nulls() else ages.max()
    numbers: dict[str, float | None] = {"oldest_value_age_s": oldest_s}
    for (currency,), part in rows.group_by("currency", maintain_order=True):
        for name in ("daily_pnl", "unrealized_pnl"):
            amounts = part[name].drop_nulls()
            numbers[f"{name}/{currency}"] = sum(amounts) if amounts.len() else None

    return {
        "dagster/partition_row_count": rows.height,
        "held": held.height,
        # A plot of zeros alone has no use.
        **{name: count for name, count in counts.items() if count},
        **table_asset.plotted(numbers),
        "closed_at": dg.MetadataValue.timestamp(closed.closed_at),
        "differences": len(closed.differences),
        **closed.of_source,
    }


# Years ahead for which holidays are looked up: a code location may run that long.
YEARS_AHEAD = 2


def exchange_since(
    settings: Settings, stated: type[ClosingService[L]]
) -> tuple[exchange_days.Exchange, date]:
    """Return the exchange in the settings, and the first day that is a partition.

    Stated days of any account count (`days_of_anyone`): which accounts are ours is in rows, and
    none are read while definitions are loaded.

    Raises:
        SettingsError: The exchange is not known.
    """
    exchange = exchange_days.exchange_of(settings.calendar)
    return exchange, _first_day(settings, stated.days_of_anyone(settings))


def exchange_partitions(
    days: exchange_days.Exchange, first: date
) -> dg.TimeWindowPartitionsDefinition:
    """Return one partition per trading day, which Dagster offers once the day can be recorded.

    Dagster offers a partition when its window is over. The window of a day is the minute before the
    day can be recorded: the windows between two days, and those of holidays, are left out. Whole
    days would be offered at midnight, before or hours after they can be recorded.

    A daily asset that follows has these partitions too, from the same day on or a later one.
    Dagster maps the days of a `DailyPartitionsDefinition` to the trading days before as well.

    Example:
        partitions = exchange_partitions(exchange_of("XNYS"), date(2026, 1, 2))
    """
    end = days.settled_at  # never on the hour: both minutes are of one hour in cron
    begin = end.replace(minute=end.minute - 1)
    at_end = f"{end.minute} {end.hour} * * {days.cron_days()}"
    last = date(utc_now().year + YEARS_AHEAD, 12, 31)
    zone = exchange_days.time_zone_of(days.calendar)
    closed = [datetime.combine(day, begin, zone) for day in days.holidays(first, last)]
    return dg.TimeWindowPartitionsDefinition(
        start=first.isoformat(),
        fmt="%Y-%m-%d",
        timezone=days.timezone,
        cron_schedule=f"{begin.minute},{at_end}",  # a window begins at `begin`, and one at `end`
        exclusions=[at_end, *closed],
    )


def _first_day(settings: Settings, known_days: Iterable[date]) -> date:
    """Return `daily_start`; else the first day that is known or in the ledger; else today.

    Args:
        settings: The settings, with the path of the ledger.
        known_days: Days that a statement states, or that are recorded.
    """
    if settings.daily_start:
        return date.fromisoformat(settings.daily_start)

    first_days = filter(None, (first_ledger_day(settings.table("position_updates")), *known_days))
    return min(first_days, default=utc_now().date())


def first_ledger_day(path: str) -> date | None:
    """Return the first UTC date with rows, from the names of the partitions alone.

    Args:
        path: The path of the ledger, which need not exist; None is returned for a remote one.
    """
    days = []
    with suppress(OSError):
        for folder in Path(absolute_path(path)).glob("date=*"):
            with suppress(ValueError):
                days.append(date.fromisoformat(folder.name.removeprefix("date=")))
    return min(days, default=None)


def days_check(stated: type[ClosingService[L]]) -> TableCheck[L]:
    """Return the check of the days, with the source of stated positions; runs evaluate it."""
    # The description is given, since a `partial` has no docstring.
    make = table_check(
        DAILY_POSITIONS.name, "days_are_complete", description=inspect.getdoc(_judged_days)
    )
    return make(partial(_judged_days, stated=stated))


def _judged_days(
    lake: L, settings: Settings, stated: type[ClosingService[L]]
) -> dg.AssetCheckResult:
    """Whether each trading day since the first is recorded, with values of that day.

    The first is that of POSITION_SYNC_DAILY_START, of the ledger or of what is recorded.
    Earlier days that statements have wait for a backfill. A failure names the first and the
    last day to fill. A day on which nothing was held, as a statement says, is no gap. Neither
    is the day after whose close the first row of the ledger was written.
    """
    exchange = exchange_days.exchange_of(settings.calendar)
    stated_days = stated.days_of_anyone(settings)
    recorded = _days_of_newest_values(lake, exchange.timezone)
    # The first day that can be recorded, and the first one that has to be.
    first_partition = _first_day(settings, stated_days)
    first = _first_day(settings, recorded)
    # Days are judged from yesterday back: right after today's close its run may not have ended.
    yesterday = exchange_days.day_of(settings.calendar, utc_now()) - timedelta(days=1)
    over = set(exchange.trading_days(max(first, first_partition), yesterday))

    # A first day that neither a setting nor a statement names is that of the ledger's first row.
    # If that row was written after the close, the day has none, and cannot be filled.
    is_named = settings.daily_start or first == min(stated_days, default=None)
    may_have_no_row = first in over - recorded.keys() and not is_named
    if may_have_no_row and _is_before_ledger(lake, exchange, first):
        over.remove(first)
    if not over:
        return passed("No trading day is over yet.")

    without = over - recorded.keys()
    service = stated(lake, settings)
    missing = without - service.flat_days(without)
    older = {day for day in over - without if recorded[day] < day}  # the values are of days before

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
    unstated = sorted(set(to_fill) - service.stated_days())
    if stated.remedy and unstated:
        to_do = f"{stated.remedy.format(f'{unstated[0]} to {unstated[-1]}')} {to_do}"
    days_without = f"{len(missing)} of {len(over)} trading days have no rows"
    return failed(
        f"{days_without}, {len(older)} only older values. {to_do}", what_to_do=to_do, **numbers
    )


def _is_before_ledger(lake: Lake, exchange: exchange_days.Exchange, day: date) -> bool:
    """Return whether the first row of the ledger was written after the close of a trading day."""
    closed = exchange_days.closing_times(exchange.calendar, [day])[day]
    return lake.updates.sync.last_before(closed).is_empty()


def _days_of_newest_values(lake: Lake, timezone: str) -> dict[date, date]:
    """Return the recorded days, each with the day of its newest value in a time zone."""
    rows = lake.derived_table(DAILY_POSITIONS).rows(columns=["session_date", "timestamp"])
    newest = rows.group_by("session_date").agg(pl.col.timestamp.max())
    local_day = pl.col.timestamp.dt.convert_time_zone(timezone).dt.date()
    return dict(newest.select("session_date", local_day).iter_rows())
