"""The assets `risk_scenarios` and `profit_explained`: what may be lost, and whence profit came."""

from datetime import UTC, date, datetime

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.checks.check_results import failed, table_check
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import CLOSE_JOB
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.tables import PROFIT_EXPLAINED, RISK_SCENARIOS
from position_sync_dagster.risk.expiry import early_assignments
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports import what_if
from position_sync_dagster.sync.reports.exchange_days import close_before, closing_times
from position_sync_dagster.sync.reports.explained_days import explain_day, unexplained

RISK_JOB = "record_risk"

MOST_NAMED = 5
"""Maximum number of options or strategies that a check names."""


@table_asset.table_asset(
    RISK_SCENARIOS,
    deps=["position_updates", "active_strategies"],
    job=RISK_JOB,
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def risk_scenarios(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """What each strategy would gain and lose under other prices and volatilities.

    Written by the job record_risk, each quarter of an hour, also at the close.

    How to read it: one row per time, strategy, account and scenario; rows are only appended, so
    that the risk of yesterday can be read tomorrow. A leg that cannot be priced is counted in
    left_out and is in no number. `position-sync what-if` computes other scenarios.
    """
    lake, settings = position_sync.lake, position_sync.settings
    _book, own, legs = what_if.read_risk(lake, settings, datetime.now(UTC))
    rows = what_if.risk_rows(legs, own, context.run.run_id)
    lake.risk_scenarios.record(rows)
    losses = [row["profit"] for row in rows if row["profit"] is not None]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            **table_asset.known(worst_profit=min(losses, default=None)),
            "left_out": sum(legs.left_out().values()),
            "scenarios": str(len(own.recorded)),
        },
        data_version=dg.DataVersion(str(lake.risk_scenarios.table.version())),
    )


@table_check(RISK_SCENARIOS.name)
def losses_are_within_their_limits(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether no strategy would lose more than scenarios.yaml allows, by its newest rows.

    A strategy with a leg that cannot be priced has no certain loss: the check is yellow then.
    """
    rows = lake.risk_scenarios.latest().drop_nulls("largest_loss")
    broken = [
        row
        for row in rows.iter_rows(named=True)
        if row["profit"] is not None and row["profit"] < -row["largest_loss"]
    ]
    unknown = [row for row in rows.iter_rows(named=True) if row["left_out"]]
    text = "; ".join(
        f"{row['strategy_id']} loses {-row['profit']:,.0f} {row['currency']} in {row['scenario']}, "
        f"allowed are {row['largest_loss']:,.0f}"
        for row in broken
    )
    if not text and unknown:
        text = f"{unknown[0]['strategy_id']} has {unknown[0]['left_out']} legs that are not priced"
    if not text:
        return dg.AssetCheckResult(passed=True, metadata={"limits": rows.height})
    return failed(
        f"{text}.",
        what_to_do="Look at `position-sync what-if`, and close or hedge what loses; or correct the "
        "limit in scenarios.yaml.",
        metadata={"beyond": len(broken), "not_certain": len(unknown)},
    )


@table_check(RISK_SCENARIOS.name)
def early_assignment(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether no short option may be assigned early, where scenarios.yaml makes that a limit.

    The holder of a short call gains the dividend before its expiry by exercise, that of a short put
    the interest on its strike. If that is more than the option is worth above its exercise, it may
    be exercised any day. Without a known dividend nothing is said of a call.
    """
    _book, own, legs = what_if.read_risk(lake, settings, datetime.now(UTC))
    found = early_assignments(legs)
    if not found or not own.early_assignment:
        text = f"{len(found)} short options may be assigned early."
        return dg.AssetCheckResult(passed=True, description=text)
    named = "; ".join(
        f"{one.strategy_id}: {one.symbol} {one.conid} gains {one.gain:,.2f} by exercise, and is "
        f"worth {one.extrinsic:,.2f} above it"
        for one in found[:MOST_NAMED]
    )
    return failed(
        f"{len(found)} short options may be assigned early: {named}.",
        what_to_do="Close or roll them before the ex-date, or accept the shares. `position-sync "
        "expiry` lists them.",
        metadata={"options": len(found)},
    )


record_risk = dg.define_asset_job(
    RISK_JOB,
    executor_def=dg.in_process_executor,
    selection=dg.AssetSelection.assets(risk_scenarios)
    | dg.AssetSelection.checks_for_assets(risk_scenarios),
    description="Record what each strategy would gain and lose in each scenario.",
)

every_quarter_of_an_hour = dg.ScheduleDefinition(
    name="every_quarter_of_an_hour",
    job=record_risk,
    cron_schedule="*/15 * * * *",
    description="Each quarter of an hour: what each strategy would gain and lose.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


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
def profits_are_explained(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
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
        f"Not explained: {'; '.join(found[:MOST_NAMED])}.",
        what_to_do="Import the statement of the day, which names trades and bookings, and fill the "
        "day again; compare the quantities with TWS.",
        metadata={"strategies": newest.height, "unexplained": len(found)},
    )
