"""The asset `risk_scenarios`: what each strategy would gain and lose, each quarter of an hour."""

from datetime import UTC, datetime

import dagster as dg

from position_sync_dagster.defs.assets import table_asset
from position_sync_dagster.defs.checks.check_results import Derived, failed, table_check
from position_sync_dagster.defs.checks.evaluation import evaluate
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.tables import RISK_SCENARIOS
from position_sync_dagster.risk.expiry import early_assignments
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports import risk

# Maximum number of options that a check names.
MOST_NAMED = 5


@table_asset.table_asset(
    RISK_SCENARIOS,
    deps=["position_updates", "active_strategies"],
    freshness_policy=table_asset.QUARTER_HOURLY,
)
def risk_scenarios(
    context: dg.AssetExecutionContext, position_sync: PositionSyncResource
) -> dg.MaterializeResult[None]:
    """What each strategy would gain and lose under other prices and volatilities.

    Written by the sensor drain_queue each quarter of an hour, and when the active strategies
    changed.

    How to read it: one row per time, strategy, account and scenario; rows are only appended, so
    that the risk of yesterday can be read tomorrow. A leg that cannot be priced is counted in
    left_out and is in no number. `position-sync what-if` computes other scenarios.
    """
    lake, settings, now = position_sync.lake, position_sync.settings, datetime.now(UTC)
    return record_risk(lake, settings, now, run_id=context.run.run_id).result(context)


def record_risk(
    lake: Lake, settings: Settings, now: datetime, *, run_id: str | None = None
) -> Derived:
    """Append what each strategy would gain and lose in each recorded scenario; blocks.

    A book of 20,000 legs takes about 7 s.
    """
    _book, own, legs = risk.read_risk(lake, settings, now)
    rows = risk.risk_rows(legs, own, run_id)
    lake.risk_scenarios.record(rows)
    losses = [row["profit"] for row in rows if row["profit"] is not None]
    return Derived(
        metadata={
            "dagster/row_count": len(rows),
            **table_asset.known(worst_profit=min(losses, default=None)),
            "left_out": sum(legs.left_out().values()),
            "scenarios": str(len(own.recorded)),
        },
        checks={key: evaluate(key, lake, settings) for key in CHECKS},
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
        beyond=len(broken),
        not_certain=len(unknown),
    )


@table_check(RISK_SCENARIOS.name)
def early_assignment(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether no short option may be assigned early, where scenarios.yaml makes that a limit.

    The holder of a short call gains the dividend before its expiry by exercise, that of a short put
    the interest on its strike. If that is more than the option is worth above its exercise, it may
    be exercised any day. Without a known dividend nothing is said of a call.
    """
    _book, own, legs = risk.read_risk(lake, settings, datetime.now(UTC))
    found = early_assignments(legs)
    if not found or not own.early_assignment:
        text = f"{len(found)} short options may be assigned early."
        return dg.AssetCheckResult(passed=True, description=text)
    named = "; ".join(
        f"{one['strategy_id']}: {one['symbol']} {one['conid']} gains {one['gain']:,.2f} by "
        f"exercise, and is worth {one['extrinsic']:,.2f} above it"
        for one in found[:MOST_NAMED]
    )
    return failed(
        f"{len(found)} short options may be assigned early: {named}.",
        what_to_do="Close or roll them before the ex-date, or accept the shares. `position-sync "
        "expiry` lists them.",
        options=len(found),
    )


CHECKS = (losses_are_within_their_limits.check_key, early_assignment.check_key)
