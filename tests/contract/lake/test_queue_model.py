"""The queue against a plain model of it: any steps of two objects, time jumps, maintenance."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.queue_request import (
    QueueRequest,
    QueueStatus,
    Reason,
    RetryPolicy,
)
from position_sync_dagster.lake.position_queue import PositionQueue, SyncQueue
from position_sync_dagster.lake.queue_transitions import PROMOTE_AFTER_S
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.opening import Upkeep
from tests.support.extent import EVERYTHING

PENDING = QueueStatus.PENDING
PROCESSING = QueueStatus.PROCESSING
SUCCESS = QueueStatus.SUCCESS
FAILED = QueueStatus.FAILED
POLICY = RetryPolicy(max_attempts=3, base_delay_s=10.0, max_delay_s=15.0, jitter=0.0)
UNKNOWN = "01234567-89ab-7def-8123-456789abcdef"
ALL = 10_000


@dataclass
class Expected:
    """The state that a request is expected to have."""

    request_id: str
    key: tuple[str | None, int]
    priority: int
    created_at: datetime
    updated_at: datetime
    status: QueueStatus = PENDING
    attempts: int = 0
    available_at: datetime | None = None
    changed_at: datetime | None = None
    lease: object = None
    claimed_at: datetime | None = None
    expires_at: datetime | None = None

    def held(self, now: datetime) -> bool:
        return self.status is PROCESSING and self.expires_at > now

    def lost(self, now: datetime) -> bool:
        """Its lease has expired, or a clock that was ahead began it."""
        over = self.status is PROCESSING and self.expires_at <= now
        return over or (self.status is PROCESSING and self.claimed_at > now + SKEW)

    def ready(self, now: datetime) -> bool:
        waited = self.available_at is None or self.available_at <= now
        return self.status is PENDING and (waited or self.updated_at > now + SKEW)

    def claim_order(self, now: datetime) -> tuple[int, datetime, str]:
        """Return its sort key: how long one of a clock ahead has waited is not known."""
        long_ago = now - timedelta(seconds=PROMOTE_AFTER_S)
        since = long_ago if self.created_at > now + SKEW else self.created_at
        return 1 if since <= long_ago else self.priority, since, self.request_id

    def back(self, now: datetime, available_at: datetime | None = None) -> None:
        self.status = PENDING
        self.available_at = available_at
        self.updated_at = now
        self.changed_at = None
        self.lease = self.expires_at = None


@dataclass
class Client:
    """A queue object, and the leases that it is expected to remember."""

    queue: SyncQueue
    leases: dict[str, object] = field(default_factory=dict)


REQUESTS = st.builds(
    QueueRequest,
    conid=st.integers(1, 5),
    symbol=st.just("SPY"),
    priority=st.integers(1, 2),
    account=st.sampled_from([None, "A"]),
    reason=st.sampled_from([Reason.REFRESH, Reason.CHANGED, Reason.OVERFLOW]),
)
NUMBERS = st.integers(0, 1)
PICKS = st.lists(st.integers(0, 9), min_size=1, max_size=3)


class QueueMachine(RuleBasedStateMachine):
    """Applies each step to the queue and to the expected requests, and compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 2, 15, tzinfo=UTC)
        self.requests: dict[str, Expected] = {}
        self.numbers = count(1)
        self.folder = TemporaryDirectory(prefix="queue-model-")
        self.clients = [Client(self.opened()), Client(self.opened())]

    def new_ids(self, now: datetime, count: int) -> list[str]:
        """Draw ids in ascending order, the same in each run."""
        return [f"{next(self.numbers):08}-0000-7000-8000-000000000000" for _ in range(count)]

    def opened(self) -> SyncQueue:
        path = Path(self.folder.name) / "q"
        return PositionQueue(
            path,
            retry=POLICY,
            clock=lambda: self.now,
            new_ids=self.new_ids,
            fsync=False,
            upkeep=Upkeep(compact_from=3),
        ).sync

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(clean_now=st.booleans())
    def maintain_table(self, clean_now: bool) -> None:
        maintain(self.clients[1].queue.store.table, clean_now=clean_now)

    @rule(number=NUMBERS)
    def restart(self, number: int) -> None:
        self.clients[number] = Client(self.opened())

    @property
    def live(self) -> dict[str, Expected]:
        return {i: c for i, c in self.requests.items() if c.status in (PENDING, PROCESSING)}

    def any(self, *states: QueueStatus) -> bool:
        return any(expected.status in states for expected in self.requests.values())

    def picked(self, picks: Iterable[int]) -> list[str]:
        """Choose ids: claimed ones first, then pending and finished ones, and an unknown one."""
        order = [PROCESSING, FAILED, PENDING, SUCCESS]
        ids = sorted(self.requests, key=lambda i: (order.index(self.requests[i].status), i))
        return list(dict.fromkeys([*ids, UNKNOWN][pick % (len(ids) + 1)] for pick in picks))

    @initialize(number=NUMBERS, inserted=st.lists(REQUESTS, min_size=2, max_size=5))
    def begin(self, number: int, inserted: list[QueueRequest]) -> None:
        self.insert(number, inserted)

    @rule(number=NUMBERS, inserted=st.lists(REQUESTS, min_size=1, max_size=4))
    def insert(self, number: int, inserted: list[QueueRequest]) -> None:
        ids = self.clients[number].queue.insert_many(inserted)
        before = {expected.key: expected for expected in self.live.values()}
        for request, request_id in zip(inserted, ids, strict=True):
            key = (request.account, request.conid)
            expected = before.get(key) or self.requests.get(request_id)
            if expected is None:
                self.requests[request_id] = Expected(
                    request_id, key, request.priority, self.now, self.now
                )
                continue
            assert request_id == expected.request_id
            expected.priority = min(expected.priority, request.priority)
            if expected.status is PROCESSING and request.reason is not Reason.REFRESH:
                expected.changed_at = self.now

    @precondition(lambda self: self.any(PENDING))
    @rule(number=NUMBERS, limit=st.sampled_from([3, 2, 1, 0]), lease_s=st.sampled_from([5.0, 10.0]))
    def claim(self, number: int, limit: int, lease_s: float) -> None:
        client = self.clients[number]
        ready = sorted(
            (expected for expected in self.live.values() if expected.ready(self.now)),
            key=lambda expected: expected.claim_order(self.now),
        )[:limit]
        claimed = client.queue.claim_batch(limit=limit, lease_s=lease_s)
        assert [r.request_id for r in claimed] == [expected.request_id for expected in ready]
        lease = object()
        for expected in ready:
            expected.status = PROCESSING
            expected.lease = lease
            expected.available_at = None
            expected.claimed_at = self.now
            expected.expires_at = self.now + timedelta(seconds=lease_s)
            expected.updated_at = self.now
            client.leases[expected.request_id] = lease

    def refusal(self, client: Client, ids: list[str], action: str) -> type[errors.LakeError] | None:
        """Return the error of an action on requests that is not allowed."""
        for expected in (self.live[i] for i in ids if i in self.live):
            held = expected.held(self.now)
            if expected.request_id in client.leases:
                if not held or expected.lease is not client.leases[expected.request_id]:
                    return errors.LeaseLostError
            elif held:
                return errors.LeaseLostError
            elif expected.status is PENDING and action != "mark":
                return errors.RequestStateError

        absent = [i for i in ids if i not in self.live]
        if any(i in client.leases for i in absent):
            return errors.LeaseLostError
        if any(i not in self.requests for i in absent):
            return errors.UnknownRequestError
        return errors.RequestStateError if absent else None

    def allowed(self, client: Client, ids: list[str], action: str, call) -> bool:
        """Do an action, check that it is refused as expected, and return whether it was allowed."""
        refusal = self.refusal(client, ids, action)
        if refusal is None:
            call()
            return True
        with pytest.raises(refusal):
            call()
        return False

    @precondition(lambda self: self.any(PENDING, PROCESSING))
    @rule(number=NUMBERS, picks=PICKS)
    def mark_success(self, number: int, picks: list[int]) -> None:
        client = self.clients[number]
        ids = self.picked(picks)
        if not self.allowed(client, ids, "mark", lambda: client.queue.mark_success(ids)):
            return
        for request_id in ids:
            expected = self.requests[request_id]
            client.leases.pop(request_id, None)
            if expected.changed_at is not None:
                self.follow(expected)
            expected.status = SUCCESS

    def follow(self, expected: Expected) -> None:
        [new] = [
            r.request_id
            for r in self.clients[0].queue.get_batch(None, ALL)
            if (r.account, r.conid) == expected.key
        ]
        assert new not in self.requests
        self.requests[new] = Expected(new, expected.key, expected.priority, self.now, self.now)

    @precondition(lambda self: self.any(PENDING, PROCESSING))
    @rule(number=NUMBERS, picks=PICKS, retryable=st.booleans())
    def mark_failed(self, number: int, picks: list[int], retryable: bool) -> None:
        client = self.clients[number]
        ids = self.picked(picks)
        causes = dict.fromkeys(ids, "no answer")
        if not self.allowed(
            client, ids, "mark", lambda: client.queue.mark_failed_many(causes, retryable=retryable)
        ):
            return

        for request_id in ids:
            expected = self.requests[request_id]
            client.leases.pop(request_id, None)
            changed = expected.changed_at is not None
            expected.attempts += 1
            delay = timedelta(seconds=(10, 15, 15)[min(expected.attempts, 3) - 1])
            expected.back(self.now, self.now + delay)
            if not retryable or expected.attempts >= POLICY.max_attempts:
                expected.status = FAILED
                if changed:
                    self.follow(expected)

    @precondition(lambda self: self.any(PROCESSING))
    @rule(number=NUMBERS, picks=PICKS)
    def release(self, number: int, picks: list[int]) -> None:
        client = self.clients[number]
        ids = self.picked(picks)
        if self.allowed(client, ids, "release", lambda: client.queue.release(ids)):
            for request_id in ids:
                self.requests[request_id].back(self.now)
                client.leases.pop(request_id, None)

    @precondition(lambda self: self.any(PROCESSING))
    @rule(number=NUMBERS, wait=st.booleans())
    def rescue(self, number: int, wait: bool) -> None:
        if wait:  # until the moment at which the last lease expires
            ends = [c.expires_at for c in self.live.values() if c.expires_at is not None]
            self.now = max([self.now, *ends])
        expired = [c for c in self.live.values() if c.lost(self.now)]
        assert self.clients[number].queue.rescue() == sorted(c.request_id for c in expired)
        for expected in expired:
            expected.back(self.now)

    @precondition(lambda self: self.any(FAILED))
    @rule(number=NUMBERS, picks=PICKS)
    def retry(self, number: int, picks: list[int]) -> None:
        client = self.clients[number]
        picked = self.picked(picks)
        failed = [i for i in picked if i in self.requests and self.requests[i].status is FAILED]
        ids = failed or picked  # several to retry are rarely picked by chance
        if any(i not in self.requests for i in ids):
            refusal: type[errors.LakeError] = errors.UnknownRequestError
        else:
            refusal = errors.RequestStateError
        if any(i not in self.requests or self.requests[i].status is not FAILED for i in ids):
            with pytest.raises(refusal):
                client.queue.retry(ids)
            return

        retried = client.queue.retry(ids)
        live_ids = {expected.key: expected.request_id for expected in self.live.values()}
        for request_id, live_id in zip(ids, retried, strict=True):
            expected = self.requests[request_id]
            assert live_id == live_ids.setdefault(expected.key, request_id)
            if live_id == request_id:
                expected.attempts = 0
                expected.back(self.now)

    @rule(seconds=st.sampled_from([0.001, 5.0, 5.0, 10.0, 60.0, 3600.0, -5.0, -3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def the_queue_is_as_expected(self) -> None:
        queue = self.clients[0].queue
        for status in (PENDING, PROCESSING):
            stored = {r.request_id: r for r in queue.get_batch(None, ALL, status)}
            requests = {i: c for i, c in self.requests.items() if c.status is status}
            assert set(stored) == set(requests)

            for request_id, expected in requests.items():
                found = stored[request_id]
                assert (found.account, found.conid) == expected.key
                assert found.lease_expires_at == expected.expires_at
                for name in ("priority", "attempts", "created_at", "available_at", "changed_at"):
                    assert getattr(found, name) == getattr(expected, name), name
        keys = [expected.key for expected in self.live.values()]
        assert len(keys) == len(set(keys)), "two live requests for one position"

        found = queue.counts()
        for status in QueueStatus:
            assert found[status] == sum(c.status is status for c in self.requests.values())
        for client in self.clients:
            held = [i for i, c in self.live.items() if c.held(self.now)]
            ours = [i for i in held if client.leases.get(i) is self.live[i].lease]
            assert client.queue.holds(ours)
            assert all(not client.queue.holds([i]) for i in held if i not in ours)


PROFILE = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a failure is short enough to read, and shrinking takes minutes
    suppress_health_check=list(HealthCheck),
)


class TestQueue(QueueMachine.TestCase):  # type: ignore[valid-type]
    settings = settings(PROFILE, max_examples=38 if EVERYTHING else 5, stateful_step_count=45)
