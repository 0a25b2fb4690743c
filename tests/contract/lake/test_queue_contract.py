"""The contract of every queue of positions, wherever it keeps its rows."""

from collections.abc import Iterable
from datetime import timedelta

import pytest

from position_sync_dagster import errors
from position_sync_dagster.domain import queue_request
from position_sync_dagster.domain.queue_request import (
    Answer,
    QueuedPosition,
    QueueRequest,
    QueueStatus,
    Reason,
)
from position_sync_dagster.lake.position_queue import PositionQueue

P1 = 1
P2 = 2
PENDING = QueueStatus.PENDING
PROCESSING = QueueStatus.PROCESSING
SUCCESS = QueueStatus.SUCCESS
FAILED = QueueStatus.FAILED

NASTY = [
    'it\'s "quoted" `x`',
    "'; DROP TABLE position_queue; --",
    "line\nbreak\ttab\r\n",
    "nul\0inside",
    "€ 漢字 🙂 \U0010ffff ﷽",
    "\\' OR 1=1 --",
    "%41%00?*[x]{y}",
    "",
    "x" * 1_000_000,
    "".join(chr(plane << 16 | 0x41) for plane in range(17)),
    "".join(chr((plane << 16) + 0xFFFD) for plane in range(17)),
]


def ids_of(requests: Iterable[QueuedPosition]) -> list[str]:
    return [request.request_id for request in requests]


async def counts_of(queue: PositionQueue) -> tuple[int, int, int, int]:
    counts = await queue.counts()
    return (counts[PENDING], counts[PROCESSING], counts[SUCCESS], counts[FAILED])


@pytest.mark.in_store
async def test_an_inserted_request_is_read_as_it_was_inserted(queue, clock):
    request_id = await queue.insert(700001, "SPY", priority=P1, account="DUSIM1")
    [stored] = await queue.get_batch(priority=P1)
    assert stored == QueuedPosition(
        request_id=request_id,
        conid=700001,
        symbol="SPY",
        priority=P1,
        status=PENDING,
        created_at=clock.now,
        updated_at=clock.now,
        account="DUSIM1",
        reason=Reason.MANUAL,
    )


async def test_a_second_insert_returns_the_first_id_and_raises_its_priority(queue):
    first = await queue.insert(1, "SPY", priority=P2)
    assert await queue.insert(1, "SPY", priority=P1) == first
    assert await queue.insert(1, "SPY", priority=P2) == first
    [stored] = await queue.get_batch(priority=None)
    assert stored.priority == P1


@pytest.mark.in_store
async def test_claims_come_by_priority_then_by_age_then_in_order_of_insertion(queue, clock):
    await queue.insert_many([QueueRequest(c, "SPY", P2) for c in (1, 2)])
    clock.advance(1)
    await queue.insert_many([QueueRequest(c, "SPY", P1) for c in (3, 4)])
    clock.advance(1)
    await queue.insert(5, "SPY", priority=P2)
    assert [r.conid for r in await queue.claim_batch(limit=3)] == [3, 4, 1]
    assert [r.conid for r in await queue.claim_batch(limit=3)] == [2, 5]
    assert await queue.claim_batch() == []


async def test_requests_of_some_accounts_can_be_left_where_they_are(queue):
    await queue.insert_many(
        [QueueRequest(c, "SPY", P2, account) for c, account in enumerate(("A", "B", None), 1)]
    )
    assert (await queue.overview(["B"])).claimable == 2
    assert [r.conid for r in await queue.claim_batch(except_accounts={"B", "C"})] == [1, 3]
    assert await counts_of(queue) == (1, 2, 0, 0)
    assert await queue.claim_batch(except_accounts=["B"]) == []
    assert [r.conid for r in await queue.claim_batch()] == [2]


@pytest.mark.in_store
async def test_a_claimed_request_is_granted_again_only_after_its_rescue(queue, clock):
    request_id = await queue.insert(1, "SPY")
    await queue.claim_batch(lease_s=30)
    assert await queue.claim_batch() == []
    assert await queue.rescue() == []
    clock.advance(30)
    assert await queue.claim_batch() == []
    assert await queue.rescue() == [request_id]
    [again] = await queue.claim_batch()
    assert again.request_id == request_id
    assert again.attempts == 0


async def test_each_attempt_has_its_worker_begin_end_outcome_and_error(queue, clock):
    """A request that fails, is given back, loses its lease, fails for good, and is tried again."""
    began = []

    async def claim(worker):
        clock.advance(20)
        began.append(clock.now)
        [request] = await queue.claim_batch(owner=worker, lease_s=5)
        clock.advance(1)
        return request.request_id

    request_id = await queue.insert(1, "SPY", account="A")
    assert await queue.attempts() == []
    await queue.mark_failed(await claim("one"), "no price")
    await queue.release(await claim("two"), "not covered")
    await claim("three")
    clock.advance(20)
    await queue.rescue()
    await queue.mark_failed(await claim("four"), "not held", retryable=False)
    await queue.retry(request_id)
    await claim("five")

    running, *ended = await queue.attempts()
    assert running.worker == "five"
    assert running.outcome == "PROCESSING"
    assert running.ended_at is None
    assert running.request_id == request_id
    assert running.account == "A"
    assert running.conid == 1
    found = [(a.number, a.worker, a.outcome, a.error) for a in ended]
    assert found == [
        (4, "four", "FAILED", "not held"),
        (3, "three", "EXPIRED", None),
        (2, "two", "RELEASED", "not covered"),
        (1, "one", "FAILED", "no price"),
    ]
    assert [a.began_at for a in (*reversed(ended), running)] == began
    lasted_s = [(a.ended_at - a.began_at).total_seconds() for a in ended]
    assert lasted_s == [1, 5, 1, 1]

    await queue.mark_success(request_id)
    newest, *_ = await queue.attempts(limit=1)
    assert newest.number == 5
    assert newest.outcome == "SUCCESS"
    assert newest.error is None
    assert newest.ended_at == clock.now
    assert len(await queue.attempts(request_id=request_id[:13])) == 5


async def test_a_request_keeps_its_last_attempts_and_a_follow_up_begins_without_any(
    queue, clock, monkeypatch
):
    monkeypatch.setattr(queue_request, "MOST_EARLIER", 3)
    await queue.insert(1, "SPY")
    for worker in "abcde":
        clock.advance(1)
        [request] = await queue.claim_batch(owner=worker)
        await queue.release(request.request_id, "not covered")
    assert [attempt.worker for attempt in await queue.attempts()] == ["e", "d", "c"]
    [request] = await queue.claim_batch()
    await queue.insert_many([QueueRequest(1, "SPY", P2, reason=Reason.CHANGED)])
    await queue.mark_success(request.request_id)
    [follow_up] = await queue.get_batch()
    assert await queue.attempts(request_id=follow_up.request_id) == []


@pytest.mark.in_store
async def test_success_ends_a_request_once(queue):
    await queue.insert_many([QueueRequest(c, "SPY") for c in (1, 2, 3)])
    claimed = ids_of(await queue.claim_batch(limit=2))
    await queue.mark_success(claimed)
    assert await counts_of(queue) == (1, 0, 2, 0)
    with pytest.raises(errors.RequestStateError):
        await queue.mark_success(claimed)
    with pytest.raises(errors.RequestStateError):
        await queue.mark_failed(claimed[0], "late")
    assert await counts_of(queue) == (1, 0, 2, 0)


async def test_requests_that_the_caller_valued_end_as_processed_only_if_it_claimed_them(queue):
    first, second = await queue.insert_many([QueueRequest(c, "SPY") for c in (1, 2)])
    [claimed] = await queue.claim_batch(limit=1)
    with pytest.raises(errors.RequestStateError, match=f"{second} is PENDING"):
        await queue.mark_processed([first, second])
    assert await counts_of(queue) == (1, 1, 0, 0)
    with pytest.raises(errors.LeaseLostError, match=first):
        await queue.mark_processed(first, lease_token=first)
    await queue.mark_processed(first, lease_token=claimed.lease_token)
    with pytest.raises(errors.RequestStateError):
        await queue.mark_processed(first, lease_token=None)
    assert await counts_of(queue) == (1, 0, 1, 0)


async def test_nothing_is_marked_under_an_expired_lease(queue, clock):
    await queue.insert(1, "SPY")
    [claimed] = await queue.claim_batch(lease_s=30)
    clock.advance(30)
    before = await queue.get_batch(priority=None, status=PROCESSING)
    for step in (queue.mark_success, queue.mark_processed, queue.mark_failed, queue.release):
        why = ["x"] if step == queue.mark_failed else []
        with pytest.raises(errors.LeaseLostError, match=claimed.request_id):
            await step(claimed.request_id, *why)
    assert await queue.get_batch(priority=None, status=PROCESSING) == before


@pytest.mark.in_store
async def test_a_failure_comes_back_after_a_growing_delay_and_is_final_at_the_limit(queue, clock):
    request_id = await queue.insert(1, "SPY")
    for delay_s in (10, 15):  # doubling from 10, bounded at 15
        [claimed] = await queue.claim_batch()
        await queue.mark_failed(claimed.request_id, "no answer")
        clock.advance(delay_s - 1)
        assert await queue.claim_batch() == []
        clock.advance(1)
    [third] = await queue.claim_batch()
    assert third.attempts == 2
    assert third.error_message == "no answer"

    await queue.mark_failed(request_id, "still no answer")
    [failed] = await queue.get_batch(priority=None, status=FAILED)
    assert failed.attempts == 3
    assert failed.error_message == "still no answer"
    assert failed.lease_owner == third.lease_owner


@pytest.mark.in_store
async def test_a_person_can_retry_failed_requests_with_all_their_attempts(queue):
    ids = await queue.insert_many([QueueRequest(c, "SPY") for c in (1, 2, 3, 4)])
    await queue.claim_batch()
    queue.sync.mark_failed_many(dict.fromkeys(ids[:2], "x"), retryable=False)
    for request_id in ids[2:]:  # in parts of their own
        await queue.mark_failed(request_id, "x", retryable=False)
    wanted = [ids[0], ids[3]]
    assert await queue.retry(wanted) == wanted

    again = await queue.claim_batch()
    assert ids_of(again) == wanted
    assert [(request.attempts, request.error_message) for request in again] == [(0, "x")] * 2
    assert await counts_of(queue) == (0, 2, 0, 2)
    failed = await queue.get_batch(priority=None, status=FAILED)
    assert set(ids_of(failed)) == set(ids[1:3])


async def test_unknown_requests_are_named(queue):
    long_id = "01234567-89ab-7def-8123-456789abcdef"
    for unknown in (long_id, "nope", "' OR '1'='1", "x" * 999, "half \ud800", 7):
        with pytest.raises(errors.UnknownRequestError):
            await queue.mark_success([unknown])
        with pytest.raises(errors.UnknownRequestError):
            await queue.mark_failed(unknown, "no quote")
        with pytest.raises(errors.UnknownRequestError):
            await queue.retry([unknown])
        assert not queue.sync.holds([unknown])


async def test_any_text_is_stored_exactly_as_it_was_given(queue):
    requests = [QueueRequest(1, text or "SPY", account=text) for text in NASTY]
    ids = await queue.insert_many(requests)
    assert await queue.insert_many(requests) == ids
    for request_id, text in zip(ids, NASTY, strict=True):
        [claimed] = await queue.claim_batch(limit=1, owner=text or "somebody")
        assert claimed.request_id == request_id
        assert claimed.lease_owner == (text or "somebody")

    queue.sync.mark_failed_many(dict(zip(ids, NASTY, strict=True)), retryable=False)
    failed = await queue.get_batch(priority=None, status=FAILED)
    await queue.retry(ids)
    again = await queue.get_batch(priority=None)
    for read in (failed, again):
        texts = {r.request_id: (r.symbol, r.account, r.error_message) for r in read}
        assert [texts[i] for i in ids] == [(text or "SPY", text, text) for text in NASTY]


async def test_half_a_surrogate_pair_is_refused_in_a_symbol_and_spelled_out_in_an_error(queue):
    with pytest.raises(errors.InvalidRequestError, match="surrogate"):
        await queue.insert(1, "SPY\ud800")
    request_id = await queue.insert(1, "SPY")
    await queue.mark_failed(request_id, "bytes \udcff", retryable=False)
    [failed] = await queue.get_batch(priority=None, status=FAILED)
    assert failed.error_message == "bytes \\udcff"


@pytest.mark.parametrize("reason", [Reason.CHANGED, Reason.OVERFLOW])
async def test_a_change_during_processing_is_followed_by_a_new_request(queue, clock, reason):
    first = await queue.insert(1, "SPY", account="A", reason=reason)
    await queue.claim_batch()
    clock.advance(1)
    assert await queue.insert(1, "SPY", account="A", reason=reason) == first
    clock.advance(1)
    await queue.mark_success([first])
    [follower] = await queue.get_batch(priority=None)
    assert follower.request_id != first
    assert follower.conid == 1
    assert follower.account == "A"
    assert follower.status == PENDING
    assert follower.reason == Reason.CHANGED
    assert follower.created_at == clock.now
    assert await counts_of(queue) == (1, 0, 1, 0)


@pytest.mark.in_store
async def test_the_overview_counts_what_waits_and_since_when(queue, clock):
    began = clock.now
    await queue.insert_many([QueueRequest(c, "SPY", P2) for c in (1, 2)])
    clock.advance(5)
    await queue.insert(3, "SPY", priority=P1)
    overview = await queue.overview()
    assert overview.oldest_pending_at == began
    assert overview.claimable == 3

    ids = ids_of(await queue.claim_batch(limit=3, lease_s=30))
    await queue.mark_failed(ids[0], "x")
    overview = await queue.overview()
    assert overview.claimable == 0
    assert overview.expired == 0
    assert overview.counts == {PENDING: 1, PROCESSING: 2, SUCCESS: 0, FAILED: 0}
    clock.advance(30)
    overview = await queue.overview()
    assert overview.claimable == 1
    assert overview.expired == 2


async def test_workers_that_share_a_queue_object_are_distinguished_by_their_tokens(queue, clock):
    ids = await queue.insert_many([QueueRequest(c, "SPY") for c in (1, 2)])
    first = await queue.claim_batch(lease_s=30)
    clock.advance(31)
    await queue.rescue()
    second = await queue.claim_batch(lease_s=30)
    late = first[0].lease_token
    ours = second[0].lease_token
    assert not queue.sync.holds(ids, lease_token=late)

    for step in (queue.mark_success, queue.mark_processed, queue.release):
        with pytest.raises(errors.LeaseLostError):
            await step(ids, lease_token=late)
    assert queue.sync.holds(ids, lease_token=ours)
    await queue.mark_success(ids, lease_token=ours)
    with pytest.raises(errors.LeaseLostError):
        await queue.mark_success(ids, lease_token=late)


WRONG = {
    "conid": [0, -1, 2**63, 10**5000, 1.5, "1", True, None],
    "symbol": ["", "  ", None, 5],
    "priority": [0, 3, -1, 2**63, 1.0, "1", True, None],
    "reason": ["MANUAL", None],
}


async def test_an_argument_of_a_wrong_type_is_named_and_changes_nothing(queue):
    request_id = await queue.insert(1, "SPY")
    for name, values in WRONG.items():
        for value in values:  # type: ignore[attr-defined]
            wrong = QueueRequest(**({"conid": 2, "symbol": "SPY"} | {name: value}))
            with pytest.raises(errors.InvalidRequestError, match=name):
                await queue.insert_many([QueueRequest(3, "SPY"), wrong])
    for limit in (-1, 2**63, 1.5, "5", True, None):
        with pytest.raises(errors.InvalidRequestError, match="limit"):
            await queue.claim_batch(limit=limit)

    for lease_s in (0, -5, float("nan"), float("inf"), "5", True):
        with pytest.raises(errors.InvalidRequestError, match="lease"):
            await queue.claim_batch(lease_s=lease_s)
    refused = {
        "priority": lambda: queue.get_batch(priority="x"),
        "limit": lambda: queue.get_batch(limit=-1),
    }
    for name, step in refused.items():
        with pytest.raises(errors.InvalidRequestError, match=name):
            await step()
    assert await counts_of(queue) == (1, 0, 0, 0)

    [claimed] = await queue.claim_batch(owner="\udcff")
    assert claimed.request_id == request_id
    assert claimed.lease_owner == "\\udcff"


@pytest.mark.in_store
async def test_a_table_that_was_not_initialized_is_created_at_its_first_use(make_queue):
    assert await counts_of(make_queue()) == (0, 0, 0, 0)


@pytest.mark.in_store
async def test_a_request_keeps_the_row_that_answers_it_and_when_it_was_confirmed(queue, clock):
    first, second = await queue.insert_many([QueueRequest(1, "SPY"), QueueRequest(2, "SPY")])
    answer = Answer(update_id="row-1", confirmed_at=clock.now)
    await queue.claim_batch(limit=2)
    assert (await queue.overview()).last_success_at is None
    clock.advance(20)
    await queue.mark_success([first, second], answers={first: answer})
    done = {r.conid: r for r in await queue.get_batch(priority=None, status=SUCCESS)}
    assert done[1].update_id == "row-1"
    assert done[1].confirmed_at == answer.confirmed_at
    assert done[2].update_id is None
    assert done[2].confirmed_at is None
    assert (await queue.overview()).last_success_at == clock.now

    span = timedelta(seconds=30)
    confirmed = queue.sync.confirmations(clock.now - span, clock.now + span)
    assert confirmed.rows() == [("row-1", answer.confirmed_at)]
    assert queue.sync.confirmations(clock.now, clock.now + span).is_empty()
    assert queue.sync.confirmations(clock.now - span, clock.now - span / 2).is_empty()
