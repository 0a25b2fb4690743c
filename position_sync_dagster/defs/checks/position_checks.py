"""Checks on `position_updates`: does it agree with the broker, and does anyone watch?"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from position_sync_dagster.defs.dagster_failures import dagster_failures
from position_sync_dagster.defs.resources import GatewayResource, LakeResource
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.reconciliation import (
    Discrepancy,
    DiscrepancyType,
    ReconciliationResult,
)
from position_sync_dagster.errors import GatewayError

MAX_DISCREPANCIES = 100
"""Discrepancies shown with a check; the table `reconciliation_breaks` has all of them."""

SESSIONS_SEEN = 1000
"""Enough to find the last stream behind two days of drains that owned the login."""

ERROR_TYPES = frozenset(
    {DiscrepancyType.MISSING, DiscrepancyType.SURPLUS, DiscrepancyType.QUANTITY}
)
"""Types by which the ledger states a holding that the broker does not."""


@dg.asset_check(
    asset="position_updates",
    description="The newest rows against the broker's last complete snapshot and the registry.",
)
def agrees_with_the_broker(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, gateway: GatewayResource
) -> dg.AssetCheckResult:
    """Reconcile; a snapshot that is missing or incomplete is said to be so, and no pass."""
    from position_sync_dagster.sync.reports.reconciliation import ReconciliationService

    with dagster_failures():
        settings = gateway.settings(lake)
        service = ReconciliationService(lake.open(settings), settings)
        try:
            result = asyncio.run(service.run(run_id=context.run.run_id))
        except GatewayError as error:
            return _unknown(str(error))
    return judge_reconciliation(result)


def judge_reconciliation(result: ReconciliationResult) -> dg.AssetCheckResult:
    """Tell the outcome of a reconciliation as a check's result."""
    is_error = any(d.type in ERROR_TYPES for d in result.discrepancies)
    said = f"{result.checked} holdings compared, {len(result.discrepancies)} discrepancies"
    if not result.complete:
        said += "; the snapshot does not cover every account, so what is absent proves nothing"
    return dg.AssetCheckResult(
        passed=result.ok,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=said,
        metadata={
            "checked": result.checked,
            "snapshot_complete": result.complete,
            **{kind.value.lower(): result.count(kind) for kind in DiscrepancyType},
            "discrepancies": dg.MetadataValue.table(
                [_record(d) for d in result.discrepancies[:MAX_DISCREPANCIES]], schema=_SCHEMA
            ),
        },
    )


@dg.asset_check(
    asset="position_updates",
    description="Whether a stream sees the gateway, and since when none does.",
)
def a_stream_watches(lake: LakeResource, gateway: GatewayResource) -> dg.AssetCheckResult:
    """Tell by the newest session of a stream; a drain that owns the login meanwhile is none."""
    with dagster_failures():
        settings = gateway.settings(lake)
        sessions = lake.open(settings).sessions.sync
        session = sessions.current(settings.gateway_id)
        if session is not None and session.owner is not Owner.STREAM:
            known = sessions.history(SESSIONS_SEEN)
            streams = [s for s in known if s.owner is Owner.STREAM]
            session = next((s for s in streams if s.gateway_id == settings.gateway_id), None)
    return judge_stream_session(session, datetime.now(UTC))


def judge_stream_session(session: GatewaySession | None, now: datetime) -> dg.AssetCheckResult:
    """Tell since when nobody streams from the gateway, by the newest session of a stream."""
    if session is None:
        return _unknown("No stream has run yet.")
    metadata: Mapping[str, dg.RawMetadataValue] = {
        "state": session.state.value,
        "owner": session.owner.value,
        "lines_in_use": session.lines_in_use,
        "line_limit": session.line_limit,
        "note": session.detail or "",
    }
    alive = session.is_alive(now)
    if alive and session.state is SessionState.LIVE:
        return dg.AssetCheckResult(
            passed=True, description="A stream sees the gateway.", metadata=metadata
        )
    since = session.seen_until(now)
    who = "The stream has not" if alive else "No stream has"
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{who} seen the gateway since {since:%Y-%m-%d %H:%M:%S} UTC.",
        metadata={**metadata, "blind_for_s": (now - since).total_seconds()},
    )


def _unknown(why: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Unknown: {why}",
        metadata={"snapshot_complete": False},
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
