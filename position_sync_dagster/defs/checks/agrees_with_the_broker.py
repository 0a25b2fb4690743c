"""The check `agrees_with_the_broker`: whether the ledger's newest rows match the broker's."""

import asyncio
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.assets.table_asset import observe_table
from position_sync_dagster.defs.checks.check_results import WHAT_TO_DO, unknown_result
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import dagster_failures
from position_sync_dagster.domain.reconciliation import (
    Discrepancy,
    DiscrepancyType,
    ReconciliationResult,
)
from position_sync_dagster.errors import GatewayError
from position_sync_dagster.lake.schema.tables import RECONCILIATION_BREAKS

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

MAX_DISCREPANCIES = 100
"""Discrepancies shown with a check; the table `reconciliation_breaks` has all of them."""

ERROR_TYPES = frozenset(
    {DiscrepancyType.MISSING, DiscrepancyType.SURPLUS, DiscrepancyType.QUANTITY}
)
"""Types of discrepancy in which the ledger and the broker differ about a holding itself."""


TO_DO = (
    "Compare the rows of the check with TWS. MISSING, SURPLUS and QUANTITY are wrong positions "
    "here until the next refresh; LEG_QUANTITY and LEG_MISMATCH are mended in the strategies."
)

CHECK_NAME = "agrees_with_the_broker"


@dg.asset_check(
    name=CHECK_NAME,
    asset="position_updates",
    description="The newest rows against the broker's last complete snapshot and the registry.",
)
@dagster_failures
def agrees_with_the_broker(
    context: dg.AssetCheckExecutionContext, position_sync: PositionSyncResource
) -> dg.AssetCheckResult:
    """Reconcile; a snapshot that is missing or incomplete is reported and does not pass."""
    result = compared_now(position_sync.lake, position_sync.settings, run_id=context.run.run_id)
    context.op_execution_context.log_event(observe_table(position_sync.lake, RECONCILIATION_BREAKS))
    return result


def compared_now(lake: "Lake", settings: "Settings", *, run_id: str) -> dg.AssetCheckResult:
    """Return the check's result now; a drain evaluates it right after its rows."""
    from position_sync_dagster.sync.reports.reconciliation import ReconciliationService

    service = ReconciliationService(lake, settings)
    try:
        result = asyncio.run(service.run(run_id=run_id))
    except GatewayError as error:
        return unknown_result(str(error))
    return judge_reconciliation(result)


def judge_reconciliation(result: ReconciliationResult) -> dg.AssetCheckResult:
    """Return the check's result for a reconciliation; pure."""
    is_error = any(d.type in ERROR_TYPES for d in result.discrepancies)
    summary = f"{result.checked} holdings compared, {len(result.discrepancies)} discrepancies"
    if not result.complete:
        summary += "; the snapshot does not cover every account, so what is absent proves nothing"
    return dg.AssetCheckResult(
        passed=result.ok,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=summary,
        metadata={
            "checked": result.checked,
            **({} if result.ok else {WHAT_TO_DO: TO_DO}),
            "snapshot_complete": result.complete,
            **{kind.value.lower(): result.count(kind) for kind in DiscrepancyType},
            "discrepancies": dg.MetadataValue.table(
                [_record(d) for d in result.discrepancies[:MAX_DISCREPANCIES]], schema=_SCHEMA
            ),
        },
    )


_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("type", "string"),
        dg.TableColumn("account", "string"),
        dg.TableColumn("conid", "int"),
        dg.TableColumn("symbol", "string"),
        dg.TableColumn("expected", "string"),
        dg.TableColumn("actual", "string"),
        dg.TableColumn("detail", "string"),
    ]
)


def _record(one: Discrepancy) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "type": one.type.value,
            "account": one.account,
            "conid": one.conid,
            "symbol": one.symbol,
            "expected": "" if one.expected is None else f"{one.expected:g}",
            "actual": "" if one.actual is None else f"{one.actual:g}",
            "detail": one.detail,
        }
    )
