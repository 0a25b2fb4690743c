"""The queue's values: what a caller asks for, and what is stored."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class QueueStatus(StrEnum):
    """The state of a request; SUCCESS and FAILED are final."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


class Reason(StrEnum):
    """Why a position is in the queue."""

    SNAPSHOT = "SNAPSHOT"
    CHANGED = "CHANGED"
    REFRESH = "REFRESH"
    OVERFLOW = "OVERFLOW"
    MANUAL = "MANUAL"


ACTIVE_PRIORITY = 1
"""The priority of an active leg without a line."""

MONITORING_PRIORITY = 2
"""The priority of everything else."""


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """A wish to have one position valued.

    Attributes:
        priority: 1 (active without a line) is claimed before 2 (monitoring).
        account: None when the caller means the conid in any account.
    """

    conid: int
    symbol: str
    priority: int = MONITORING_PRIORITY
    account: str | None = None
    reason: Reason = Reason.MANUAL


@dataclass(frozen=True, slots=True)
class QueuedPosition:
    """A request as it is stored.

    Attributes:
        attempts: Claims that ended in failure so far.
        available_at: Not claimed before; the back-off of a retry.
        lease_token: Drawn anew at each claim; every mark is checked against it.
    """

    request_id: str
    conid: int
    symbol: str
    priority: int
    status: QueueStatus
    created_at: datetime
    updated_at: datetime
    error_message: str | None = None
    account: str | None = None
    attempts: int = 0
    available_at: datetime | None = None
    lease_owner: str | None = None
    lease_token: str | None = None
    lease_expires_at: datetime | None = None
    reason: Reason = Reason.MANUAL
