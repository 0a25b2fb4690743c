"""What is queued agrees with what was published; a close has one zero row, and is looked at."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.gateway.connection import DayExecutions
from position_sync_dagster.gateway.holdings import PnlValues
from position_sync_dagster.gateway.translate import UNSET
from position_sync_dagster.lake.broker_positions import FOLD_FILES
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.data_files import data_files
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.stream.parts import PublishedGreeks
from position_sync_dagster.sync.stream.position_changes import (
    EXECUTION_LOOKS_S,
    ChangeWatcher,
    changes_between,
)
from position_sync_dagster.sync.stream.publisher import Publisher, Submissions
from tests.support.holdings import make_book, make_holding
from tests.support.unowned import unowned

NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)
KEY = ("A", 1)
HELD = make_holding(1, NOW, position=2.0, market_value=5.0)
CLOSED = replace(HELD, position=0.0)
MONITORED = {KEY: LegState.MONITORED}
LOOKS_S = EXECUTION_LOOKS_S


class Feed:
    """An account feed with the holdings that a test gives it."""

    def __init__(self, *holdings):
        self.book = make_book(lambda: NOW)
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
        return self.updates

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
    feed = Feed(*holdings)
    positions = Positions()
    queue = PositionQueue("queue", fsync=False)
    context = unowned(settings=Settings(), clock=lambda: NOW)
    publisher = Publisher(context, queue, positions, Submissions(), greeks=PublishedGreeks())
    publisher.attach(feed)
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
    await publisher.enqueue_all(MONITORED)
    assert await drained(queue) == 1
    await publisher.publish(feed)
    await publisher.enqueue_all({KEY: LegState.CLOSED})
    assert await drained(queue) == 1


class Ledger:
    """The newest rows of some conids."""

    def __init__(self, positions):
        self.positions = positions

    async def latest(self):
        return pl.DataFrame(
            [("A", conid, position) for conid, position in self.positions.items()],
            schema={"account": pl.String, "conid": pl.Int64, "position": pl.Float64},
            orient="row",
        )


@pytest.mark.parametrize(("days", "requests"), [(1, 1), (21, 0)])
async def test_after_a_pause_of_weeks_a_close_from_before_it_gets_no_second_zero_row(
    days, requests
):
    publisher, _feed, positions, queue = publishing()
    positions.rows = [replace(CLOSED, position_time=NOW - timedelta(days=days))]
    publisher.submitted = Submissions(Ledger({}))  # all of them closed weeks ago
    await publisher.restore()
    await publisher.enqueue_all({KEY: LegState.CLOSED})
    assert await drained(queue) == requests


async def test_a_holding_that_is_not_published_yet_is_not_queued():
    publisher, feed, _positions, queue = publishing()
    await publisher.publish(feed)
    await publisher.enqueue(MONITORED, [KEY])
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
    feed.book.confirm("A")
    await publisher.publish(feed)
    assert positions.updates == 2
    assert len(positions.written) == 1, "one row of an account carries its confirmation"


async def test_changes_that_the_table_refuses_are_published_with_all_rows(monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_FSYNC", "false")
    publisher, feed, _positions, _queue = publishing(HELD, *OTHERS)
    table = publisher.broker_positions = Lake("lake").broker_positions
    table.table.initialize()
    for number in range(FOLD_FILES + 3):
        feed.put(replace(HELD, market_value=float(number)))
        await publisher.publish(feed)
        rows = table.read(publisher.ownership.settings.gateway_id)
        assert [row.market_value for row in rows] == [float(number), None, None]
        assert len(table.table.snapshot(data_files)) <= FOLD_FILES


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
    feed.book.states.listed_at = NOW
    feed.book.states["A"].is_covered = True
    await publisher.publish(feed)
    feed.book.states["A"].take_list(0.0, is_emptied=True)
    await publisher.publish(feed)
    assert positions.updates == 1
    # Of the rows of an account the one that was written last counts for all of them.
    assert positions.written[-1].completeness is Completeness.UNKNOWN


def holding(conid, position, *, market_value=None):
    return make_holding(conid, NOW, position=position, market_value=market_value)


def test_a_quantity_or_a_value_that_becomes_known_needs_a_row_and_another_value_does_not():
    submitted = Submissions()
    held = holding(1, 2.0)
    assert not submitted.is_submitted(held)
    submitted.record([held])
    assert submitted.is_submitted(held)
    valued = replace(held, market_value=5.0)
    assert not submitted.is_submitted(valued)
    submitted.record([valued])
    assert submitted.is_submitted(replace(valued, market_value=6.0))
    assert not submitted.is_submitted(replace(valued, position=3.0))


def test_a_close_has_its_zero_row_once_it_was_recorded():
    submitted = Submissions()
    key = ("A", 1)
    assert not submitted.lacks_zero_row(holding(1, 0.0)), "nobody heard that it was open"
    submitted.record([holding(1, 2.0)])
    assert submitted.lacks_zero_row(holding(1, 0.0))
    assert not submitted.is_held(key, 0.0)
    submitted.record([holding(1, 0.0)])
    assert not submitted.lacks_zero_row(holding(1, 0.0))
    assert submitted.is_held(key, 0.0)


@pytest.mark.parametrize(("row", "lacks"), [(0.0, False), (2.0, True), (None, True)])
async def test_after_a_restart_a_close_lacks_its_zero_row_unless_the_ledger_has_it(row, lacks):
    submitted = Submissions(Ledger({} if row is None else {1: row}))
    await submitted.restore([holding(1, 0.0), holding(2, 4.0)])
    assert submitted.lacks_zero_row(holding(1, 0.0)) is lacks
    assert submitted.is_held(("A", 1), 0.0) is not lacks
    assert submitted.lacks_zero_row(holding(2, 0.0))
    submitted.record([holding(1, 0.0)])
    assert not submitted.lacks_zero_row(holding(1, 0.0))


class Gateway:
    """A connection that counts the requests for executions."""

    accounts = ("DU1",)
    answer = None

    def __init__(self):
        self.requests = 0

    async def executions(self):
        self.requests += 1
        return self.answer


FOLLOWER = SimpleNamespace(follow_changes=lambda *_: None)


async def requests_of_a_start(*, answer=None, later_s=()):
    gateway = Gateway()
    now_s = 50.0
    gateway.answer = answer
    context = unowned(settings=Settings(), monotonic=lambda: now_s)
    watcher = ChangeWatcher(context, SimpleNamespace(), [FOLLOWER])
    for delay_s in (0.0, 1.0, *LOOKS_S[1:], *later_s):
        now_s = 50.0 + delay_s
        await watcher.look_if_due(gateway)
    return gateway.requests


async def test_a_close_is_looked_at_although_its_table_did_not_confirm_it():
    def fail(*_changes):
        raise LakeNotWritableError("The disk did not confirm it.", remedy="Check it.")

    gateway = Gateway()
    table = SimpleNamespace(add=fail)
    context = unowned(settings=Settings(), monotonic=lambda: 50.0)
    watcher = ChangeWatcher(context, table, [FOLLOWER])
    with pytest.raises(LakeNotWritableError):
        await watcher.record(changes_between({KEY: HELD}, {KEY: CLOSED}, {}))
    await watcher.look_if_due(gateway)
    assert gateway.requests == 1


def test_the_first_holding_of_an_account_that_the_broker_confirmed_as_flat_is_a_change():
    (change,) = changes_between({}, {HELD.key: HELD}, {"A": NOW})
    assert change.before == 0.0
    assert change.after == 2.0
    assert change.since == NOW


def test_the_first_holding_of_an_account_that_was_never_confirmed_is_no_change():
    assert changes_between({}, {HELD.key: HELD}, {"A": None}) == []
    assert changes_between({}, {HELD.key: HELD}, {}) == []


async def test_without_an_answer_to_the_last_request_the_gateway_is_asked_until_it_answers():
    later_s = (2 * LOOKS_S[-1], 3 * LOOKS_S[-1])
    answered = DayExecutions([], NOW, NOW)
    assert await requests_of_a_start(later_s=later_s) == len(LOOKS_S) + 2
    assert await requests_of_a_start(answer=answered, later_s=later_s) == len(LOOKS_S)


@pytest.mark.parametrize("price", [4.0, 0.04], ids=["in cents", "in dollars"])
def test_the_price_before_a_change_is_in_dollars_however_the_broker_quotes_it(price):
    value = -1 * 0.04 * 5000
    held = make_holding(1, NOW, position=-1.0, market_price=price, market_value=value)
    held = replace(held, instrument=replace(held.instrument, multiplier=5000.0))
    closed = replace(held, position=0.0)
    (change,) = changes_between({held.key: held}, {closed.key: closed}, {})
    assert change.market_price == pytest.approx(0.04)
    unknown = replace(held, market_value=None)
    (change,) = changes_between({held.key: unknown}, {closed.key: closed}, {})
    assert change.market_price is None


def test_a_change_has_the_profit_of_its_day_and_none_of_the_day_before():
    closed = make_holding(1, NOW, position=0.0)
    for received_at, daily in ((NOW, 40.0), (NOW - timedelta(days=1), None)):
        held = make_holding(1, NOW, position=2.0, received_at=received_at, daily_pnl=40.0)
        (change,) = changes_between({held.key: held}, {closed.key: closed}, {})
        assert change.daily_pnl == daily
