"""Checks of the registry: the strategies file, the contracts of legs, rolls."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from position_sync_dagster.defs.checks import check_results
from position_sync_dagster.domain.leg import UnresolvedLeg
from position_sync_dagster.errors import InvalidLegError, StrategiesFileError
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake import strategies_file
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import roll_legs


@check_results.table_check("active_strategies")
def file_is_applied(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether the strategies file, if there is one, can be read; the table follows it."""
    path = settings.strategies_file
    if path is None:
        return dg.AssetCheckResult(passed=True, description="No file is named: the table rules.")
    try:
        legs = list(strategies_file.load_strategies(path))
    except (StrategiesFileError, InvalidLegError) as error:
        return check_results.failed(
            f"The registry stays as it was. {error}",
            what_to_do=error.remedy,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={},
        )
    return dg.AssetCheckResult(passed=True, description=f"{len(legs)} legs.")


NOT_TRIED = "its contract has not been looked up yet"


@check_results.table_check("active_strategies")
def legs_are_resolved(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether exactly one contract was found for each leg without a conid."""
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
        resolved: The number of legs with one.
        now: The current time.
        patience: Maximum wait of a leg for its first look-up.
    """
    rows = pl.DataFrame(
        [
            (leg.strategy_id, leg.account or "", leg.described, leg.problem or NOT_TRIED)
            for leg in unresolved
            if leg.problem or now - leg.added_at > patience
        ],
        schema=dict.fromkeys(("strategy_id", "account", "leg", "problem"), pl.String),
        orient="row",
    )
    return check_results.rows_result(
        rows,
        passed=f"{resolved} legs with their contract, {len(unresolved)} that wait for the gateway.",
        found="legs have no contract, and are not streamed",
        what_to_do="Add the field that differs between the candidates (trading_class, multiplier, "
        "exchange), or the conid: `position-sync strategies add`.",
        legs=resolved + len(unresolved),
    )


@check_results.table_check("active_strategies")
def rolls_are_followed(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Whether each roll of a strategy with `follow_rolls: true` is clear."""
    found = roll_legs.rolls_to_follow(lake, settings.strategies_file, datetime.now(UTC))
    return check_results.rows_result(
        pl.DataFrame({"roll": list(found.refused)}, schema={"roll": pl.String}),
        passed="Nothing is left to a person.",
        found="rolls are not followed",
        what_to_do="Write the legs of these strategies as they are now into the strategies file.",
    )
