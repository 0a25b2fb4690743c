"""The check `legs_have_values`: whether the value of each open holding is known."""

from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.checks.check_results import (
    of_each_login,
    rows_result,
    table_check,
    unknown_result,
)

if TYPE_CHECKING:
    import polars as pl

    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

CHECK_NAME = "legs_have_values"


def evaluate(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now."""
    from position_sync_dagster.lake import inspection

    return of_each_login(
        settings, lambda login: judge_values(inspection.newest_values(lake, login))
    )


def judge_values(newest: "pl.DataFrame") -> dg.AssetCheckResult:
    """Return the check's result for the newest row of each open holding; pure."""
    import polars as pl

    if newest.is_empty():
        return unknown_result("the ledger has no open holding of this gateway yet.")
    without = newest.filter(pl.col("market_value").is_null()).sort("timestamp")
    return rows_result(
        without.select("account", "conid", "symbol", "position", "source", "timestamp", "note"),
        passed=f"{newest.height} holdings, all with a value.",
        failed=f"of {newest.height} holdings have no value",
        what_to_do="Their value is unknown, not zero, and in no total. Read note; look whether TWS "
        "shows a price, and whether the login may see market data of the contract.",
        holdings=newest.height,
    )


legs_have_values = table_check(
    "position_updates",
    CHECK_NAME,
    evaluate,
    description="Whether the newest row of each open holding has a value.",
)
