"""The check `ids_are_unique`: whether a row of the ledger was written twice."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.checks.check_results import rows_result, table_check
from position_sync_dagster.domain.clock import SKEW

if TYPE_CHECKING:
    import polars as pl

    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

CHECK_NAME = "ids_are_unique"

WHAT_TO_DO = (
    "A value was written twice: count each update_id once in your reports, and run `position-sync "
    "doctor --repair`, which keeps one of rows that are the same."
)

WINDOW = timedelta(minutes=30)
"""Twice as long as the longest time between two evaluations."""


def evaluate(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now."""
    from position_sync_dagster.lake import inspection

    now = datetime.now(UTC)
    repeated = inspection.repeated_ids(lake, now - WINDOW, now + SKEW)
    doubled = inspection.doubled_rows(lake)
    if repeated.is_empty() and doubled.surplus:
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{doubled}. {WHAT_TO_DO}",
            metadata={"rows": doubled.surplus},
        )
    return judge_ids(repeated)


def judge_ids(repeated: "pl.DataFrame") -> dg.AssetCheckResult:
    """Return the check's result for the ids that the ledger has more than once; pure."""
    return rows_result(
        repeated.sort("rows", "update_id", descending=True),
        passed="No row was merged twice, and each of the last half hour has an id of its own.",
        failed="ids are in the ledger more than once",
        what_to_do=WHAT_TO_DO,
        severity=dg.AssetCheckSeverity.ERROR,
    )


ids_are_unique = table_check(
    "position_updates",
    CHECK_NAME,
    evaluate,
    description="Whether each row of the ledger is there once: by its update_id in the last half "
    "hour, and before that by the statistics of its files.",
)
