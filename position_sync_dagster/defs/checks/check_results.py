"""Functions that the checks share: their definition, what they read, and their results."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import polars as pl

from position_sync_dagster.defs.assets.table_asset import FOLLOWED, table_of
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import dagster_failures
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.settings import Settings

# Maximum number of rows that a failing check shows.
SHOWN = 20

# Metadata key of a result that could not compare anything; alerts ignore such a result.
UNKNOWN = "unknown"

# Metadata key of a failing check: what its reader should do.
WHAT_TO_DO = "what_to_do"

Evaluate = Callable[["tables.Lake", Settings], dg.AssetCheckResult]


# The function of each check that `table_check` defined; the tick calls it too.
EVALUATE: dict[dg.AssetCheckKey, Evaluate] = {}


def table_check(
    asset: str, name: str | None = None, *, description: str | None = None, each_login: bool = False
) -> Callable[[Evaluate], dg.AssetChecksDefinition]:
    """Return the decorator of a function that evaluates a table: it defines a non-blocking check.

    Args:
        asset: The asset that the check is of.
        name: The name of the check; None is that of the function.
        description: The description that Dagster shows; None is the docstring of the function.
        each_login: Whether the function gets the settings of one login: the results of all logins
            are then merged.
    """

    def define(evaluate: Evaluate) -> dg.AssetChecksDefinition:
        def evaluation(lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
            try:
                if not each_login:
                    return evaluate(lake, settings)
                return merged({one.gateway_id: evaluate(lake, one) for one in settings.logins})
            except PositionSyncError as error:
                return unknown_result(str(error))

        @dg.asset_check(
            name=name or evaluate.__name__,
            asset=asset,
            description=description or inspect.getdoc(evaluate),
            config_schema={},
        )
        @dagster_failures
        def check(position_sync: PositionSyncResource) -> dg.AssetCheckResult:
            return evaluation(position_sync.lake, position_sync.settings)

        EVALUATE[check.check_key] = evaluation
        return check

    return define


def unknown_result(why: str, **metadata: "dg.RawMetadataValue") -> dg.AssetCheckResult:
    """Return the warning of a check that could not compare anything."""
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Unknown: {why}",
        metadata={**metadata, "snapshot_complete": False, UNKNOWN: True},
    )


def merged(results: Mapping[str, dg.AssetCheckResult]) -> dg.AssetCheckResult:
    """Return the results of several logins as one; pure.

    It fails if one of them fails, and names those logins. An unknown result makes it unknown,
    unless another login fails.

    Args:
        results: The results by login; a single one is returned unchanged.
    """
    if len(results) == 1:
        return next(iter(results.values()))
    unknown = {name: one for name, one in results.items() if UNKNOWN in one.metadata}
    failing = {n: one for n, one in results.items() if not one.passed and n not in unknown}
    wrong = {**failing, **unknown}
    shown = dict(list((wrong or results).items())[:SHOWN])
    metadata: dict[str, dg.RawMetadataValue] = {
        "logins": len(results),
        "logins_failing": len(failing),
        "logins_unknown": len(unknown),
    }
    for name, one in shown.items():
        own = {key: value for key, value in one.metadata.items() if key != UNKNOWN}
        metadata |= {f"{name}/{key}": value for key, value in own.items()}
    remedies = [one.metadata[WHAT_TO_DO] for one in failing.values() if WHAT_TO_DO in one.metadata]
    if remedies:
        metadata[WHAT_TO_DO] = remedies[0]
    if unknown and not failing:
        metadata[UNKNOWN] = True
    errors = [one for one in failing.values() if one.severity is dg.AssetCheckSeverity.ERROR]
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR if errors else dg.AssetCheckSeverity.WARN,
        description=" ".join(f"{name}: {one.description}" for name, one in shown.items()),
        metadata=metadata,
    )


def passed(description: str, **metadata: "dg.RawMetadataValue") -> dg.AssetCheckResult:
    """Return the result of a check that passes; pure."""
    return dg.AssetCheckResult(passed=True, description=description, metadata=metadata)


def failed(
    description: str, *, what_to_do: str, error: bool = False, **metadata: "dg.RawMetadataValue"
) -> dg.AssetCheckResult:
    """Return the result of a check that does not pass, with what its reader should do; pure."""
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={**metadata, WHAT_TO_DO: what_to_do},
    )


def rows_result(
    rows: pl.DataFrame,
    *,
    none: str,
    found: str,
    what_to_do: str,
    error: bool = False,
    **numbers: float,
) -> dg.AssetCheckResult:
    """Return the result of a check that fails when it found rows; pure.

    Args:
        rows: The problems, worst first; the first ones are shown.
        none: The description if there are none.
        found: The description otherwise; the number of rows precedes it.
        what_to_do: The advice if there are rows.
        error: Whether the severity of a failure is ERROR.
        numbers: Metadata in both cases.
    """
    if rows.is_empty():
        return passed(none, **numbers)
    return failed(
        f"{rows.height} {found}. {what_to_do}",
        what_to_do=what_to_do,
        error=error,
        **numbers,
        found=rows.height,
        rows=table_of_rows(rows),
    )


def table_of_rows(rows: pl.DataFrame) -> dg.TableMetadataValue:
    """Return the first rows of a frame as a table of an event; pure."""
    columns = rows.head(SHOWN).to_dict(as_series=False)
    return table_of({name: [*map(_shown, cells)] for name, cells in columns.items()})


def _shown(value: object) -> str | int:
    if isinstance(value, int):
        return value
    return f"{value:.10g}" if isinstance(value, float) else "" if value is None else str(value)


def held_at_the_broker(lake: tables.Lake, login: Settings) -> pl.DataFrame:
    """Return the broker's newest row of each open holding of a login."""
    return tables.broker_rows(lake, login).filter(pl.col("position") != 0)


def newest_values(lake: tables.Lake, login: Settings) -> pl.DataFrame:
    """Return the newest row of the ledger of each open holding of a login."""
    rows = lake.updates.sync.latest()
    return rows.filter(pl.col("gateway_id") == login.gateway_id, pl.col("position") != 0)


def check_evaluation(key: dg.AssetCheckKey, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """Return a result as an event of a check that was not planned in a run."""
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )


def evaluation_of(record: Any) -> dg.AssetCheckEvaluation | None:
    """Return the result in Dagster's newest record of a check; None while a run has planned it."""
    found = record.evaluation if record is not None else None
    return found if isinstance(found, dg.AssetCheckEvaluation) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A derived table that was replaced: what its event says, and what its checks found.

    Attributes:
        metadata: The metadata of the event.
        checks: The results of the checks that were evaluated with the same rows.
    """

    metadata: "Mapping[str, dg.RawMetadataValue]"
    checks: Mapping[dg.AssetCheckKey, dg.AssetCheckResult] = field(default_factory=dict)

    def result(self, context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        """Return the result of a run, after logging those of the checks."""
        for key, found in self.checks.items():
            context.log_event(check_evaluation(key, found))
        return dg.MaterializeResult(metadata=self.metadata, data_version=dg.DataVersion(FOLLOWED))
