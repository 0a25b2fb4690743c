"""A session of a gateway owner: who may write for a login, and until when."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from position_sync_dagster.domain.clock import SKEW


class Owner(StrEnum):
    """Which kind of process owns the login."""

    STREAM = "STREAM"
    REFRESH = "DRAIN"
    """A short-lived owner: a refresh by a drain run, while no stream lives; stored as DRAIN."""


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
        heartbeat_at: When it was last renewed; when it ended, if it did.
        state_since: When `state` was entered, if that is LIVE; otherwise since when nobody sees
            the gateway, which an earlier session may have known.
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
        return self.state in ALIVE and now < self.expires_at and not self.is_ahead(now)

    def is_ahead(self, now: datetime) -> bool:
        """Tell whether the last heartbeat lies in the future: the lease would hold for ever."""
        return self.heartbeat_at - now > SKEW

    def seen_until(self, now: datetime) -> datetime:
        """Give the moment after which nobody has seen the gateway; `now` while it is LIVE."""
        if self.state is not SessionState.LIVE:
            return min(now, self.state_since)
        return now if self.is_alive(now) else min(now, self.heartbeat_at)
