"""A request to value a position: what a caller asks for, and the row of `position_queue`."""

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
    """Why a position is in the queue.

    SNAPSHOT: the first list of positions after a connection. CHANGED: the holding is new or has
    changed. REFRESH: the periodic refresh. OVERFLOW: an active leg has no market data line.
    MANUAL: a person or a script.
    """

    SNAPSHOT = "SNAPSHOT"
    CHANGED = "CHANGED"
    REFRESH = "REFRESH"
    OVERFLOW = "OVERFLOW"
    MANUAL = "MANUAL"


# The priority of an active leg without a line.
ACTIVE_PRIORITY = 1

# The priority of all other positions (monitoring).
MONITORING_PRIORITY = 2

# The length of a lease, unless the settings or a caller choose another, in seconds.
LEASE_S = 45.0


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """A request to value one position.

    Attributes:
        priority: 1 (active without a line) is claimed before 2 (monitoring).
        account: None for the conid in any account.
    """

    conid: int
    symbol: str
    priority: int = MONITORING_PRIORITY
    account: str | None = None
    reason: Reason = Reason.MANUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The row that answers a request.

    Attributes:
        update_id: The row of `position_updates`.
        confirmed_at: Until when its source is known to have confirmed its value; None: unknown.
    """

    update_id: str
    confirmed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueuedPosition:
    """A request as it is stored: the columns of the table `position_queue`.

    Attributes:
        request_id: Unique id of the request.
        conid: IB's contract id of the instrument.
        symbol: Symbol of the underlying.
        priority: 1 (active leg without a line) is claimed before 2 (monitoring).
        status: PENDING, PROCESSING, or one of the final states SUCCESS and FAILED.
        created_at: When the request was inserted (UTC).
        updated_at: When the row last changed (UTC).
        error_message: Why the last attempt failed; null before the first failure.
        account: IB account; null for the contract in any account.
        attempts: Claims that have ended in failure.
        available_at: The request is not claimed before this time (back-off of a retry).
        lease_owner: The worker that holds the lease, or that finished the request.
        lease_token: Drawn anew at each claim; every mark is checked against it.
        lease_expires_at: End of the lease (UTC); null without a lease.
        reason: Why it was inserted: SNAPSHOT, CHANGED, REFRESH, OVERFLOW or MANUAL.
        update_id: Of a SUCCESS the row of position_updates that answers it: its own one, or an
            older one that says the same. Of a request for any account: that of the first account.
        confirmed_at: Until when the source of that row is known to have confirmed its value (UTC).
        changed_at: When the position changed while the request was PROCESSING (UTC): a new request
            follows it.
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
    update_id: str | None = None
    confirmed_at: datetime | None = None
    changed_at: datetime | None = None
