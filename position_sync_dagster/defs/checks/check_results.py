"""The results that several checks share, and results as events."""

import dagster as dg


def unknown_result(why: str) -> dg.AssetCheckResult:
    """Return the warning of a check that could not compare anything."""
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Unknown: {why}",
        metadata={"snapshot_complete": False},
    )


def check_evaluation(asset: str, name: str, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """Return a result as an event for a check that no step of the run was planned to execute."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=name,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )
