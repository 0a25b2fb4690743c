"""A batch is valued by what the broker said when its requests were claimed, or later."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from position_sync_dagster.domain.holding import QueueRequest, QueueStatus, Source
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from position_sync_dagster.errors import BrokerUnavailableError, LakeError, NewerRowError
from position_sync_dagster.lake.position_updates import AppendResult, NewestRows
from position_sync_dagster.sync.drain import NOTHING, BrokerView, DrainReport, QueueWorker
from tests.support.holdings import make_holding
from tests.support.memory_queue import InMemoryPositionQueue
from tests.support.settings import make_settings

CLOSES = 200


class Ticking:
    """A clock that is a millisecond later at each look."""

    def __init__(self):
        self.now = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)

    def __call__(self):
        self.now += timedelta(milliseconds=1)
        return self.now


class Ledger:
    """The newest row of each conid, by the time of the row."""

    def __init__(self):
        self.rows = []

    async def initialize(self):
        pass

    async def newest_of(self, conids, since):
        newest = {(r.account, r.conid): r for r in sorted(self.rows, key=lambda r: r.timestamp)}
        found = {key: r for key, r in newest.items() if r.timestamp >= since and r.conid in conids}
        return NewestRows(found, len(self.rows))

    async def append(self, rows, *, batch_id, guard, through):
        known = {row.conid for row in self.rows[through:]}
        if known & {row.conid for row in rows}:
            raise NewerRowError("Another row was written.", remedy="Decide anew.")
        guard()
        self.rows += rows
        return AppendResult(version=len(self.rows), rows=len(rows))

    async def existing(self, update_ids):
        return {row.update_id for row in self.rows} & set(update_ids)

    def newest(self):
        return {row.conid: row.position for row in sorted(self.rows, key=lambda r: r.timestamp)}


class Broker:
    """A published table of holdings; `meanwhile` happens right after each look at it."""

    def __init__(self, clock, conids):
        self._clock = clock
        self.positions = dict.fromkeys(conids, 1.0)
        self.published_at = clock()
        self.meanwhile = None
        self.looks = 0
        self.lost_after = None

    def holding(self, conid, at):
        return make_holding(conid, at, position=self.positions[conid])

    async def close(self):
        pass

    async def view(self, _conids=None):
        self.looks += 1
        if self.lost_after is not None and self.looks > self.lost_after:
            raise BrokerUnavailableError("The owner is BLIND.", remedy="Wait.")
        at = self._clock()
        view = BrokerView(
            holdings={("A", conid): self.holding(conid, at) for conid in self.positions},
            complete=True,
            captured={"s": self.published_at},
        )
        if self.meanwhile is not None:
            await self.meanwhile()
        return view


@pytest.fixture
def clock():
    return Ticking()


@pytest.fixture
def queue(clock):
    return InMemoryPositionQueue(clock=clock)


def worker(queue, ledger, broker, clock):
    return QueueWorker(
        queue, values=broker, updates=ledger, settings=make_settings(lease_s=60.0), clock=clock
    )


async def test_requests_of_an_account_without_current_data_stay_where_they_are(queue, clock):
    broker = Broker(clock, [1])
    complete = broker.view

    async def view(conids=None):
        return replace(await complete(conids), unavailable=frozenset({"B"}))

    broker.view = view
    await queue.insert_many([QueueRequest(1, "SPY", account=account) for account in ("A", "B")])
    report = await worker(queue, Ledger(), broker, clock).process_batch()
    assert (report.claimed, report.succeeded) == (1, 1)
    (left,) = await queue.get_batch(priority=None, limit=10)
    assert (left.account, left.status) == ("B", QueueStatus.PENDING)


async def test_a_drain_that_is_stopped_around_each_close_loses_no_zero_row(queue, clock):
    broker, ledger = Broker(clock, range(1, CLOSES + 1)), Ledger()
    left = list(broker.positions)
    await queue.insert_many([QueueRequest(conid, "SPY", account="A") for conid in left[:50]])

    async def close():
        """Publish the close of the next holding, then queue it: as the stream does."""
        if left:
            conid = left.pop()
            broker.positions[conid] = 0.0
            await queue.insert(conid, "SPY", account="A")

    broker.meanwhile = close
    batches = worker(queue, ledger, broker, clock)
    while left or (await queue.counts())[QueueStatus.PENDING]:
        await batches.process_batch()
    assert ledger.newest() == dict.fromkeys(range(1, CLOSES + 1), 0.0)
    counts = await queue.counts()
    done = await queue.get_batch(priority=None, limit=1000, status=QueueStatus.SUCCESS)
    assert {request.update_id for request in done} == {row.update_id for row in ledger.rows}
    assert counts[QueueStatus.SUCCESS] == len(done)
    assert counts[QueueStatus.FAILED] == counts[QueueStatus.PROCESSING] == 0


async def test_a_broker_that_is_lost_after_the_claim_gives_the_requests_back(queue, clock):
    broker, ledger = Broker(clock, [1]), Ledger()
    await queue.insert(1, "SPY", account="A")
    broker.lost_after = 1
    with pytest.raises(BrokerUnavailableError):
        await worker(queue, ledger, broker, clock).process_batch()
    (request,) = await queue.get_batch(priority=None)
    assert (request.status, request.attempts, ledger.rows) == (QueueStatus.PENDING, 0, [])


async def test_nothing_is_claimed_without_a_view_of_the_broker(queue, clock):
    broker = Broker(clock, [1])
    broker.lost_after = 0
    await queue.insert(1, "SPY", account="A")
    with pytest.raises(BrokerUnavailableError):
        await worker(queue, Ledger(), broker, clock).process_batch()
    (request,) = await queue.get_batch(priority=None)
    assert (request.status, request.updated_at) == (QueueStatus.PENDING, request.created_at)


async def test_a_request_of_an_unchanged_holding_ends_with_the_row_that_says_so(queue, clock):
    broker, ledger = Broker(clock, [1, 2]), Ledger()
    batches = worker(queue, ledger, broker, clock)
    await queue.insert_many([QueueRequest(conid, "SPY", account="A") for conid in (1, 2)])
    first = await batches.process_batch()
    broker.positions[2] = 3.0
    await queue.insert_many([QueueRequest(conid, "SPY", account="A") for conid in (1, 2)])
    second = await batches.process_batch()
    assert (first.rows, first.unchanged) == (2, 0)
    assert (second.rows, second.unchanged, second.succeeded) == (1, 1, 2)
    assert [(r.conid, r.position) for r in ledger.rows] == [(1, 1.0), (2, 1.0), (2, 3.0)]
    done = await queue.get_batch(priority=None, status=QueueStatus.SUCCESS)
    answers = [(r.conid, r.update_id) for r in sorted(done, key=lambda r: r.created_at)]
    ids = [row.update_id for row in ledger.rows]
    assert sorted(answers) == sorted([(1, ids[0]), (1, ids[0]), (2, ids[1]), (2, ids[2])])


async def test_a_request_whose_worker_was_killed_before_its_mark_keeps_its_own_row(queue, clock):
    broker, ledger = Broker(clock, [1]), Ledger()
    batches = worker(queue, ledger, broker, clock)
    request_id = await queue.insert(1, "SPY")
    marks, queue.mark_success = queue.mark_success, None
    with pytest.raises(TypeError):  # as if it were killed: nothing is released
        await batches.process_batch()
    queue.mark_success = marks
    broker.positions[1] = 2.0
    await queue.insert(1, "SPY", account="A")
    await batches.process_batch()
    clock.now += timedelta(seconds=61)
    assert await queue.rescue() == [request_id]
    await batches.process_batch()
    done = await queue.get_batch(priority=None, status=QueueStatus.SUCCESS)
    assert [row.position for row in ledger.rows] == [1.0, 2.0]
    assert {r.request_id: r.update_id for r in done} == {
        row.request_id: row.update_id for row in ledger.rows
    }


async def test_a_row_that_would_be_too_old_at_the_next_request_is_written_again(queue, clock):
    broker, ledger = Broker(clock, [1]), Ledger()
    batches = worker(queue, ledger, broker, clock)
    for _ in range(41):
        await queue.insert(1, "SPY", account="A")
        await batches.process_batch()
        clock.now += timedelta(seconds=180)
    times = [row.timestamp for row in ledger.rows]
    assert len(times) == 3
    assert all(b - a <= timedelta(hours=1) for a, b in pairwise(times))


async def test_a_zero_row_that_the_stream_writes_meanwhile_is_not_followed_by_an_old_row(
    queue, clock
):
    broker, ledger = Broker(clock, [1]), Ledger()
    batches = worker(queue, ledger, broker, clock)
    await queue.insert(1, "SPY", account="A")
    streamed = []

    async def close():
        """Write the zero row, as the stream does before it publishes the close."""
        if broker.looks == 2:  # the look for which the batch is planned
            at = clock()
            streamed.append(
                from_portfolio(
                    replace(broker.holding(1, at), position=0.0), source=Source.STREAM, now=at,
                    by=Provenance(session_id="s"),
                )
            )  # fmt: skip
            ledger.rows += [replace(row, update_id="zero") for row in streamed]

    broker.meanwhile = close
    report = await batches.process_batch()
    assert [row.update_id for row in ledger.rows] == ["zero"]
    assert (report.rows, report.unchanged) == (0, 1)
    (done,) = await queue.get_batch(priority=None, status=QueueStatus.SUCCESS)
    assert done.update_id == "zero"


async def test_a_drain_of_many_requests_takes_a_few_batches_and_looks_at_the_broker_for_each(
    queue, clock
):
    conids = range(1, 801)
    broker, ledger = Broker(clock, conids), Ledger()
    await queue.insert_many([QueueRequest(conid, "SPY", account="A") for conid in conids])
    one = worker(queue, ledger, broker, clock)
    result = await one.drain(3600.0)
    assert [batch.claimed for batch in result.batches] == [200, 200, 200, 200]
    assert result.exhausted
    assert (await queue.counts())[QueueStatus.SUCCESS] == 800
    assert len(ledger.newest()) == 800
    await queue.insert_many([QueueRequest(conid, "SPY", account="A") for conid in conids])
    report = await one.process_batch()
    assert report.claimed == 200


FULL = LakeError("No table can be written: the disk is full.", remedy="Make room.")
LOST = DrainReport(unavailable=True, reason="The connection to IB has been lost.")


@pytest.mark.parametrize("fault", [FULL, LOST])
async def test_an_outage_of_broker_or_tables_is_logged_once(queue, clock, caplog, fault):
    one, ended = worker(queue, Ledger(), Broker(clock, []), clock), asyncio.Event()
    outcomes = [fault, fault, fault, NOTHING, fault, fault]

    async def drain(_time_limit_s):
        if not outcomes:
            ended.set()
            return NOTHING
        outcome = outcomes.pop()
        if isinstance(outcome, LakeError):
            raise outcome
        return outcome

    one.drain, one.interval = drain, 0.0
    await one.start()
    await ended.wait()
    await one.stop()
    assert len(caplog.messages) == 2, caplog.messages
