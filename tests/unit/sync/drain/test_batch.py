"""A batch is valued by what the broker said when its requests were claimed, or later."""

from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.pricing.valuation import Provenance
from position_sync_dagster.domain.request import QueueRequest, QueueStatus
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.lake.queue.memory import InMemoryPositionQueue
from position_sync_dagster.lake.updates.table import AppendResult
from position_sync_dagster.sync.drain.batch import BatchProcessor
from position_sync_dagster.sync.drain.broker_view import BrokerView

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

    async def append(self, rows, *, batch_id, guard):
        guard()
        self.rows += rows
        return AppendResult(version=len(self.rows), rows=len(rows))

    def newest(self):
        return {row.conid: row.position for row in sorted(self.rows, key=lambda r: r.timestamp)}


class Broker:
    """A published table of holdings; `meanwhile` happens right after each look at it."""

    def __init__(self, clock, conids):
        self._clock = clock
        self.positions = dict.fromkeys(conids, 1.0)
        self.meanwhile = None
        self.looks = 0
        self.lost_after = None

    async def view(self):
        self.looks += 1
        if self.lost_after is not None and self.looks > self.lost_after:
            raise BrokerUnavailableError("The owner is BLIND.", remedy="Wait.")
        at = self._clock()
        view = BrokerView(
            holdings={
                ("A", conid): BrokerPosition(
                    gateway_id="g", account="A", position=position, received_at=at,
                    position_time=at, snapshot_id="s",
                    instrument=Instrument(
                        conid=conid, symbol="SPY", sec_type="OPT", currency="USD"
                    ),
                )
                for conid, position in self.positions.items()
            },
            complete=True,
        )  # fmt: skip
        if self.meanwhile is not None:
            await self.meanwhile()
        return view


@pytest.fixture
def clock():
    return Ticking()


@pytest.fixture
def queue(clock):
    return InMemoryPositionQueue(clock=clock)


def processor(queue, ledger, broker, clock):
    return BatchProcessor(
        queue, ledger, broker, batch_size=50, lease_s=60.0, provenance=Provenance(), clock=clock
    )


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
    batches = processor(queue, ledger, broker, clock)
    while left or (await queue.counts())[QueueStatus.PENDING]:
        await batches.process()
    assert ledger.newest() == dict.fromkeys(range(1, CLOSES + 1), 0.0)
    counts = await queue.counts()
    assert counts[QueueStatus.SUCCESS] == len(ledger.rows)
    assert counts[QueueStatus.FAILED] == counts[QueueStatus.PROCESSING] == 0


async def test_a_broker_that_is_lost_after_the_claim_gives_the_requests_back(queue, clock):
    broker, ledger = Broker(clock, [1]), Ledger()
    await queue.insert(1, "SPY", account="A")
    broker.lost_after = 1
    with pytest.raises(BrokerUnavailableError):
        await processor(queue, ledger, broker, clock).process()
    (request,) = await queue.get_batch(priority=None)
    assert (request.status, request.attempts, ledger.rows) == (QueueStatus.PENDING, 0, [])


async def test_nothing_is_claimed_without_a_view_of_the_broker(queue, clock):
    broker = Broker(clock, [1])
    broker.lost_after = 0
    await queue.insert(1, "SPY", account="A")
    with pytest.raises(BrokerUnavailableError):
        await processor(queue, Ledger(), broker, clock).process()
    (request,) = await queue.get_batch(priority=None)
    assert (request.status, request.updated_at) == (QueueStatus.PENDING, request.created_at)
