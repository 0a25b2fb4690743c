"""The one driver of the checks: it evaluates them in the tick of `drain_queue`, and stores news.

A result without a run counts as that of the newest materialization without a run. For that reason a
result is stored only when it changed, and each two hours; one that fails in other words, such as
with another number, after five minutes.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from position_sync_dagster.defs.checks import broker, check_results, ledger, strategies
from position_sync_dagster.defs.checks.check_results import UNKNOWN, check_evaluation, evaluation_of
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.settings import Settings

logger = logging.getLogger(__name__)

CHECKS = (
    broker.a_stream_watches,
    ledger.agrees_with_the_broker,
    ledger.legs_have_values,
    ledger.values_match_the_broker,
    ledger.ids_are_unique,
    ledger.requests_are_answered,
    strategies.file_is_applied,
    strategies.legs_are_resolved,
    strategies.rolls_are_followed,
    broker.holdings_are_usable,
    broker.lines_suffice,
    broker.login_is_made,
    broker.account_values_follow,
    ledger.breaks_are_decided,
)

# The checks of the tables, in the order of their evaluation.
KEYS = tuple(check.check_key for check in CHECKS)

# Seconds between two evaluations of all checks, and of those that did not pass. `a_stream_watches`
# is evaluated in each tick, and returned between them only when it has changed.
ALL_EVERY_S, FAILED_EVERY_S = 60.0, 10.0

# A result that stays the same is stored again after this time. It takes 3.5 kB in SQLite.
STORED_EVERY = timedelta(hours=2)

# A result that still fails, and differs in its description alone, is stored after this time: the
# number of a broken limit moves with each tick.
REWORDED_EVERY = timedelta(minutes=5)

# No check begins after this time, in seconds; the next tick goes on with the others.
TIME_LIMIT_S = 10.0


class CheckDriver:
    """Decides which checks are due, and evaluates them; one object for each lake and process."""

    def __init__(self) -> None:
        self._evaluated_at: dict[dg.AssetCheckKey, float] = {}
        self._failing: set[dg.AssetCheckKey] = set()

    def results(
        self, lake: tables.Lake, settings: Settings
    ) -> Iterator[tuple[dg.AssetCheckKey, dg.AssetCheckResult]]:
        """Evaluate the checks that are due, those first that were not evaluated for longest."""
        began = time.monotonic()
        watch = broker.a_stream_watches.check_key
        due = [key for key in KEYS if key == watch or self._is_due(key, began)]
        for key in sorted(due, key=lambda one: self._evaluated_at.get(one, 0.0)):
            if time.monotonic() - began > TIME_LIMIT_S:
                return
            result = evaluate(key, lake, settings)
            if result.passed != (key in self._failing) and not self._is_due(key, began):
                continue
            self._evaluated_at[key] = time.monotonic()
            (self._failing.discard if result.passed else self._failing.add)(key)
            yield key, result

    def _is_due(self, key: dg.AssetCheckKey, now: float) -> bool:
        every_s = FAILED_EVERY_S if key in self._failing else ALL_EVERY_S
        return key not in self._evaluated_at or now - self._evaluated_at[key] >= every_s


def evaluate(key: dg.AssetCheckKey, lake: tables.Lake, settings: Settings) -> dg.AssetCheckResult:
    """Evaluate one check; a mistake of ours is an unknown result too, and stops nothing else."""
    try:
        return check_results.EVALUATE[key](lake, settings)
    except Exception as error:
        logger.exception("the check %s cannot be evaluated", key.name)
        return check_results.unknown_result(
            f"the check itself failed: {type(error).__name__}: {error}"
        )


def news(
    instance: dg.DagsterInstance,
    results: Iterable[tuple[dg.AssetCheckKey, dg.AssetCheckResult]],
    now: datetime,
) -> list[dg.AssetCheckEvaluation]:
    """Return the results that Dagster does not have yet, as events."""
    found = dict(results)
    if not found:
        return []
    stored = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(found))
    assets = {key.asset_key for key in found}
    runs = {
        record.asset_entry.asset_key: record.asset_entry.last_materialization_record
        for record in instance.get_asset_records(list(assets))
    }
    return [
        check_evaluation(key, result)
        for key, result in found.items()
        if is_news(stored.get(key), result, now) or _is_hidden(stored[key], runs.get(key.asset_key))
    ]


def is_news(record: Any, result: dg.AssetCheckResult, now: datetime) -> bool:
    """Return whether a result differs from the stored one, or that one is old; pure."""
    before = evaluation_of(record)
    if before is None:
        return True
    at = datetime.fromtimestamp(record.create_timestamp, UTC)
    if not now - STORED_EVERY < at <= now + SKEW or before.passed != result.passed:
        return True
    if result.passed:
        return False
    is_unknown = UNKNOWN in result.metadata
    if (before.severity, UNKNOWN in before.metadata) != (result.severity, is_unknown):
        return True
    return before.description != result.description and now - at >= REWORDED_EVERY


def _is_hidden(record: Any, materialization: dg.EventLogRecord | None) -> bool:
    """Return whether Dagster shows no result, since a run materialized the asset after it."""
    return (
        materialization is not None
        and materialization.run_id != record.run_id
        and materialization.timestamp > record.create_timestamp
    )
