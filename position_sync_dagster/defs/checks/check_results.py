"""What several checks share: their definition, their results, and results as events."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import PositionSyncResource

if TYPE_CHECKING:
    import polars as pl

    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

SHOWN = 20
"""Rows that a failing check shows."""

UNKNOWN = "unknown"
"""The metadata of a result that compared nothing: neither a break nor the end of one."""

WHAT_TO_DO = "what_to_do"
"""The metadata of a failing check for the person who has to act."""

Evaluate = Callable[["Lake", "Settings"], dg.AssetCheckResult]


def table_check(
    asset: str, name: str, evaluate: Evaluate, *, description: str
) -> dg.AssetChecksDefinition:
    """Return the check of a table that a function evaluates; it blocks nothing."""

    @dg.asset_check(name=name, asset=asset, description=description)
    @dagster_failures
    def check(position_sync: PositionSyncResource) -> dg.AssetCheckResult:
        return evaluate(position_sync.lake, position_sync.settings)

    return check


def unknown_result(why: str) -> dg.AssetCheckResult:
    """Return the warning of a check that could not compare anything."""
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Unknown: {why}",
        metadata={"snapshot_complete": False, UNKNOWN: True},
    )


def rows_result(
    rows: "pl.DataFrame",
    *,
    passed: str,
    failed: str,
    what_to_do: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
    **numbers: float,
) -> dg.AssetCheckResult:
    """Return the result of a check that fails when it found rows; pure.

    Args:
        rows: What is wrong, the worst first; the first ones are shown.
        passed: The description when there are none.
        failed: The description otherwise, after the number of rows.
        what_to_do: For a person, when there are rows.
        severity: Of a failure.
        numbers: Shown in both cases.
    """
    if rows.is_empty():
        return dg.AssetCheckResult(passed=True, description=passed, metadata=dict(numbers))
    return dg.AssetCheckResult(
        passed=False,
        severity=severity,
        description=f"{rows.height} {failed}. {what_to_do}",
        metadata={
            **numbers,
            "found": rows.height,
            WHAT_TO_DO: what_to_do,
            "rows": dg.MetadataValue.table(
                [dg.TableRecord(_shown(row)) for row in rows.head(SHOWN).iter_rows(named=True)],
                dg.TableSchema(
                    columns=[
                        dg.TableColumn(name, "int" if kind.is_integer() else "string")
                        for name, kind in rows.schema.items()
                    ]
                ),
            ),
        },
    )


def _shown(row: dict[str, object]) -> dict[str, str | int]:
    return {
        name: value
        if isinstance(value, int)
        else f"{value:.6g}"
        if isinstance(value, float)
        else ""
        if value is None
        else str(value)
        for name, value in row.items()
    }


def check_evaluation(
    asset: str,
    name: str,
    result: dg.AssetCheckResult,
    target: dg.EventLogRecord | None = None,
) -> dg.AssetCheckEvaluation:
    """Return a result as an event for a check that no step of the run was planned to execute.

    Args:
        target: The materialization that was checked, for an event outside its run. Without it
            Dagster compares times in whole seconds, and takes a check in the same second for old.
    """
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=name,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
        target_materialization_data=None
        if target is None
        else AssetCheckEvaluationTargetMaterializationData(
            storage_id=target.storage_id, run_id=target.run_id, timestamp=target.timestamp
        ),
    )


def newest_materialization(instance: dg.DagsterInstance, asset: str) -> dg.EventLogRecord | None:
    """Return the record of an asset's newest materialization."""
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
    return records[0] if records else None
