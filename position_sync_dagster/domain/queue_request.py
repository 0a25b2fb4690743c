"""A request to value a position: its row in the queue, its attempts, and when it is tried again."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

from position_sync_dagster.domain.retry import Backoff


class QueueStatus(StrEnum):
    """The state of a request; SUCCESS and FAILED are final."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


class Reason(StrEnum):
    """Why a position is in the queue.

    SNAPSHOT: the first download after a connection. CHANGED: the holding is new or has changed.
    REFRESH: the periodic refresh, or a person who materialized `position_queue`. OVERFLOW: an
    active leg has no market data line. MANUAL: a person or another program.
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

# The error of a request whose holding the broker's complete list does not have.
NOT_HELD = "No account of the login holds this conid."

# The length of a lease, unless a caller chooses another, in seconds.
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
        claimed_at: When its newest attempt began (UTC); null of a request that nobody claimed.
        earlier_attempts: JSON: the attempts before, at most 20, each as [worker, from, until,
            outcome, error]; null without any.
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
    claimed_at: datetime | None = None
    earlier_attempts: str | None = None


class Outcome(StrEnum):
    """How an attempt ended; PROCESSING: it has not.

    RELEASED: the worker gave the request back, as when the broker's answer did not cover it.
    EXPIRED: the worker's lease ran out before it ended the request.
    """

    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingAttempt:
    """One attempt of a worker to value a request.

    Attributes:
        number: Its place among the attempts of the request that are known, from 1.
        worker: The owner of the lease; None of a request that was ended without a claim.
        began_at: When it was claimed; None of a request that was ended without a claim.
        ended_at: None while it is processed.
    """

    request_id: str
    account: str | None
    conid: int
    symbol: str
    number: int
    worker: str | None
    began_at: datetime | None
    ended_at: datetime | None
    outcome: Outcome
    error: str | None


# How many attempts a request keeps besides its newest one: the last ones.
MOST_EARLIER = 20


def _moment(written: str | None) -> datetime | None:
    return None if written is None else datetime.fromisoformat(written)


def with_ended_attempt(
    earlier: str | None,
    worker: str | None,
    began_at: datetime | None,
    ended_at: datetime | None,
    error: str | None,
    outcome: str,
) -> str:
    """Return `earlier_attempts` of a request with one more: it ended, and the request goes on.

    >>> from datetime import UTC
    >>> at = datetime(2026, 1, 2, tzinfo=UTC)
    >>> with_ended_attempt(None, "worker", at, at, None, Outcome.EXPIRED)
    '[["worker", "2026-01-02T00:00:00+00:00", "2026-01-02T00:00:00+00:00", "EXPIRED", null]]'
    """
    attempts = [*json.loads(earlier or "[]"), (worker, began_at, ended_at, outcome, error)]
    return json.dumps(attempts[-MOST_EARLIER:], default=datetime.isoformat)


def attempts_of(request: QueuedPosition) -> list[ProcessingAttempt]:
    """Return the attempts of a request, the oldest first."""
    attempts = [
        (worker, _moment(began), _moment(ended), outcome, error)
        for worker, began, ended, outcome, error in json.loads(request.earlier_attempts or "[]")
    ]
    # The newest attempt is in the row itself. That of a PENDING request has ended: it is in
    # `earlier_attempts`.
    status = request.status
    if status is not QueueStatus.PENDING:
        ended_at = None if status is QueueStatus.PROCESSING else request.updated_at
        error = request.error_message if status is QueueStatus.FAILED else None
        attempts.append((request.lease_owner, request.claimed_at, ended_at, status, error))

    return [
        ProcessingAttempt(
            request_id=request.request_id,
            account=request.account,
            conid=request.conid,
            symbol=request.symbol,
            number=number,
            worker=worker,
            began_at=began_at,
            ended_at=ended_at,
            outcome=Outcome(outcome),
            error=error,
        )
        for number, (worker, began_at, ended_at, outcome, error) in enumerate(attempts, 1)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and after what delay, a failed request is tried again.

    Attributes:
        max_attempts: Failures after which a request is FAILED.
        base_delay_s: Delay after the first failure, in seconds; it doubles with each.
        max_delay_s: Its upper bound, in seconds.
        jitter: Part of the delay that is random, from 0 to 1.
    """

    max_attempts: int = 5
    base_delay_s: float = 5.0
    max_delay_s: float = 300.0
    jitter: float = 0.25

    @property
    def backoff(self) -> Backoff:
        """Return the delays between attempts."""
        return Backoff(
            first_s=self.base_delay_s,
            longest_s=self.max_delay_s,
            jitter=(1 - self.jitter, 1 + self.jitter),
        )


def next_attempt(
    failures: int, *, now: datetime, policy: RetryPolicy, random: Random
) -> datetime | None:
    """Return when a request that failed is tried again; None: it is FAILED for good.

    Args:
        failures: How often it has failed, this time included.
        now: The moment of the failure.
        policy: The number of attempts and their delays.
        random: Draws the jitter.

    >>> from datetime import UTC
    >>> at = datetime(2026, 1, 2, tzinfo=UTC)
    >>> policy = RetryPolicy(max_attempts=2, jitter=0)
    >>> next_attempt(1, now=at, policy=policy, random=Random(0)).isoformat()
    '2026-01-02T00:00:05+00:00'
    >>> next_attempt(2, now=at, policy=policy, random=Random(0))
    """
    if failures >= policy.max_attempts:
        return None
    return now + timedelta(seconds=policy.backoff.delay_s(failures, random))
