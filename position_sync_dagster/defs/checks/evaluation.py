"""The evaluation of the checks by drains, streams and `refresh_derived`.

Dagster shows a result as old once its asset is materialized again. For that reason a drain and the
stream evaluate all checks after each of their materializations, and `refresh_derived` those whose
result is old. A drain plans none of them: while a planned check waits, Dagster shows no result of
it.
"""

import logging
import time
from collections.abc import Iterator
from functools import partial

import dagster as dg

from position_sync_dagster.defs.checks import broker, ledger, open_differences, requests
from position_sync_dagster.defs.checks.check_results import (
    Evaluate,
    check_evaluation,
    newest_materialization,
    unknown_result,
)
from position_sync_dagster.defs.libraries import tables
from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.settings import Settings

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 20.0
"""Time limit: a drain that has run for this time, or a stream that has evaluated checks for this
time, begins no further check. If tables are slow, values come first."""

LEDGER = "position_updates"
QUEUE = "position_queue"
LEGS = "active_strategies"

CHECKS: tuple[tuple[str, str], ...] = (
    (LEDGER, "a_stream_watches"),
    (LEDGER, "agrees_with_the_broker"),
    (LEDGER, "legs_have_values"),
    (LEDGER, "values_match_the_broker"),
    (LEDGER, "ids_are_unique"),
    (LEDGER, "tables_fit_the_code"),
    (QUEUE, "requests_are_answered"),
    (QUEUE, "requests_end_once"),
    (LEGS, "legs_are_resolved"),
    (LEGS, "rolls_are_followed"),
    ("broker_positions", "holdings_are_usable"),
    ("gateway_sessions", "lines_suffice"),
    ("gateway_sessions", "login_is_made"),
    ("account_values", "account_values_follow"),
    ("reconciliation_breaks", "breaks_are_decided"),
)
"""Asset and name of each check."""

KEYS = tuple(dg.AssetCheckKey(dg.AssetKey(asset), name) for asset, name in CHECKS)

_EVALUATE: dict[str, Evaluate] = {
    "a_stream_watches": broker.watched_now,
    "legs_have_values": ledger.evaluate_legs_have_values,
    "values_match_the_broker": ledger.evaluate_values_match_the_broker,
    "ids_are_unique": ledger.evaluate_ids_are_unique,
    "tables_fit_the_code": ledger.evaluate_tables_fit_the_code,
    "requests_are_answered": requests.evaluate_requests_are_answered,
    "requests_end_once": requests.evaluate_requests_end_once,
    "legs_are_resolved": broker.evaluate_legs_are_resolved,
    "rolls_are_followed": broker.evaluate_rolls_are_followed,
    "holdings_are_usable": broker.evaluate_holdings_are_usable,
    "lines_suffice": broker.evaluate_lines_suffice,
    "login_is_made": broker.evaluate_login_is_made,
    "account_values_follow": broker.evaluate_account_values_follow,
    "breaks_are_decided": open_differences.evaluate_breaks_are_decided,
}


def evaluated(
    lake: "tables.Lake",
    settings: Settings,
    instance: dg.DagsterInstance,
    *,
    run_id: str,
    checks: tuple[tuple[str, str], ...] = CHECKS,
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
        checks: Asset and name of each.
        time_limit_s: No check begins after it; `refresh_derived` evaluates the others.
    """
    until = None if time_limit_s is None else time.monotonic() + time_limit_s
    compared = partial(ledger.compared_now, run_id=run_id)
    functions = _EVALUATE | {"agrees_with_the_broker": compared}
    targets: dict[str, dg.EventLogRecord | None] = {}
    seen = set[int]()
    if QUEUE in dict(checks) and lake.queue.table.is_remote:
        with lake.looked_at_once(seen):  # first: a row is committed before its request is marked
            lake.queue.table.version()
    for asset, name in checks:
        if until is not None and time.monotonic() >= until:
            logger.warning("the check %s and those behind it are left to refresh_derived", name)
            return
        try:
            with lake.looked_at_once(seen):
                result = functions[name](lake, settings)
        except PositionSyncError as error:
            result = unknown_result(str(error))
        except Exception as error:
            logger.exception("the check %s cannot be evaluated", name)
            result = unknown_result(f"the check itself failed: {type(error).__name__}: {error}")
        if asset not in targets:
            targets[asset] = newest_materialization(instance, asset)
        found = result._replace(
            metadata={**result.metadata, "run_id": dg.MetadataValue.dagster_run(run_id)}
        )
        yield check_evaluation(asset, name, found, targets[asset])
