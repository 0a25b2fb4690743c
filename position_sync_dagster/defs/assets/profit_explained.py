"""The asset `profit_explained`: where the profit of each trading day came from, and its check."""

from datetime import date

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.checks.check_results import failed, table_check
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import CLOSE_JOB
from position_sync_dagster.lake import derived
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.schema.tables import PROFIT_EXPLAINED
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.exchange_days import close_before, closing_times
from position_sync_dagster.sync.reports.explained_days import explain_day, unexplained

SHOWN = 5
"""Maximum number of strategies that the check names."""


def explained_asset(partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """Build the asset over the trading days of an exchange."""

    @table_asset.table_asset(
        PROFIT_EXPLAINED,
        deps=["daily_positions", "position_updates", "executions", "closures"],
        job=CLOSE_JOB,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "session_date"},
    )
    def profit_explained(
        context: dg.AssetExecutionContext, position_sync: PositionSyncResource
    ) -> dg.MaterializeResult[None]:
        """Where the profit of each trading day came from, by strategy and account.

        Written by the job close_day, after daily_positions, and by backfills of any range.

        How to read it: profit is the sum of the parts: the move of the underlyings (delta, gamma),
        of the volatilities (vega), time (theta), the rest of the repricing, trades and their fees,
        assignments, cash of statements, and what no trade explains. A day is replaced whole.
        """
        lake, settings = position_sync.lake, position_sync.settings
        days = [date.fromisoformat(key) for key in context.partition_keys]
        closes = closing_times(settings.calendar, days)
        frames = {
            day: explain_day(
                lake, settings, day, since=close_before(settings.calendar, day), closed=closes[day]
            )
            for day in days
        }
        result = derived.replace_days(
            lake.derived_table(PROFIT_EXPLAINED), frames, run_id=context.run.run_id
        )
        for day, rows in frames.items():
            sums = {name: float(rows[name].sum()) for name in ("profit", "unexplained")}
            context.add_asset_metadata(
                {"dagster/partition_row_count": rows.height, **sums}, partition_key=day.isoformat()
            )
        return dg.MaterializeResult(
            metadata=table_asset.replacement_metadata(
                lake.derived_table(PROFIT_EXPLAINED).path, result
            ),
            data_version=dg.DataVersion(str(result.version)),
        )

    return profit_explained


@table_check(PROFIT_EXPLAINED.name)
def profits_are_explained(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether less than 5 % of the gross move of each strategy, or 25 units, is unexplained.

    It looks at the newest recorded day. What is unexplained is a quantity that came or went without
    an execution, a close with a known cause, or a booking of a statement.
    """
    table = lake.derived_table(PROFIT_EXPLAINED)
    rows = table.rows() if table.exists() else PROFIT_EXPLAINED.empty
    newest = rows.filter(rows["session_date"] == rows["session_date"].max())
    found = unexplained(newest.iter_rows(named=True))
    if not found:
        return dg.AssetCheckResult(passed=True, metadata={"strategies": newest.height})
    return failed(
        f"Not explained: {'; '.join(found[:SHOWN])}.",
        what_to_do="Import the statement of the day, which names trades and bookings, and fill the "
        "day again; compare the quantities with TWS.",
        metadata={"strategies": newest.height, "unexplained": len(found)},
    )
