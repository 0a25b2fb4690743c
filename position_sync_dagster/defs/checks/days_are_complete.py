"""The check `days_are_complete`: whether each trading day is recorded, from rows of that day."""

from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

import dagster as dg

from position_sync_dagster.defs.assets.daily_positions import exchange_partitions, known_days
from position_sync_dagster.defs.checks.check_results import WHAT_TO_DO
from position_sync_dagster.defs.libraries import pl
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import dagster_failures
from position_sync_dagster.lake.schema.tables import DAILY_POSITIONS

SHOWN = 20
"""Maximum number of ranges shown with the check."""


@dg.asset_check(
    asset="daily_positions",
    config_schema={},
    description="Whether each trading day since the first is recorded, with values of that day. "
    "A gap names the range to fill.",
)
@dagster_failures
def days_are_complete(position_sync: PositionSyncResource) -> dg.AssetCheckResult:
    """Compare the days of the table with the past trading days."""
    exchange, first = known_days(position_sync.settings)
    keys = exchange_partitions(exchange, first).get_partition_keys()
    # Right after today's close its run may not have ended.
    today = datetime.now(ZoneInfo(exchange.timezone)).date()
    over = [day for day in map(date.fromisoformat, keys) if day < today]
    table = position_sync.derived_table(DAILY_POSITIONS)
    newest = (
        table.read(["session_date", "timestamp"])
        .group_by("session_date")
        .agg(pl.col("timestamp").max().dt.date())
    )
    found = dict(newest.iter_rows())
    return judge_days(
        over,
        recorded=found.keys(),
        old=[day for day, last in found.items() if last is not None and last < day],
    )


def judge_days(
    over: Sequence[date], *, recorded: Collection[date], old: Collection[date]
) -> dg.AssetCheckResult:
    """Return the check's result; pure.

    Args:
        over: The past trading days, ascending.
        recorded: The days with rows.
        old: Recorded days whose values are all from before the day.
    """
    if not over:
        return dg.AssetCheckResult(passed=True, description="No trading day is over yet.")
    missing = [day for day in over if day not in recorded]
    ranges = ranges_of(over, [day for day in over if day not in recorded or day in old])
    description, to_do = f"{len(over)} trading days, all recorded", ""
    if ranges:
        to_do = (
            f"Put statements of {ranges[0][0]} to {ranges[-1][1]} into the folder of "
            "POSITION_SYNC_FLEX_FOLDER and materialize these ranges of daily_positions."
        )
        description = (
            f"{len(missing)} of {len(over)} trading days have no rows, {len(set(old) & set(over))} "
            f"only older values. {to_do}"
        )
    return dg.AssetCheckResult(
        passed=not ranges,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={
            "days": len(over),
            **({WHAT_TO_DO: to_do} if to_do else {}),
            "missing": len(missing),
            "only_older_values": len(set(old) & set(over)),
            "to_fill": dg.MetadataValue.table(
                [
                    dg.TableRecord({"first": str(a), "last": str(b), "days": n})
                    for a, b, n in ranges[:SHOWN]
                ],
                _SCHEMA,
            ),
        },
    )


def ranges_of(days: Sequence[date], chosen: Iterable[date]) -> list[tuple[date, date, int]]:
    """Return the chosen days as ranges of consecutive days: first, last, number."""
    index = {day: number for number, day in enumerate(days)}
    ranges: list[tuple[date, date, int]] = []
    for day in sorted(chosen):
        if ranges and index[ranges[-1][1]] + 1 == index[day]:
            ranges[-1] = (ranges[-1][0], day, ranges[-1][2] + 1)
        else:
            ranges.append((day, day, 1))
    return ranges


_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("first", "string"),
        dg.TableColumn("last", "string"),
        dg.TableColumn("days", "int"),
    ]
)
