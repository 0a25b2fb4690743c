"""A session of a gateway owner: who may write for a login, and until when."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Owner(StrEnum):
    """Which kind of process owns the login."""

    STREAM = "STREAM"
    DRAIN = "DRAIN"


class SessionState(StrEnum):
    """Where the session stands: STARTING → LIVE ⇄ BLIND → ENDED | LOST."""

    STARTING = "STARTING"
    LIVE = "LIVE"
    BLIND = "BLIND"
    ENDED = "ENDED"
    LOST = "LOST"


ALIVE = frozenset({SessionState.STARTING, SessionState.LIVE, SessionState.BLIND})


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySession:
    """One owner's lease on one login: the row of the table `gateway_sessions`.

    Attributes:
        fencing_token: Grows by one with each session of the gateway; rows carry it.
        expires_at: The lease's end; the owner must renew before.
        state_since: When `state` was entered.
        detail: Why the session is BLIND or how it ended, for a person.
    """

    gateway_id: str
    owner: Owner
    session_id: str
    run_id: str | None
    host: str
    pid: int
    fencing_token: int
    started_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    state: SessionState
    state_since: datetime
    lines_in_use: int = 0
    line_limit: int = 0
    detail: str | None = None

    def is_alive(self, now: datetime) -> bool:
        """Tell whether the lease holds at `now`."""
        return self.state in ALIVE and now < self.expires_at
