"""The check `a_stream_watches`: whether a stream is connected to the broker."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from position_sync_dagster.defs.checks.check_results import (
    WHAT_TO_DO,
    of_each_login,
    unknown_result,
)
from position_sync_dagster.defs.resources import PositionSyncResource
from position_sync_dagster.defs.runs import dagster_failures
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState

if TYPE_CHECKING:
    from position_sync_dagster.lake.lake import Lake
    from position_sync_dagster.settings import Settings

CHECK_NAME = "a_stream_watches"

SESSIONS_SEEN = 1000
"""Enough to find the last stream behind two days of refreshes that owned the login."""


@dg.asset_check(
    name=CHECK_NAME,
    asset="position_updates",
    description="Whether a stream sees the gateway, and since when none does.",
)
@dagster_failures
def a_stream_watches(position_sync: PositionSyncResource) -> dg.AssetCheckResult:
    """Check the newest session of a stream; a refresh that owns the login does not count."""
    return watched_now(position_sync.lake, position_sync.settings)


def watched_now(lake: "Lake", settings: "Settings") -> dg.AssetCheckResult:
    """Return the check's result now; the stream itself evaluates it when its state changes."""
    return of_each_login(
        settings,
        lambda login: judge_stream_session(_session_of(lake, login), datetime.now(UTC)),
    )


def _session_of(lake: "Lake", login: "Settings") -> GatewaySession | None:
    sessions, gateway_id = lake.sessions.sync, login.gateway_id
    session = sessions.current(gateway_id)
    if session is not None and session.owner is not Owner.STREAM:
        streams = (s for s in sessions.history(SESSIONS_SEEN) if s.owner is Owner.STREAM)
        session = next((s for s in streams if s.gateway_id == gateway_id), None)
    return session


def judge_stream_session(session: GatewaySession | None, now: datetime) -> dg.AssetCheckResult:
    """Return the check's result for the newest session of a stream; pure."""
    if session is None:
        return unknown_result("No stream has run yet.")
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
        metadata={
            **metadata,
            "blind_for_s": (now - since).total_seconds(),
            WHAT_TO_DO: "Look whether TWS or IB Gateway runs and is logged in; `position-sync "
            "status` says what the stream tried.",
        },
    )
