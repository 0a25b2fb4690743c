"""The session of a login, as a stream of another process writes it."""

from typing import Any

from position_sync_dagster.domain.gateway_session import GatewaySession, Owner
from position_sync_dagster.lake.lake import Lake


def own(lake: Lake, gateway_id: str, *, lease_s: float = 600.0, **columns: Any) -> GatewaySession:
    """Acquire a login as a stream does, and write columns of its session."""
    who = {"run_id": None, "host": "here", "pid": 1}
    session = lake.sessions.acquire(gateway_id, Owner.STREAM, lease_s=lease_s, **who)
    return lake.sessions.renew(session, lease_s=lease_s, **columns) if columns else session
