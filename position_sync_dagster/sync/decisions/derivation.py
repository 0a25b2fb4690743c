"""When to derive: decide whether the derived tables need a run; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.sync.decisions.job_runs import JobRun

LEDGER = "position_updates"

SOURCES = (LEDGER, "active_strategies")
"""What the derived tables are made from, as far as its materializations make them old."""

TARGETS = ("latest_positions", "strategy_exposure")
"""The derived tables without partitions."""

LONGEST_AGE = timedelta(minutes=15)
"""The stream changes the ledger every second without a materialization."""

SHORTEST_GAP = timedelta(seconds=15)
"""Between two runs: a gateway that comes and goes shall not start a run each time."""

LEFT_BEHIND = timedelta(seconds=120)
"""A run that lasts longer was left behind by a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """Whether to derive now, and why."""

    start: bool
    reason: str


def plan_derivation(
    materialized_at: Mapping[str, datetime],
    *,
    now: datetime,
    in_progress: JobRun | None,
    last_run: JobRun | None,
) -> Derivation:
    """Decide whether the derived tables need a run.

    Args:
        materialized_at: When each source and target was last materialized.
        in_progress: A run of a drain, which derives as well, or of the derivation itself.
        last_run: The newest run of the derivation.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    >>> plan_derivation({LEDGER: noon}, now=noon, in_progress=None, last_run=None).start
    True
    """
    if LEDGER not in materialized_at:
        return Derivation(start=False, reason="the ledger was never materialized")
    if in_progress is not None and now - in_progress.since < LEFT_BEHIND:
        return Derivation(start=False, reason=f"run {in_progress.run_id[:8]} is in progress")
    why = _why(materialized_at, now)
    if why is None:
        return Derivation(start=False, reason="everything derived is up to date")
    if last_run is not None and abs(now - last_run.since) < SHORTEST_GAP:
        return Derivation(start=False, reason=f"{why}; the last run was less than 15 s ago")
    return Derivation(start=True, reason=why)


def _why(materialized_at: Mapping[str, datetime], now: datetime) -> str | None:
    for target in TARGETS:
        derived_at = materialized_at.get(target)
        if derived_at is None:
            return f"{target} was never derived"
        for source in SOURCES:
            if source in materialized_at and materialized_at[source] > derived_at:
                return f"{source} is newer than {target}"
        if now - derived_at >= LONGEST_AGE:
            return f"{target} is a quarter of an hour old"
    return None
