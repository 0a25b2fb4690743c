"""The evaluation of the checks by drains, streams and `refresh_derived`.

Dagster shows a result as old once its asset is materialized again. For that reason a drain and the
stream evaluate all checks after each of their materializations, and `refresh_derived` those whose
result is old. A drain plans none of them: while a planned check waits, Dagster shows no result of
it.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial

import dagster as dg

from position_sync_dagster.defs.checks import broker, check_results, ledger
from position_sync_dagster.defs.libraries import tables
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.settings import Settings

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 20.0
"""Time limit: a drain that has run for this time, or a stream that has evaluated checks for this
time, begins no further check. If tables are slow, values come first."""

QUEUE = dg.AssetKey("position_queue")

KEYS = tuple(
    check.check_key
    for check in (
        broker.a_stream_watches,
        ledger.agrees_with_the_broker,
        ledger.legs_have_values,
        ledger.values_match_the_broker,
        ledger.ids_are_unique,
        ledger.tables_fit_the_code,
        ledger.requests_are_answered,
        ledger.requests_end_once,
        broker.legs_are_resolved,
        broker.rolls_are_followed,
        broker.holdings_are_usable,
        broker.lines_suffice,
        broker.login_is_made,
        broker.account_values_follow,
        ledger.breaks_are_decided,
    )
)
"""The checks of the tables, in the order of their evaluation."""


def evaluated(
    lake: "tables.Lake",
    settings: Settings,
    instance: dg.DagsterInstance,
    *,
    run_id: str,
    checks: Sequence[dg.AssetCheckKey] = KEYS,
    time_limit_s: float | None = None,
) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate checks, and return the results as events.

    A check that raises an error gets a result that says so; the other checks, the stream and the
    drain continue. They judge the tables as of one moment: in an object store each table is looked
    at once.

    Args:
        lake, settings: The data that the checks read.
        instance: The Dagster instance with the materializations to check.
        run_id: The run that evaluates.
        checks: Those to evaluate, in this order.
        time_limit_s: No check begins after it; `refresh_derived` evaluates the others.
    """
    until = None if time_limit_s is None else time.monotonic() + time_limit_s
    compared = partial(ledger.compared_now, run_id=run_id)
    functions = check_results.EVALUATE | {ledger.agrees_with_the_broker.check_key: compared}
    targets: dict[dg.AssetKey, dg.EventLogRecord | None] = {}
    seen = set[int]()
    if any(key.asset_key == QUEUE for key in checks) and lake.queue.table.is_remote:
        with lake.looked_at_once(seen):  # first: a row is committed before its request is marked
            lake.queue.table.version()
    for key in checks:
        if until is not None and time.monotonic() >= until:
            logger.warning("the check %s and those behind it are left to refresh_derived", key.name)
            return
        if key.asset_key not in targets:  # before the look: what comes later is not judged
            newest = check_results.newest_materialization(instance, key.asset_key)
            targets[key.asset_key] = newest
        try:
            with lake.looked_at_once(seen):
                result = functions[key](lake, settings)
        except PositionSyncError as error:
            result = check_results.unknown_result(str(error))
        except Exception as error:
            logger.exception("the check %s cannot be evaluated", key.name)
            result = check_results.unknown_result(
                f"the check itself failed: {type(error).__name__}: {error}"
            )
        found = result._replace(
            metadata={**result.metadata, "run_id": dg.MetadataValue.dagster_run(run_id)}
        )
        yield check_results.check_evaluation(key, found, targets[key.asset_key])
