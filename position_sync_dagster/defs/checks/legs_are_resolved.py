"""The check `legs_are_resolved`: whether each leg of a strategy has its contract."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.checks.check_results import rows_result, table_check
from position_sync_dagster.domain.leg import UnresolvedLeg

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

CHECK_NAME = "legs_are_resolved"

NOT_TRIED = "its contract has not been looked up yet"


def evaluate(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now."""
    lake.registry.sync.refresh()
    return judge_legs(
        lake.registry.unresolved,
        resolved=len(lake.registry.legs),
        now=datetime.now(UTC),
        patience=timedelta(seconds=settings.stale_after_s),
    )


def judge_legs(
    unresolved: Sequence[UnresolvedLeg], *, resolved: int, now: datetime, patience: timedelta
) -> dg.AssetCheckResult:
    """Return the check's result; pure.

    Args:
        unresolved: The active legs without a conid.
        resolved: How many have one.
        now: The time.
        patience: How long a leg may wait for its first look-up.
    """
    import polars as pl

    rows = pl.DataFrame(
        [
            (leg.strategy_id, leg.account or "", leg.described, leg.problem or NOT_TRIED)
            for leg in unresolved
            if leg.problem or now - leg.added_at > patience
        ],
        schema=dict.fromkeys(("strategy_id", "account", "leg", "problem"), pl.String),
        orient="row",
    )
    return rows_result(
        rows,
        passed=f"{resolved} legs with their contract, {len(unresolved)} that wait for the gateway.",
        failed="legs have no contract, and are not streamed",
        what_to_do="Add what tells the candidates apart (trading_class, multiplier, exchange), or "
        "the conid: `position-sync strategies add`.",
        legs=resolved + len(unresolved),
    )


legs_are_resolved = table_check(
    "active_strategies",
    CHECK_NAME,
    evaluate,
    description="Whether the one contract of each leg that was given without a conid was found.",
)
