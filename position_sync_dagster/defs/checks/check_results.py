"""The results that several checks share."""

import dagster as dg


def unknown_result(why: str) -> dg.AssetCheckResult:
    """Return the warning of a check that could not compare anything."""
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Unknown: {why}",
        metadata={"snapshot_complete": False},
    )
