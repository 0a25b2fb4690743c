"""The check `tables_fit_the_code`: whether each table has the columns that this release expects."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.checks.check_results import rows_result, table_check
from position_sync_dagster.errors import LakeError

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

CHECK_NAME = "tables_fit_the_code"


def evaluate(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now."""
    from position_sync_dagster.lake import inspection

    return judge_tables(inspection.unusable_tables(lake), checked=len(lake.tables))


def judge_tables(unusable: Sequence[tuple[str, LakeError]], *, checked: int) -> dg.AssetCheckResult:
    """Return the check's result for the tables that cannot be opened; pure."""
    import polars as pl

    rows = pl.DataFrame(
        [(name, error.what, error.remedy) for name, error in unusable],
        schema=dict.fromkeys(("table", "what", "remedy"), pl.String),
        orient="row",
    )
    return rows_result(
        rows,
        passed=f"{checked} tables, all with the version and columns of this release.",
        failed=f"of {checked} tables cannot be used by this release",
        what_to_do="; ".join(dict.fromkeys(error.remedy for _, error in unusable)),
        severity=dg.AssetCheckSeverity.ERROR,
        tables=checked,
    )


tables_fit_the_code = table_check(
    "position_updates",
    CHECK_NAME,
    evaluate,
    description="Whether each table of the lake has the version, columns and partitions that this "
    "release expects.",
)
