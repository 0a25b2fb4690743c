"""Checks of `strategy_exposure`: the limits of the strategies file.

The checks are defined when the definitions are loaded. The file is read again at each
evaluation: a limit that was added since is evaluated and sent at once, and is shown in the UI
after the next reload.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

import dagster as dg

from position_sync_dagster.defs.checks import check_results
from position_sync_dagster.defs.libraries import (
    limit_readings,
    overview,
    strategies_file,
    tables,
)
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.domain.leg import Limit, LimitState
from position_sync_dagster.errors import StrategiesFileError
from position_sync_dagster.lake.schema.tables import STRATEGY_EXPOSURE
from position_sync_dagster.settings import Settings
from position_sync_dagster.yaml_file import saved_state

EXPOSURE = STRATEGY_EXPOSURE.name

READ_CHECK = "limits_are_read"

PREFIX = "limit_"
"""The beginning of the name of each check of a limit."""

OF_VALUE = " (its value)"
"""The end of a limit's name in messages that say whether its number is known."""

DECIDE = "Decide about the position, or change the limit in the strategies file."


def read_limits(settings: Settings) -> list[Limit]:
    """Return the limits of the strategies file; none without a file.

    Raises:
        StrategiesFileError: The file cannot be read, or has a mistake.
    """
    path = settings.strategies_file
    return [] if path is None else list(_limits_of(path, saved_state(path)))


@lru_cache(maxsize=1)
def _limits_of(path: Path, _saved: tuple[int, int, int]) -> tuple[Limit, ...]:
    """Read a file once for each time that it is saved: the sensor asks every 5 s."""
    return tuple(strategies_file.load_limits(path))


def watched_limits(settings: Settings, known: Iterable[str] = ()) -> list[dg.AssetCheckKey]:
    """Return the check of each limit; while the file has a mistake, those that are known by name.

    Args:
        settings: The settings that name the file.
        known: Names of checks as "asset: check".
    """
    try:
        names = [limit.name for limit in read_limits(settings)]
    except StrategiesFileError:
        texts = (text.split(": ")[1].removesuffix(OF_VALUE) for text in known)
        names = list(dict.fromkeys(text for text in texts if text.startswith(PREFIX)))
    return [dg.AssetCheckKey(dg.AssetKey(EXPOSURE), name) for name in names]


def result_of(one: "limit_readings.Evaluated") -> dg.AssetCheckResult:
    """Return the result of the check of a limit; pure."""
    metadata: dict[str, dg.RawMetadataValue] = {"limit": one.limit.value, "at": one.limit.place}
    if one.reading.number is not None:
        metadata["number"] = float(one.reading.number)
    if one.outcome is LimitState.UNKNOWN:
        result = check_results.unknown_result(one.text)
        return result._replace(metadata={**metadata, **result.metadata})
    if one.outcome is LimitState.HOLDS:
        return dg.AssetCheckResult(passed=True, description=one.text, metadata=metadata)
    error = dg.AssetCheckSeverity.ERROR
    return check_results.failed(one.text, what_to_do=DECIDE, severity=error, metadata=metadata)


def evaluated_limits(
    lake: "tables.Lake", settings: Settings, book: "overview.Book", instance: dg.DagsterInstance
) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate each limit with the book of an exposure that was just materialized; blocks."""
    target = check_results.newest_materialization(instance, EXPOSURE)
    try:
        limits = read_limits(settings)
    except StrategiesFileError as error:
        yield check_results.check_evaluation(EXPOSURE, READ_CHECK, _unreadable(error), target)
        return
    yield check_results.check_evaluation(EXPOSURE, READ_CHECK, _readable(len(limits)), target)
    evidence = limit_readings.evidence_of(lake, settings, book) if limits else None
    for one in limit_readings.evaluate(limits, evidence) if evidence else ():
        yield check_results.check_evaluation(EXPOSURE, one.limit.name, result_of(one), target)


def _unreadable(error: StrategiesFileError) -> dg.AssetCheckResult:
    return check_results.failed(
        f"No limit is evaluated. {error}",
        what_to_do=error.remedy,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={},
    )


def _readable(count: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=True, description=f"{count} limits.", metadata={"limits": count}
    )


@check_results.table_check(
    EXPOSURE,
    READ_CHECK,
    description="Whether the limits in the strategies file can be read. Without a file there are "
    "none.",
)
def limits_are_read(_lake: "tables.Lake", settings: Settings) -> dg.AssetCheckResult:
    """Return the check's result now."""
    try:
        return _readable(len(read_limits(settings)))
    except StrategiesFileError as error:
        return _unreadable(error)


def _evaluate_alone(name: str, lake: "tables.Lake", settings: Settings) -> dg.AssetCheckResult:
    """Return the result of one limit with a book that is read for it."""
    limit = next((one for one in read_limits(settings) if one.name == name), None)
    if limit is None:
        return check_results.unknown_result("the strategies file has no such limit any more.")
    latest = tables.rows_of_logins(lake.updates.sync.latest(), settings)
    now = datetime.now(UTC)
    book = overview.read_book(lake, settings, now, latest=latest, of_strategies=True)
    evidence = limit_readings.evidence_of(lake, settings, book)
    return result_of(limit_readings.evaluate([limit], evidence)[0])


@dg.definitions
def limit_checks() -> dg.Definitions:
    """Define the checks of sums and of each limit; a file with a mistake has no limits.

    The jobs must load all the same, and `limits_are_read` fails.
    """
    try:
        limits = read_limits(POSITION_SYNC.read_settings())
    except StrategiesFileError:
        limits = []
    return dg.Definitions(asset_checks=[limits_are_read, *map(_check_of, limits)])


def _check_of(limit: Limit) -> dg.AssetChecksDefinition:
    return check_results.table_check(
        EXPOSURE,
        limit.name,
        description=f"The {limit.bound} of {limit.measure} of {limit.subject} is {limit.value:g}"
        f"{f' {limit.currency}' if limit.currency else ''}.",
    )(partial(_evaluate_alone, limit.name))
