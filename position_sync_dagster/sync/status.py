"""The state of everything at one moment, read from the tables alone."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.request import QueueStatus
from position_sync_dagster.domain.routing import demands
from position_sync_dagster.domain.update import Source
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.ownership import blind_since


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a person wants to know first.

    Attributes:
        session_state: The owner's state (STARTING, LIVE, BLIND), ENDED or LOST without one,
            None when nobody ever owned the login; `session_since` is when it entered it.
        blind_since: Since when nobody sees the gateway; None while the stream is LIVE.
        lines_in_use, line_limit: Of the living owner; 0 without one.
        active_legs: Conids of active strategies; `legs_held` of them are held at the broker.
        positions: Holdings that the broker last told.
        oldest_pending_age_s: Age of the oldest waiting request, in seconds.
        updates_rows, updates_version: Rows and Delta version of `position_updates`.
        streamed_rows: Current rows (the newest per holding) that the stream wrote.
        queued_rows: Current rows that the queue wrote; `last_drained_at` is their newest time.
    """

    at: datetime
    lake: str
    gateway_id: str
    session_state: str | None
    session_owner: str | None
    session_since: datetime | None
    session_detail: str | None
    run_id: str | None
    blind_since: datetime | None
    lines_in_use: int
    line_limit: int
    active_legs: int
    legs_held: int
    positions: int
    queue: dict[str, int]
    oldest_pending_age_s: float | None
    updates_rows: int
    updates_version: int
    streamed_rows: int
    queued_rows: int
    last_drained_at: datetime | None
    trading_mode: str | None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON; times as ISO 8601."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }
