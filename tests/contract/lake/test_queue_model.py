"""The queue against a plain model of it: any order of steps, time jumps and restarts."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from position_sync_dagster.domain.request import QueueRequest, QueueStatus, Reason
from position_sync_dagster.domain.retry import RetryPolicy
from position_sync_dagster.errors import (
    LakeError,
    LeaseLostError,
    RequestStateError,
    UnknownRequestError,
)
from position_sync_dagster.lake.queue.memory import InMemoryPositionQueue
from position_sync_dagster.lake.queue.operations import PROMOTE_AFTER_S, SyncQueue
from position_sync_dagster.lake.queue.table import PositionQueue
from position_sync_dagster.lake.storage import maintenance
from position_sync_dagster.lake.storage.maintenance import maintain

PENDING, PROCESSING = QueueStatus.PENDING, QueueStatus.PROCESSING
SUCCESS, FAILED = QueueStatus.SUCCESS, QueueStatus.FAILED
POLICY = RetryPolicy(max_attempts=3, base_delay_s=10.0, max_delay_s=15.0, jitter=0.0)
UNKNOWN = "01234567-89ab-7def-8123-456789abcdef"
ALL = 10_000
SKEW = timedelta(minutes=5)


@dataclass
class Request:
    """A request as a person would note it on a card."""

    request_id: str
    key: tuple[str | None, int]
    priority: int
    created_at: datetime
    updated_at: datetime
    status: QueueStatus = PENDING
    attempts: int = 0
    available_at: datetime | None = None
    lease: object = None
    expires_at: datetime | None = None

    def held(self, now: datetime) -> bool:
        return self.status is PROCESSING and self.expires_at > now

    def ahead(self, now: datetime) -> bool:
        """Its clock was wrong: nobody knows how long it waits."""
        return self.created_at > now + SKEW

    def lost(self, now: datetime) -> bool:
        """Its lease is over, or was taken by a clock that was far ahead."""
        return self.status is PROCESSING and (
            self.expires_at <= now or self.updated_at > now + SKEW
        )

    def ready(self, now: datetime) -> bool:
        waited = self.available_at is None or self.available_at <= now
        return self.status is PENDING and (waited or self.updated_at > now + SKEW)

    def back(self, now: datetime, available_at: datetime | None = None) -> None:
        self.status, self.available_at, self.updated_at = PENDING, available_at, now
        self.lease = self.expires_at = None


@dataclass
class Hand:
    """A queue object, and the leases that it remembers."""

    queue: SyncQueue
    leases: dict[str, object] = field(default_factory=dict)


ASKED = st.builds(
    QueueRequest,
    conid=st.integers(1, 5),
    symbol=st.just("SPY"),
    priority=st.integers(1, 2),
    account=st.sampled_from([None, "A"]),
    reason=st.sampled_from([Reason.REFRESH, Reason.CHANGED]),
)
HANDS = st.integers(0, 1)
PICKS = st.lists(st.integers(0, 9), min_size=1, max_size=3)


class QueueMachine(RuleBasedStateMachine):
    """Do each step to the queue and to the cards, and compare them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 2, 15, tzinfo=UTC)
        self.cards: dict[str, Request] = {}
        self.numbers = count(1)
        self.hands = [Hand(queue) for queue in self.make()]

    def new_ids(self, now: datetime, count: int) -> list[str]:
        """Draw ids in ascending order, the same in each run."""
        return [f"{next(self.numbers):08}-0000-7000-8000-000000000000" for _ in range(count)]

    def make(self) -> list[SyncQueue]:
        self.store = InMemoryPositionQueue().sync.store
        return [self.opened(), self.opened()]

    def opened(self) -> SyncQueue:
        return SyncQueue(
            self.store,
            retry=POLICY,
            clock=lambda: self.now,
            random=Random(1),
            new_ids=self.new_ids,
            promote_after_s=PROMOTE_AFTER_S,
        )

    @rule(number=HANDS)
    def restart(self, number: int) -> None:
        self.hands[number] = Hand(self.opened())

    @property
    def live(self) -> dict[str, Request]:
        return {i: c for i, c in self.cards.items() if c.status in (PENDING, PROCESSING)}

    def any(self, *states: QueueStatus) -> bool:
        return any(card.status in states for card in self.cards.values())

    def picked(self, picks: Iterable[int]) -> list[str]:
        """Choose ids: claimed ones first, then waiting and ended ones, and an unknown one."""
        order = [PROCESSING, FAILED, PENDING, SUCCESS]
        ids = sorted(self.cards, key=lambda i: (order.index(self.cards[i].status), i))
        return list(dict.fromkeys([*ids, UNKNOWN][pick % (len(ids) + 1)] for pick in picks))

    @initialize(number=HANDS, asked=st.lists(ASKED, min_size=2, max_size=5))
    def begin(self, number: int, asked: list[QueueRequest]) -> None:
        self.insert(number, asked)

    @rule(number=HANDS, asked=st.lists(ASKED, min_size=1, max_size=4))
    def insert(self, number: int, asked: list[QueueRequest]) -> None:
        ids = self.hands[number].queue.insert_many(asked)
        before = {card.key: card for card in self.live.values()}
        for request, request_id in zip(asked, ids, strict=True):
            key = (request.account, request.conid)
            card = before.get(key) or self.cards.get(request_id)
            if card is None:
                self.cards[request_id] = Request(
                    request_id, key, request.priority, self.now, self.now
                )
                continue
            assert request_id == card.request_id
            card.priority = min(card.priority, request.priority)
            if card.status is PROCESSING and request.reason is Reason.CHANGED:
                card.available_at = self.now

    @precondition(lambda self: self.any(PENDING))
    @rule(number=HANDS, limit=st.sampled_from([3, 2, 1, 0]), lease_s=st.sampled_from([5.0, 10.0]))
    def claim(self, number: int, limit: int, lease_s: float) -> None:
        hand = self.hands[number]
        old = self.now - timedelta(seconds=PROMOTE_AFTER_S)
        ready = sorted(
            (card for card in self.live.values() if card.ready(self.now)),
            key=lambda c: (
                1 if c.created_at <= old or c.ahead(self.now) else c.priority,
                datetime.min.replace(tzinfo=UTC) if c.ahead(self.now) else c.created_at,
                c.request_id,
            ),
        )[:limit]
        claimed = hand.queue.claim_batch(limit=limit, lease_s=lease_s)
        assert [r.request_id for r in claimed] == [card.request_id for card in ready]
        lease = object()
        for card in ready:
            card.status, card.lease, card.available_at = PROCESSING, lease, None
            card.expires_at = self.now + timedelta(seconds=lease_s)
            card.updated_at = self.now
            hand.leases[card.request_id] = lease

    def refusal(self, hand: Hand, ids: list[str], act: str) -> type[LakeError] | None:
        """Say why an act on requests is not allowed."""
        for card in (self.live[i] for i in ids if i in self.live):
            held = card.held(self.now)
            if card.request_id in hand.leases:
                if not held or card.lease is not hand.leases[card.request_id]:
                    return LeaseLostError
            elif held or (card.status is PROCESSING and act == "renew"):
                return LeaseLostError
            elif card.status is PENDING and act != "mark":
                return RequestStateError
        absent = [i for i in ids if i not in self.live]
        if any(i in hand.leases for i in absent):
            return LeaseLostError
        if any(i not in self.cards for i in absent):
            return UnknownRequestError
        return RequestStateError if absent else None

    def allowed(self, hand: Hand, ids: list[str], act: str, call) -> bool:
        """Do an act, and tell whether it was allowed, as the cards say it must be."""
        refusal = self.refusal(hand, ids, act)
        if refusal is None:
            call()
            return True
        with pytest.raises(refusal):
            call()
        return False

    @precondition(lambda self: self.any(PENDING, PROCESSING))
    @rule(number=HANDS, picks=PICKS)
    def mark_success(self, number: int, picks: list[int]) -> None:
        hand, ids = self.hands[number], self.picked(picks)
        if not self.allowed(hand, ids, "mark", lambda: hand.queue.mark_success(ids)):
            return
        for request_id in ids:
            card = self.cards[request_id]
            hand.leases.pop(request_id, None)
            if card.status is PROCESSING and card.available_at is not None:
                self.follow(card)
            card.status = SUCCESS

    def follow(self, card: Request) -> None:
        [new] = [
            r.request_id
            for r in self.hands[0].queue.get_batch(None, ALL)
            if (r.account, r.conid) == card.key
        ]
        assert new not in self.cards
        self.cards[new] = Request(new, card.key, card.priority, self.now, self.now)

    @precondition(lambda self: self.any(PENDING, PROCESSING))
    @rule(number=HANDS, picks=PICKS, retryable=st.booleans())
    def mark_failed(self, number: int, picks: list[int], retryable: bool) -> None:
        hand, ids = self.hands[number], self.picked(picks)
        errors = dict.fromkeys(ids, "no answer")
        if not self.allowed(
            hand, ids, "mark", lambda: hand.queue.mark_failed_many(errors, retryable=retryable)
        ):
            return
        for request_id in ids:
            card = self.cards[request_id]
            hand.leases.pop(request_id, None)
            asked_again = card.status is PROCESSING and card.available_at is not None
            card.attempts += 1
            delay = timedelta(seconds=(10, 15, 15)[min(card.attempts, 3) - 1])
            card.back(self.now, self.now + delay)
            if not retryable or card.attempts >= POLICY.max_attempts:
                card.status = FAILED
                if asked_again:
                    self.follow(card)

    @precondition(lambda self: self.any(PROCESSING))
    @rule(number=HANDS, picks=PICKS)
    def release(self, number: int, picks: list[int]) -> None:
        hand, ids = self.hands[number], self.picked(picks)
        if self.allowed(hand, ids, "release", lambda: hand.queue.release(ids)):
            for request_id in ids:
                self.cards[request_id].back(self.now)
                hand.leases.pop(request_id, None)

    @precondition(lambda self: self.any(PROCESSING))
    @rule(number=HANDS, picks=PICKS)
    def renew(self, number: int, picks: list[int]) -> None:
        hand, ids = self.hands[number], self.picked(picks)
        if self.allowed(hand, ids, "renew", lambda: hand.queue.renew(ids, lease_s=30)):
            for request_id in ids:
                self.cards[request_id].expires_at = self.now + timedelta(seconds=30)
                self.cards[request_id].updated_at = self.now

    @precondition(lambda self: self.any(PROCESSING))
    @rule(number=HANDS, wait=st.booleans())
    def rescue(self, number: int, wait: bool) -> None:
        if wait:  # to the very moment at which the last lease is over
            ends = [c.expires_at for c in self.live.values() if c.expires_at is not None]
            self.now = max([self.now, *ends])
        over = [c for c in self.live.values() if c.lost(self.now)]
        assert self.hands[number].queue.rescue() == sorted(c.request_id for c in over)
        for card in over:
            card.back(self.now)

    @precondition(lambda self: self.any(FAILED))
    @rule(number=HANDS, picks=PICKS)
    def retry(self, number: int, picks: list[int]) -> None:
        hand, picked = self.hands[number], self.picked(picks)
        failed = [i for i in picked if i in self.cards and self.cards[i].status is FAILED]
        ids = failed or picked  # several to retry are rarely picked by chance
        if any(i not in self.cards for i in ids):
            refusal: type[LakeError] = UnknownRequestError
        else:
            refusal = RequestStateError
        if any(i not in self.cards or self.cards[i].status is not FAILED for i in ids):
            with pytest.raises(refusal):
                hand.queue.retry(ids)
            return
        told = hand.queue.retry(ids)
        taken = {card.key: card.request_id for card in self.live.values()}
        for request_id, stands in zip(ids, told, strict=True):
            card = self.cards[request_id]
            assert stands == taken.setdefault(card.key, request_id)
            if stands == request_id:
                card.attempts = 0
                card.back(self.now)

    @rule(seconds=st.sampled_from([0.001, 5.0, 5.0, 10.0, 60.0, 3600.0, -5.0, -3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def the_cards_and_the_queue_are_the_same(self) -> None:
        queue = self.hands[0].queue
        for status in (PENDING, PROCESSING):
            stored = {r.request_id: r for r in queue.get_batch(None, ALL, status)}
            cards = {i: c for i, c in self.cards.items() if c.status is status}
            assert set(stored) == set(cards)
            for request_id, card in cards.items():
                found = stored[request_id]
                assert (found.account, found.conid) == card.key
                assert found.priority == card.priority
                assert found.attempts == card.attempts
                assert found.created_at == card.created_at
                assert found.available_at == card.available_at
                assert found.lease_expires_at == card.expires_at
        keys = [card.key for card in self.live.values()]
        assert len(keys) == len(set(keys)), "two live requests for one position"
        told = queue.counts()
        for status in QueueStatus:
            assert told[status] == sum(c.status is status for c in self.cards.values())
        for hand in self.hands:
            held = [i for i, c in self.live.items() if c.held(self.now)]
            ours = [i for i in held if hand.leases.get(i) is self.live[i].lease]
            assert hand.queue.holds(ours)
            assert all(not hand.queue.holds([i]) for i in held if i not in ours)


class DeltaQueueMachine(QueueMachine):
    """The same over a Delta table: two objects at once, restarts, maintenance."""

    def make(self) -> list[SyncQueue]:
        self.folder = TemporaryDirectory(prefix="queue-model-")
        return [self.opened(), self.opened()]

    def opened(self) -> SyncQueue:
        path = Path(self.folder.name) / "q"
        return PositionQueue(
            path, retry=POLICY, clock=lambda: self.now, new_ids=self.new_ids, fsync=False
        ).sync

    @rule(clean_now=st.booleans())
    def keep_house(self, clean_now: bool) -> None:
        maintain(self.hands[1].queue.store.table, clean_now=clean_now)

    def teardown(self) -> None:
        self.folder.cleanup()


PROFILE = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a failure is short enough to read, and shrinking takes minutes
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _merge_early(monkeypatch):
    monkeypatch.setattr(maintenance, "COMPACT_FROM", 3)


class TestInMemory(QueueMachine.TestCase):
    settings = settings(PROFILE, max_examples=45, stateful_step_count=50)


class TestDelta(DeltaQueueMachine.TestCase):
    settings = settings(PROFILE, max_examples=8, stateful_step_count=40)
