"""Requests of the queue: the form in which callers make them, and the form that is stored."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from position_sync_dagster.domain.column import Column


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


ACTIVE_PRIORITY = 1
"""The priority of an active leg without a line."""

MONITORING_PRIORITY = 2
"""The priority of all other positions (monitoring)."""

LEASE_S = 45.0
"""The length of a lease, unless the settings or a caller choose another, in seconds."""


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
    """A request as it is stored: the columns of the table `position_queue`."""

    request_id: Annotated[str, Column("Unique id of the request.")]
    conid: Annotated[int, Column("IB's contract id of the instrument.")]
    symbol: Annotated[str, Column("Symbol of the underlying.")]
    priority: Annotated[
        int, Column("1 (active leg without a line) is claimed before 2 (monitoring).")
    ]
    status: Annotated[
        QueueStatus, Column("PENDING, PROCESSING, or one of the final states SUCCESS and FAILED.")
    ]
    created_at: Annotated[datetime, Column("When the request was inserted (UTC).")]
    updated_at: Annotated[datetime, Column("When the row last changed (UTC).")]
    error_message: Annotated[
        str | None, Column("Why the last attempt failed; null before the first failure.")
    ] = None
    account: Annotated[str | None, Column("IB account; null for the contract in any account.")] = (
        None
    )
    attempts: Annotated[int, Column("Claims that have ended in failure.")] = 0
    available_at: Annotated[
        datetime | None,
        Column(
            "While PENDING: the request is not claimed before this time (back-off of a retry). "
            "While PROCESSING: not null means that the position changed, and a new request follows."
        ),
    ] = None
    lease_owner: Annotated[
        str | None, Column("The worker that holds the lease, or that finished the request.")
    ] = None
    lease_token: Annotated[
        str | None, Column("Drawn anew at each claim; every mark is checked against it.")
    ] = None
    lease_expires_at: Annotated[
        datetime | None, Column("End of the lease (UTC); null without a lease.")
    ] = None
    reason: Annotated[
        Reason, Column("Why it was inserted: SNAPSHOT, CHANGED, REFRESH, OVERFLOW or MANUAL.")
    ] = Reason.MANUAL
    update_id: Annotated[
        str | None,
        Column(
            "Of a SUCCESS the row of position_updates that answers it: its own one, or an older "
            "one that says the same. Of a request for any account: that of the first account."
        ),
    ] = None
    confirmed_at: Annotated[
        datetime | None,
        Column("Until when the source of that row is known to have confirmed its value (UTC)."),
    ] = None
