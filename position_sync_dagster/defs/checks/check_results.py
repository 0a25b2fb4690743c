"""The results that several checks share, and results as events."""

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)


def unknown_result(why: str) -> dg.AssetCheckResult:
    """Return the warning of a check that could not compare anything."""
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Unknown: {why}",
        metadata={"snapshot_complete": False},
    )


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
