"""What becomes of a request: what a failure, a release or a dead worker costs it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from position_sync_dagster.domain.queue_request import (
    Outcome,
    QueuedPosition,
    QueueStatus,
    Reason,
    RetryPolicy,
    attempts_of,
)
from position_sync_dagster.lake.queue_transitions import (
    FAILED,
    SUCCESS,
    claimed,
    fail_requests,
    first_claimable,
    release_requests,
    rescue_requests,
    succeed_requests,
)
from position_sync_dagster.lake.schema import POSITION_QUEUE, frame_of, new_ids
from position_sync_dagster.lake.storage.lifecycle_table import Change

NOW = datetime(2026, 1, 2, 15, tzinfo=UTC)
POLICY = RetryPolicy(max_attempts=2, jitter=0)


def request(conid: int, **columns: object) -> QueuedPosition:
    """Return a PENDING request that was inserted now."""
    return replace(
        QueuedPosition(
            request_id=f"r-{conid}",
            conid=conid,
            symbol="SPY",
            priority=2,
            status=QueueStatus.PENDING,
            created_at=NOW,
            updated_at=NOW,
        ),
        **columns,
    )


def claim(conid: int, **columns: object) -> QueuedPosition:
    """Return a request that a worker claimed now."""
    return claimed(request(conid, **columns), NOW, "worker", "token", 45.0)


def failed(*requests: QueuedPosition, policy: RetryPolicy = POLICY) -> Change[None]:
    """Return what becomes of requests that fail."""
    errors = {request.request_id: "no value" for request in requests}
    return fail_requests(requests, NOW, errors, policy=policy, random=Random(1), new_ids=new_ids)


def test_a_failure_uses_up_an_attempt_and_the_last_one_is_final() -> None:
    [again] = failed(claim(1)).live
    assert again.status == "PENDING"
    assert again.attempts == 1
    assert again.error_message == "no value"
    assert again.available_at == NOW + timedelta(seconds=POLICY.base_delay_s)
    assert again.lease_token is None

    after = failed(claim(1, attempts=1))
    assert after.live == []
    [final] = after.finished[FAILED]
    assert final.status == "FAILED"
    assert final.attempts == 2
    assert final.lease_owner == "worker"


def test_a_request_with_one_attempt_fails_at_once() -> None:
    assert failed(claim(1), policy=RetryPolicy(max_attempts=1)).live == []


def test_what_changed_meanwhile_is_followed_by_a_new_request_unless_it_is_tried_again() -> None:
    changed = claim(1, changed_at=NOW)
    [again] = failed(changed).live
    assert again.request_id == changed.request_id

    for after in (
        failed(replace(changed, attempts=1)),
        succeed_requests([changed, claim(2)], NOW, {"r-1": {"update_id": "u-1"}}, new_ids),
    ):
        [follow_up] = after.live
        assert follow_up.conid == 1
        assert follow_up.reason == Reason.CHANGED
        assert follow_up.attempts == 0
        assert follow_up.request_id != changed.request_id
    assert [row.update_id for row in after.finished[SUCCESS]] == ["u-1", None]


def test_a_release_and_a_dead_worker_use_up_no_attempt() -> None:
    [released] = release_requests([claim(1, attempts=1)], NOW, "").live
    later = NOW + timedelta(minutes=1)
    expired = claim(2, attempts=1)
    live = frame_of(POSITION_QUEUE, [expired, request(3)])
    assert rescue_requests(live, NOW).result == []
    rescue = rescue_requests(live, later)
    [rescued] = rescue.live

    assert rescue.result == ["r-2"]
    assert [(row.status, row.attempts) for row in (released, rescued)] == [("PENDING", 1)] * 2
    [attempt] = attempts_of(released)
    assert attempt.outcome == Outcome.RELEASED
    assert attempt.ended_at == NOW
    assert attempt.error is None
    [attempt] = attempts_of(rescued)
    assert attempt.outcome == Outcome.EXPIRED
    assert attempt.ended_at == expired.lease_expires_at


def test_a_claim_gets_the_first_requests_of_other_accounts() -> None:
    rows = [request(1, account="A"), request(2), request(3, priority=1), claim(4), request(5)]
    live = frame_of(POSITION_QUEUE, rows)
    granted = first_claimable(live, NOW, 2, {"A"})
    assert [row.conid for row in granted] == [3, 2]
