"""The session of a login, as a stream of another process writes it."""

import os
from typing import Any

from position_sync_dagster.domain.gateway_session import GatewaySession, Owner
from position_sync_dagster.lake.lake import Lake


def own(
    lake: Lake,
    gateway_id: str,
    *,
    owner: Owner = Owner.STREAM,
    run_id: str | None = None,
    lease_s: float = 600.0,
    **columns: Any,
) -> GatewaySession:
    """Acquire a login as a stream does, and write columns of its session."""
    session = lake.sessions.acquire(
        gateway_id, owner, lease_s=600.0, run_id=run_id, host="here", pid=os.getpid()
    )
    return lake.sessions.renew(session, lease_s=lease_s, **columns)
