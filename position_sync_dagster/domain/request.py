"""The queue's values: what a caller asks for, what is stored, and what comes next."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and after what delay, a failed request is tried again.

    Attributes:
        max_attempts: Failures after which a request is FAILED.
        base_delay_s: Delay after the first failure, in seconds; doubles with each.
        max_delay_s: Its upper bound, in seconds.
        jitter: Part of the delay that is random, from 0 to 1.
    """

    max_attempts: int = 5
    base_delay_s: float = 5.0
    max_delay_s: float = 300.0
    jitter: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class NextAttempt:
    """What becomes of a request that failed."""

    status: QueueStatus
    attempts: int
    available_at: datetime


def next_attempt(
    attempts: int, *, retryable: bool, now: datetime, policy: RetryPolicy, random: Random
) -> NextAttempt:
    """Decide whether a request that failed is tried again, and when.

    Args:
        attempts: Failures before this one.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 2, tzinfo=UTC)
    >>> policy = RetryPolicy(max_attempts=2, jitter=0)
    >>> next_attempt(1, retryable=True, now=now, policy=policy, random=Random(0)).status
    <QueueStatus.FAILED: 'FAILED'>
    """
    attempts += 1
    if not retryable or attempts >= policy.max_attempts:
        return NextAttempt(status=QueueStatus.FAILED, attempts=attempts, available_at=now)
    doubled = 2.0 ** min(attempts - 1, 64)
    delay_s = min(policy.base_delay_s * doubled, policy.max_delay_s)
    delay_s *= 1 + policy.jitter * (2 * random.random() - 1)
    return NextAttempt(
        status=QueueStatus.PENDING,
        attempts=attempts,
        available_at=now + timedelta(seconds=delay_s),
    )
