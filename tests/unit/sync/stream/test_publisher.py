"""What is queued agrees with what was published."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.gateway.holdings import PnlValues
from position_sync_dagster.gateway.translate import UNSET
from position_sync_dagster.lake.schema import POSITION_UPDATES
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.ownership import OwnerContext
from position_sync_dagster.sync.stream.publisher import Announcements, CloseWatcher, Publisher
from tests.support.holdings import make_book, make_holding
from tests.support.memory_queue import InMemoryPositionQueue

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
KEY = ("A", 1)
HELD = make_holding(1, NOW, position=2.0, market_value=5.0)
CLOSED = replace(HELD, position=0.0)
MONITORED = {KEY: LegState.MONITORED}


class Feed:
    """An account feed with the holdings that a test gives it."""

    def __init__(self, *holdings):
        self.book = make_book(lambda: NOW)
        self.completeness = self.book.confirmed.completeness
        self.get = self.book.get
        self.put(*holdings)

    @property
    def holdings(self):
        return self.book.holdings

    def put(self, *holdings):
        for holding in holdings:
            self.book.put(holding)


class Positions:
    """A table of broker positions; during a commit, something may happen to the feed."""

    def __init__(self):
        self.rows = []
        self.written = []
        self.updates = 0
        self.meanwhile = None

    def read(self, _gateway_id):
        return self.rows

    def replace(self, _gateway_id, rows, **_more):
        if self.meanwhile is not None:
            self.meanwhile()
        self.rows = list(rows)

    def update(self, _gateway_id, changed, **_more):
        if self.meanwhile is not None:
            self.meanwhile()
        self.written = list(changed)
        self.rows = list({row.key: row for row in [*self.rows, *changed]}.values())
        self.updates += 1
        return self.updates


OTHERS = [make_holding(conid, NOW, position=1.0) for conid in (2, 3)]


def publishing(*holdings):
    """Return a publisher of a feed with these holdings, and the feed, the table and the queue."""
    feed, positions, queue = Feed(*holdings), Positions(), InMemoryPositionQueue()
    context = OwnerContext(settings=Settings(), clock=lambda: NOW)
    publisher = Publisher(context, queue, positions, Announcements())
    publisher.follow(feed)
    return publisher, feed, positions, queue


async def drained(queue):
    """Finish every live request; return how many there were."""
    batch = await queue.claim_batch()
    await queue.mark_success([request.request_id for request in batch])
    return len(batch)


async def test_a_close_that_arrives_while_the_positions_are_published_is_queued_by_the_next_step():
    publisher, feed, positions, queue = publishing(HELD)
    await publisher.publish(feed)
    await publisher.enqueue_all(MONITORED)
    assert await drained(queue) == 1

    changed = replace(HELD, position=3.0)
    feed.put(changed)
    positions.meanwhile = lambda: feed.put(CLOSED)
    await publisher.publish(feed)
    await publisher.enqueue_changed(MONITORED, [KEY])
    # This drain values the request by what is published: the quantity before the close.
    assert [row.position for row in positions.rows] == [3.0]
    assert await drained(queue) == 1

    positions.meanwhile = None
    await publisher.publish(feed)
    await publisher.enqueue_changed({KEY: LegState.CLOSED}, [KEY])
    assert [row.position for row in positions.rows] == [0.0]
    assert await drained(queue) == 1


async def test_a_close_that_arrives_while_a_download_is_published_lacks_its_zero_row():
    publisher, feed, positions, queue = publishing(HELD)
    positions.meanwhile = lambda: feed.put(CLOSED)
    await publisher.publish(feed)
    assert await publisher.enqueue_all(MONITORED) == 1
    assert await drained(queue) == 1
    await publisher.publish(feed)
    assert await publisher.enqueue_all({KEY: LegState.CLOSED}) == 1


class NoRows:
    """A ledger that names no holding any more: all of them closed weeks ago."""

    async def latest(self):
        return POSITION_UPDATES.empty


@pytest.mark.parametrize(("days", "requests"), [(1, 1), (21, 0)])
async def test_after_a_pause_of_weeks_a_close_from_before_it_gets_no_second_zero_row(
    days, requests
):
    publisher, _feed, positions, _queue = publishing()
    positions.rows = [replace(CLOSED, position_time=NOW - timedelta(days=days))]
    publisher.announced = Announcements(NoRows())
    await publisher.restore()
    assert await publisher.enqueue_all({KEY: LegState.CLOSED}) == requests


async def test_a_holding_that_is_not_published_yet_is_not_queued():
    publisher, feed, _positions, queue = publishing()
    await publisher.publish(feed)
    assert await publisher.enqueue(MONITORED, [KEY]) == 0
    assert await drained(queue) == 0


async def test_a_profit_message_that_values_nothing_is_no_reason_to_write():
    publisher, feed, positions, _queue = publishing(HELD, *OTHERS)
    await publisher.publish(feed)
    feed.book.put_pnl(KEY, PnlValues(9.0, 5.0, 5.0, 0.0, 450.0))  # another quantity
    await publisher.publish(feed)
    assert positions.updates == 0
    feed.book.put_pnl(KEY, PnlValues(2.0, 5.0, 5.0, 0.0, 450.0))
    await publisher.publish(feed)
    assert positions.updates == 1
    assert [row.market_value for row in positions.rows] == [450.0, None, None]
    feed.book.confirmed.confirm("A", NOW)
    await publisher.publish(feed)
    assert positions.updates == 2


def profit(value, *, daily=5.0, unrealized=5.0):
    return PnlValues(2.0, UNSET if daily is None else daily, unrealized, 0.0, value)


@pytest.mark.parametrize(
    ("sent", "queued"),
    [
        (profit(4_039.0), False),
        (profit(4_040.0), True),
        (profit(4_001.0, unrealized=-0.5), False),
        (profit(4_040.0, unrealized=-0.5), True),
        (profit(4_001.0, daily=60.0), True),
        (profit(4_001.0, daily=None), True),
    ],
)
async def test_each_value_is_published_and_a_holding_is_queued_when_it_moved(sent, queued):
    publisher, feed, positions, queue = publishing(HELD, *OTHERS)
    feed.book.put_pnl(KEY, profit(4_000.0))
    await publisher.publish(feed)
    await publisher.enqueue_moved(MONITORED)
    assert await drained(queue) == 1

    feed.book.put_pnl(KEY, sent)
    await publisher.publish(feed)
    row = next(row for row in positions.rows if row.key == KEY)
    assert row.market_value == sent.value
    await publisher.enqueue_moved(MONITORED)
    assert await drained(queue) == queued


@pytest.mark.parametrize(
    "moves",
    [
        [(4_000.0, 5.0, 1), (4_030.0, 5.0, 0), (4_060.0, 5.0, 1), (4_080.0, 5.0, 0)],
        [(300.0, 1.0, 1), (302.0, -1.0, 0), (304.0, 1.0, 0), (304.0, -1.0, 1)],
    ],
    ids=["small moves in one direction", "another sign of the profit, with a move of the part"],
)
async def test_moves_since_a_holding_was_queued_count_together(moves):
    publisher, feed, _positions, queue = publishing(HELD)
    for value, unrealized, queued in moves:
        feed.book.put_pnl(KEY, profit(value, unrealized=unrealized))
        await publisher.publish(feed)
        await publisher.enqueue_moved(MONITORED)
        assert await drained(queue) == queued


async def test_a_moved_holding_that_is_streamed_is_not_queued():
    publisher, feed, _positions, queue = publishing(HELD)
    feed.book.put_pnl(KEY, profit(4_000.0))
    await publisher.publish(feed)
    await publisher.enqueue_moved({KEY: LegState.STREAMED})
    assert await drained(queue) == 0


async def test_a_repeated_value_confirms_the_row_and_writes_none():
    publisher, feed, positions, _queue = publishing(HELD, *OTHERS)
    feed.book.put_pnl(KEY, profit(4_000.0))
    await publisher.publish(feed)
    feed.book.put_pnl(KEY, profit(4_000.0))
    await publisher.publish(feed)
    assert positions.updates == 0


async def test_an_account_that_is_in_doubt_is_published_although_none_of_its_rows_changed():
    publisher, feed, positions, _queue = publishing(HELD, *OTHERS)
    feed.completeness["A"] = Completeness.COMPLETE
    await publisher.publish(feed)
    feed.completeness["A"] = Completeness.UNKNOWN
    await publisher.publish(feed)
    assert positions.updates == 1
    # Of the rows of an account the one that was written last counts for all of them.
    assert positions.written[-1].completeness is Completeness.UNKNOWN


class Changes:
    """An explainer, and its table of the changes of quantities which it was given."""

    def __init__(self):
        self.lake = SimpleNamespace(position_changes=self)
        self.stored = {}

    def record(self, changes):
        gateway_id = Settings().gateway_id
        self.stored |= {one.change_id: replace(one, gateway_id=gateway_id) for one in changes}

    def records(self, _since):
        return self.stored.values()

    @property
    def known(self):
        return [(change.before, change.after) for change in self.stored.values()]


async def test_a_quantity_that_moves_again_after_a_failed_publication_is_recorded_from_there():
    (publisher, feed, positions, _queue), explainer = publishing(HELD), Changes()
    publisher.watcher = CloseWatcher(publisher.context, explainer)
    await publisher.publish(feed)

    def fail():
        raise LakeNotWritableError("The disk is full.", remedy="Make room.")

    feed.put(replace(HELD, position=5.0))
    positions.meanwhile = fail
    with pytest.raises(LakeNotWritableError):
        await publisher.publish(feed)
    positions.meanwhile = None
    feed.put(replace(CLOSED, position_time=NOW + timedelta(seconds=1)))
    await publisher.publish(feed)
    assert explainer.known == [(2.0, 5.0), (5.0, 0.0)]
    feed.put(replace(HELD, position=1.0, position_time=NOW + timedelta(seconds=2)))
    await publisher.publish(feed)
    assert explainer.known[2:] == [(0.0, 1.0)]
