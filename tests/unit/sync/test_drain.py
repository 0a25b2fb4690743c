"""A drain: whether the broker's data count, the plan of a batch, and what happens meanwhile."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest

from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.position_update import PriceKind, Source, ValueOrigin
from position_sync_dagster.domain.queue_request import (
    Answer,
    QueuedPosition,
    QueueRequest,
    QueueStatus,
)
from position_sync_dagster.domain.valuation import Provenance, from_portfolio
from position_sync_dagster.errors import BrokerUnavailableError, LakeError, NewerRowError
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.position_updates import AppendResult, NewestRows
from position_sync_dagster.sync.broker_view import BrokerView, unavailable_reason, unconfirmed
from position_sync_dagster.sync.drain import (
    NOTHING,
    DrainReport,
    QueueWorker,
    ids_of_earlier_claims,
    match_holdings,
    plan_batch,
)
from tests.support.holdings import make_holding
from tests.support.settings import make_settings


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
        self.sync = self  # its reads have blocking calls

    async def initialize(self):
        pass

    def newest_of(self, conids, since):
        newest = {(r.account, r.conid): r for r in sorted(self.rows, key=lambda r: r.timestamp)}
        r_of = {key: r for key, r in newest.items() if r.timestamp >= since and r.conid in conids}
        return NewestRows(r_of, len(self.rows))

    async def append(self, rows, *, batch_id, guard, through):
        known = {row.conid for row in self.rows[through:]}
        if known & {row.conid for row in rows}:
            raise NewerRowError("Another row was written.", remedy="Decide anew.")
        guard()
        self.rows += rows
        return AppendResult(version=len(self.rows), rows=len(rows))

    def existing(self, update_ids):
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


class Draining:
    """A worker over a queue, a ledger and a broker in memory, of one account."""

    def __init__(self, *conids, **settings):
        self.clock = Ticking()
        self.ledger = Ledger()
        self.queue = PositionQueue("queue", clock=self.clock, fsync=False)
        self.broker = Broker(self.clock, conids)
        self.worker = QueueWorker(
            self.queue, values=self.broker, updates=self.ledger,
            settings=make_settings(lease_s=60.0, **settings), clock=self.clock,
        )  # fmt: skip

    async def request(self, *conids):
        requests = [QueueRequest(conid, "SPY", account="A") for conid in conids]
        return await self.queue.insert_many(requests)

    async def process(self, *conids):
        await self.request(*conids)
        return await self.worker.process_batch()

    async def waiting(self):
        (request,) = await self.queue.get_batch(priority=None)
        return request

    async def succeeded(self):
        return await self.queue.get_batch(priority=None, limit=1000, status=QueueStatus.SUCCESS)


async def test_requests_of_an_account_without_current_data_stay_where_they_are():
    draining = Draining(1)
    complete = draining.broker.view

    async def view(conids=None):
        return replace(await complete(conids), unavailable=frozenset({"B"}))

    draining.broker.view = view  # type: ignore[method-assign]
    await draining.queue.insert(1, "SPY", account="B")
    report = await draining.process(1)
    assert report.claimed == 1
    assert report.succeeded == 1
    left = await draining.waiting()
    assert left.account == "B"
    assert left.status == QueueStatus.PENDING


async def test_a_broker_that_is_lost_after_the_claim_gives_the_requests_back():
    draining = Draining(1)
    draining.broker.lost_after = 1
    with pytest.raises(BrokerUnavailableError):
        await draining.process(1)
    request = await draining.waiting()
    assert request.status == QueueStatus.PENDING
    assert request.attempts == 0
    assert draining.ledger.rows == []


async def test_a_request_of_an_unchanged_holding_ends_with_the_row_that_says_so():
    draining = Draining(1, 2)
    first = await draining.process(1, 2)
    draining.broker.positions[2] = 3.0
    second = await draining.process(1, 2)
    assert first.rows == 2
    assert first.succeeded == 2
    assert second.rows == 1
    assert second.succeeded == 2
    rows = draining.ledger.rows
    assert [(r.conid, r.position) for r in rows] == [(1, 1.0), (2, 1.0), (2, 3.0)]
    answers = [(r.conid, r.update_id) for r in await draining.succeeded()]
    ids = [row.update_id for row in rows]
    assert sorted(answers) == sorted([(1, ids[0]), (1, ids[0]), (2, ids[1]), (2, ids[2])])


async def test_a_request_whose_worker_was_killed_before_its_mark_keeps_its_own_row():
    draining = Draining(1)
    queue = draining.queue
    request_id = await queue.insert(1, "SPY")
    marks = queue.mark_success
    queue.mark_success = None  # type: ignore[method-assign]
    with pytest.raises(TypeError):  # as if it were killed: nothing is released
        await draining.worker.process_batch()
    queue.mark_success = marks  # type: ignore[method-assign]
    draining.broker.positions[1] = 2.0
    await draining.process(1)
    draining.clock.now += timedelta(seconds=61)
    assert await queue.rescue() == [request_id]

    await draining.worker.process_batch()
    assert [row.position for row in draining.ledger.rows] == [1.0, 2.0]
    assert {r.request_id: r.update_id for r in await draining.succeeded()} == {
        row.request_id: row.update_id for row in draining.ledger.rows
    }


async def test_a_row_that_would_be_too_old_at_the_next_request_is_written_again():
    draining = Draining(1, refresh_interval_s=900.0)
    for _ in range(9):
        await draining.process(1)
        draining.clock.now += timedelta(seconds=900)
    times = [row.timestamp for row in draining.ledger.rows]
    assert len(times) == 3
    assert all(b - a <= timedelta(hours=1) for a, b in pairwise(times))


async def test_a_zero_row_that_the_stream_writes_meanwhile_is_not_followed_by_an_old_row():
    draining = Draining(1)

    async def close():
        """Write the zero row, as the stream does before it publishes the close."""
        if draining.broker.looks == 2:  # the look for which the batch is planned
            at = draining.clock()
            closed = replace(draining.broker.holding(1, at), position=0.0)
            by = Provenance(session_id="s")
            row = from_portfolio(closed, source=Source.STREAM, now=at, by=by)
            draining.ledger.rows.append(replace(row, update_id="zero"))

    draining.broker.meanwhile = close
    report = await draining.process(1)
    assert [row.update_id for row in draining.ledger.rows] == ["zero"]
    assert report.rows == 0
    assert report.succeeded == 1
    (done,) = await draining.succeeded()
    assert done.update_id == "zero"


async def test_a_drain_of_many_requests_takes_a_few_batches_and_looks_at_the_broker_for_each():
    conids = range(1, 801)
    draining = Draining(*conids)
    draining.worker.batch_size = "auto"
    await draining.request(*conids)
    result = await draining.worker.drain(3600.0)
    assert [batch.claimed for batch in result.batches] == [200, 200, 200, 200]
    assert (await draining.queue.counts())[QueueStatus.SUCCESS] == 800
    assert len(draining.ledger.newest()) == 800
    assert (await draining.process(*conids)).claimed == 200


FULL = LakeError("No table can be written: the disk is full.", remedy="Make room.")
LOST = DrainReport(unavailable=True, reason="The connection to IB has been lost.")
# Each attempt names another file after the colon.
ATTEMPTS = count()


def unreadable() -> LakeError:
    return LakeError(f"A table cannot be read: {next(ATTEMPTS)}.parquet", remedy="Look at it.")


@pytest.mark.parametrize("fault", [FULL, LOST, unreadable])
async def test_an_outage_of_broker_or_tables_is_logged_once(caplog, fault):
    worker = Draining().worker
    ended = asyncio.Event()
    outcomes = [fault, fault, fault, NOTHING, fault, fault]

    async def drain(_time_limit_s):
        if not outcomes:
            ended.set()
            return NOTHING
        outcome = outcomes.pop()
        if outcome is unreadable:
            raise unreadable()
        if isinstance(outcome, LakeError):
            raise outcome
        return outcome

    worker.drain = drain  # type: ignore[method-assign]
    worker.interval = 0.0
    await worker.start()
    await ended.wait()
    await worker.stop()
    assert len(caplog.messages) == 2, caplog.messages


NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


def holding(account, conid, position=1.0):
    return make_holding(
        conid, NOW, account=account, position=position, market_price=2.0, market_value=200.0,
        value_source=ValueOrigin.PORTFOLIO,
    )  # fmt: skip


def request(conid, account=None, request_id=None):
    return QueuedPosition(
        request_id or f"r{conid}", conid, "SPY", 2, QueueStatus.PROCESSING, NOW, NOW,
        account=account,
    )  # fmt: skip


HOLDINGS = [holding("A", 1), holding("B", 1), holding("A", 2, 0.0)]
COMPLETE = BrokerView(holdings={h.key: h for h in HOLDINGS}, complete=True)
PARTIAL = replace(COMPLETE, complete=False)


def test_a_request_without_an_account_is_answered_by_each_account_that_holds():
    assert [h.account for h in match_holdings(request(1), COMPLETE)] == ["A", "B"]
    assert [h.account for h in match_holdings(request(1, "B"), COMPLETE)] == ["B"]


def test_an_absent_holding_is_not_held_only_if_the_view_is_complete():
    assert match_holdings(request(9), COMPLETE) == ()
    assert match_holdings(request(9), PARTIAL) is None
    assert match_holdings(request(1, "C"), PARTIAL) is None


def plan(batch, view=COMPLETE, newest=None, now=NOW, written=()):
    return plan_batch(
        batch, view, newest or {}, now=now, written=written,
        provenance=Provenance(run_id="run"), repeat_after=timedelta(minutes=57),
    )  # fmt: skip


def test_a_batch_becomes_rows_and_marks():
    done = plan([request(1), request(2), request(9)])
    assert tuple(done.answers) == ("r1", "r2")
    assert [request.request_id for request in done.not_held] == ["r9"]
    assert done.not_covered == []
    assert [(r.account, r.conid, r.request_id) for r in done.rows] == [
        ("A", 1, "r1"), ("B", 1, "r1"), ("A", 2, "r2"),
    ]  # fmt: skip
    assert {(r.run_id, r.source) for r in done.rows} == {("run", "QUEUE")}
    assert done.rows[2].market_value == 0.0


def test_a_batch_written_again_has_the_same_update_ids_and_no_two_are_alike():
    first, again = (plan([request(1), request(2)]) for _ in range(2))
    assert [r.update_id for r in first.rows] == [r.update_id for r in again.rows]
    assert len({r.update_id for r in first.rows}) == 3
    assert plan([request(1, request_id="other")]).rows[0].update_id != first.rows[0].update_id


def test_rows_written_later_have_later_ids():
    earlier = plan([replace(request(1), created_at=NOW - timedelta(seconds=1))])
    assert earlier.rows[0].update_id < plan([request(1)]).rows[0].update_id


def test_a_holding_whose_value_is_too_old_is_not_covered():
    old = replace(COMPLETE, unconfirmed=frozenset({("A", 1), ("A", 2)}))
    assert match_holdings(request(1), old) is None
    assert match_holdings(request(1, "B"), old)
    assert match_holdings(request(2), old)  # closed: its value is zero


def known(**changes):
    """Return the row that a drain wrote of the first holding two minutes ago."""
    (row,) = plan([request(1, "A", "before")], now=NOW - timedelta(minutes=2)).rows
    return {("A", 1): replace(row, **changes)}


def confirmed(**changes):
    """Return a view in which the broker has just confirmed the first holding."""
    first = replace(HOLDINGS[0], confirmed_at=NOW, **changes)
    return replace(COMPLETE, holdings=COMPLETE.holdings | {("A", 1): first})


def test_a_row_that_says_the_same_answers_the_request_and_the_broker_has_confirmed_it():
    done = plan([request(1, "A")], confirmed(), newest=known(update_id="u"))
    assert done.rows == []
    assert tuple(done.answers) == ("r1",)
    assert done.answers == {"r1": Answer(update_id="u", confirmed_at=NOW)}


@pytest.mark.parametrize(
    "change",
    [
        {"position": 2.0},
        {"market_value": 200.01},
        {"market_value": None},
        {"average_cost": 1.0},
        {"realized_pnl": 0.0},
        {"daily_pnl": 1.0},
        {"value_source": ValueOrigin.PNL_SINGLE},
        {"gateway_id": "another"},
    ],
)
def test_whatever_a_reader_could_use_makes_a_row(change):
    done = plan([request(1, "A")], confirmed(**change), newest=known())
    (row,) = done.rows
    assert done.answers["r1"].update_id == row.update_id != known()[("A", 1)].update_id


@pytest.mark.parametrize(
    "change",
    [
        {"source": Source.STREAM},
        {"bid": 1.9},
        {"price_kind": PriceKind.MARK},
        {"timestamp": NOW - timedelta(minutes=58)},
        {"timestamp": NOW + timedelta(hours=1)},
    ],
)
def test_a_row_of_a_line_an_old_one_and_one_of_a_wrong_clock_answer_nothing(change):
    assert len(plan([request(1, "A")], confirmed(), newest=known(**change)).rows) == 1


def test_each_account_of_a_request_has_its_own_answer():
    done = plan([request(1)], confirmed(), newest=known(update_id="u"))
    assert [row.account for row in done.rows] == ["B"]
    assert done.answers["r1"].update_id == "u"


def test_a_row_that_the_stream_wrote_after_it_published_answers_the_request():
    view = replace(confirmed(), captured={"s": NOW - timedelta(minutes=3)})
    row = known(source=Source.STREAM, session_id="s", market_value=1.0, update_id="u")
    assert plan([request(1, "A")], view, newest=row).answers["r1"].update_id == "u"
    later = replace(view, captured={"s": NOW - timedelta(minutes=1)})
    another = replace(view, captured={"another": NOW - timedelta(minutes=3)})
    assert len(plan([request(1, "A")], later, newest=row).rows) == 1
    assert len(plan([request(1, "A")], another, newest=row).rows) == 1


def test_two_requests_of_one_holding_in_a_batch_need_one_row():
    done = plan([request(1, "A", "first"), request(1, "A", "second")])
    assert [row.request_id for row in done.rows] == ["first"]
    assert tuple(done.answers) == ("first", "second")
    assert done.answers["first"] == done.answers["second"]


def test_the_row_that_a_killed_worker_wrote_answers_its_request_also_after_a_newer_row():
    (own,) = plan([request(1, "A")], confirmed()).rows
    newest = known(update_id="of another", market_value=1.0)
    for view in (confirmed(), confirmed(market_value=1.0)):
        done = plan([request(1, "A")], view, newest=newest, written={own.update_id})
        assert done.rows == []
        assert tuple(done.answers) == ("r1",)
        assert done.answers == {"r1": Answer(update_id=own.update_id, confirmed_at=None)}


def test_the_row_that_a_killed_worker_wrote_is_confirmed_while_it_is_the_newest():
    (own,) = plan([request(1, "A")], confirmed(), now=NOW - timedelta(minutes=1)).rows
    done = plan(
        [request(1, "A")], confirmed(), newest={("A", 1): own}, written={own.update_id}
    )  # fmt: skip
    assert done.answers == {"r1": Answer(update_id=own.update_id, confirmed_at=NOW)}


@pytest.mark.parametrize("newest", [{}, "own"])
def test_a_holding_that_closed_after_the_row_of_a_killed_worker_gets_its_zero_row(newest):
    """The request of the close is the same one: it was still live."""
    (own,) = plan([request(1, "A")]).rows
    newest = newest and {("A", 1): own}
    closed = replace(COMPLETE, holdings={("A", 1): replace(HOLDINGS[0], position=0.0)})
    later = NOW + timedelta(minutes=1)
    done = plan([request(1, "A")], closed, newest, later, {own.update_id})
    assert [(row.position, row.request_id) for row in done.rows] == [(0.0, "r1")]
    assert done.answers == {"r1": Answer(update_id=own.update_id, confirmed_at=None)}
    # Of a second kill too, the row is found.
    known = {("A", 1): done.rows[0]}
    assert plan([request(1, "A")], closed, known, later, {own.update_id}).rows == []


def test_only_a_request_that_is_older_than_the_newest_row_may_have_a_row_of_its_own():
    since = NOW - timedelta(hours=1)
    before, after = (
        {("A", 1): replace(known()[("A", 1)], timestamp=request(1).created_at + age)}
        for age in (timedelta(minutes=-6), timedelta(seconds=1))
    )
    assert ids_of_earlier_claims([request(1, "A")], COMPLETE, before, since) == []
    assert ids_of_earlier_claims([request(1, "A")], COMPLETE, {}, since) == []
    assert ids_of_earlier_claims([request(1, "A")], COMPLETE, after, since) == [
        plan([request(1, "A")]).rows[0].update_id
    ]
    of_yesterday = replace(request(1, "A"), created_at=NOW - timedelta(days=1))
    assert len(ids_of_earlier_claims([of_yesterday], COMPLETE, {}, since)) == 1


SETTINGS = make_settings(refresh_interval_s=180)


def confirmed_row(conid, *, confirmed_s=None, received_s=0, by=ValueOrigin.NONE):
    confirmed = None
    if confirmed_s is not None:
        confirmed = NOW - timedelta(seconds=confirmed_s)

    return make_holding(
        conid, NOW - timedelta(seconds=received_s), market_price=2.0, market_value=200.0,
        completeness=Completeness.PARTIAL, confirmed_at=confirmed, position_time=NOW,
        value_source=by,
    )  # fmt: skip


HOUR_S = 3600


@pytest.mark.parametrize(
    ("row", "counts"),
    [
        (confirmed_row(1, confirmed_s=379), True),
        (confirmed_row(1, confirmed_s=381), False),
        (confirmed_row(1), False),
        (confirmed_row(1, confirmed_s=-60), True),
        (confirmed_row(1, confirmed_s=-HOUR_S), False),
        (confirmed_row(1, by=ValueOrigin.PNL_SINGLE), True),
        (confirmed_row(1, confirmed_s=HOUR_S, received_s=5, by=ValueOrigin.PNL_SINGLE), True),
        (confirmed_row(1, confirmed_s=HOUR_S, received_s=381, by=ValueOrigin.PNL_SINGLE), False),
        (confirmed_row(1, received_s=-HOUR_S, by=ValueOrigin.PNL_SINGLE), False),
    ],
)
def test_a_holding_is_confirmed_by_a_download_or_by_a_value_of_its_own(row, counts):
    silent = confirmed_row(2, confirmed_s=HOUR_S)
    holdings = unconfirmed([row, silent], SETTINGS, NOW)
    assert holdings == ({silent.key} if counts else {silent.key, row.key})


def test_nothing_of_an_account_that_is_unknown_counts_as_confirmed():
    known = confirmed_row(1, confirmed_s=7)
    doubted = replace(known, completeness=Completeness.UNKNOWN)
    other = confirmed_row(2, confirmed_s=7)
    assert unconfirmed([doubted, other], SETTINGS, NOW) == {doubted.key}
    assert unconfirmed([known, other], SETTINGS, NOW) == frozenset()


def session(state, *, alive=True):
    return GatewaySession(
        gateway_id="g", owner=Owner.STREAM, session_id="s", run_id=None, host="h", pid=1,
        fencing_token=1, started_at=NOW, heartbeat_at=NOW, state=state, state_since=NOW,
        expires_at=NOW + timedelta(seconds=15 if alive else -1), detail="why",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "confirmed_s", "unavailable"),
    [
        (session(SessionState.LIVE), 9999, None),
        (session(SessionState.BLIND), 1, "BLIND since 15:30:00 UTC: why"),
        (session(SessionState.STARTING), 1, "STARTING"),
        (session(SessionState.LIVE, alive=False), 100, None),
        (session(SessionState.LIVE, alive=False), 211, "last confirmed"),
        (session(SessionState.ENDED), None, "have not been downloaded"),
        (None, -60, None),
        (None, -3600, "last confirmed"),
        (None, 100, None),
        (None, None, "have not been downloaded"),
    ],
)
def test_the_brokers_data_is_current_while_the_owner_is_live_or_for_one_interval(
    owner, confirmed_s, unavailable
):
    confirmed = None
    if confirmed_s is not None:
        confirmed = NOW - timedelta(seconds=confirmed_s)

    why = unavailable_reason(owner, confirmed, SETTINGS, NOW)
    assert (why is None) if unavailable is None else (unavailable in why)
