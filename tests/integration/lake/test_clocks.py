"""A clock that was ahead, or was set back: the row that was written last is the newest one."""

from dataclasses import replace
from datetime import timedelta

import pytest

from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.schema import LATEST_POSITIONS, POSITION_UPDATES, update_rows
from position_sync_dagster.lake.storage.commits import write
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.sync.stream.ownership import Ownership
from position_sync_dagster.sync.stream.position_changes import ChangeWatcher, changes_between
from position_sync_dagster.sync.stream.publisher import CLOSED_PUBLISHED
from tests.support.clock import HandClock
from tests.support.derived_rows import put_rows
from tests.support.holdings import make_holding
from tests.support.queues import requests_of
from tests.support.settings import make_settings

YEAR = timedelta(days=365)
HOUR = timedelta(hours=1)
AHEAD = pytest.mark.parametrize("ahead", [YEAR, HOUR], ids=["year", "hour"])


def positions(ledger) -> dict[int, float]:
    return dict(ledger.latest().select("conid", "position").iter_rows())


def resets(ledger) -> list[int]:
    rows = ledger.between(*[HandClock().now + years * YEAR for years in (-1, 3)])
    return rows.sort("ledger_version").get_column("clock_resets").to_list()


@AHEAD
@pytest.mark.in_store
def test_rows_of_a_clock_that_was_ahead_are_no_more_the_newest_once_earlier_ones_are_written(
    open_ledger, home, make_update, clock, ahead
):
    following = open_ledger()
    right = clock.now
    ledger = open_ledger()
    ledger.append([make_update(conid, position=1.0) for conid in (1, 2, 3)])
    clock.now = right + ahead
    ledger.append([make_update(conid, position=2.0) for conid in (1, 2)])
    assert positions(following) == {1: 2.0, 2: 2.0, 3: 1.0}

    known = Table(f"{home}/latest", LATEST_POSITIONS)
    newest = open_ledger().latest().with_columns(confirmed_at="timestamp")
    put_rows(known, newest)
    clock.now = right + timedelta(seconds=60)
    ledger.append([make_update(1, position=3.0)])
    beside_known = PositionUpdatesTable(f"{home}/updates", clock=clock, known=known).sync
    for reader in (following, open_ledger(), beside_known):
        assert positions(reader) == {1: 3.0, 2: 2.0, 3: 1.0}

    clock.advance(1)
    ledger.append([make_update(2, position=4.0)])
    maintain(ledger.table, clean_now=True)
    for reader in (following, open_ledger(), beside_known):
        assert positions(reader) == {1: 3.0, 2: 4.0, 3: 1.0}
    assert open_ledger().as_of(right).get_column("position").to_list() == [1.0, 1.0, 1.0]
    assert open_ledger().as_of(clock.now).get_column("position").to_list() == [3.0, 4.0, 1.0]


def test_a_clock_that_was_set_back_is_counted_once_and_late_rows_stay_late(
    open_ledger, make_update, clock
):
    right = clock.now
    ledger = open_ledger()
    clock.now = right + YEAR
    ledger.append([make_update(1, position=1.0)])
    clock.now = right
    for position in (2.0, 3.0):
        clock.advance(60)
        ledger.append([make_update(1, position=position)])
    late = make_update(1, position=9.0, timestamp=right + timedelta(seconds=90))
    ledger.append([late])
    assert resets(ledger) == [0, 1, 1, 1]
    assert positions(ledger) == positions(open_ledger()) == {1: 3.0}


def test_a_row_that_a_clock_ahead_dated_and_a_right_one_committed_is_the_newest_until_the_next(
    open_ledger, make_update, clock
):
    ledger = open_ledger()
    ledger.append([make_update(1, position=1.0, timestamp=clock.now + YEAR)])
    clock.advance(1)
    ledger.append([make_update(1, position=2.0)])
    assert positions(ledger) == positions(open_ledger()) == {1: 2.0}


def test_of_two_writers_whose_clocks_differ_the_one_that_writes_last_has_the_newest_row(
    open_ledger, make_update, clock
):
    slow = HandClock(clock.now - HOUR)
    here, there = open_ledger(), open_ledger(slow)
    for step in range(4):
        here.append([make_update(1, position=2.0 * step)])
        assert positions(there) == {1: 2.0 * step}
        there.append([make_update(1, position=2.0 * step + 1, timestamp=slow.now)])
        assert positions(here) == {1: 2.0 * step + 1}
        clock.advance(5)
        slow.advance(5)


def test_a_clock_ahead_in_a_ledger_of_an_older_release_is_made_up_for_by_the_next_commit(
    open_ledger, make_update, clock
):
    kept = {n: kind for n, kind in POSITION_UPDATES.described.items() if n != "clock_resets"}
    indexed = tuple(name for name in POSITION_UPDATES.indexed if name != "clock_resets")
    older = replace(
        POSITION_UPDATES, version=POSITION_UPDATES.version - 1, described=kept, indexed=indexed
    )
    ahead = make_update(1, update_id="row-1", timestamp=clock.now + YEAR)
    rows = update_rows([replace(ahead, batch_id="b-1")])
    Table(open_ledger().table.path, older).transact(
        lambda handle: write(handle, rows.drop("clock_resets"), {})
    )
    assert positions(open_ledger()) == {1: 1.0}
    open_ledger().append([make_update(1, position=2.0)])
    assert positions(open_ledger()) == {1: 2.0}


@AHEAD
def test_a_lease_a_back_off_and_a_wait_that_a_clock_ahead_began_hold_nothing_up(lake, clock, ahead):
    queue = lake.queue.sync
    right = clock.now
    clock.now = right + ahead
    leased, failed, waiting = queue.insert_many(requests_of((1, 2, 3)))
    queue.claim_batch(2, lease_s=60.0)
    queue.mark_failed(failed, "no answer")

    clock.now = right
    queue.insert_many([QueueRequest(4, "SPY", priority=1)])
    overview = queue.overview()
    assert (overview.expired, overview.claimable) == (1, 3)
    assert queue.rescue() == [leased]
    claimed = queue.claim_batch(3, lease_s=60.0)
    assert {request.request_id for request in claimed} == {leased, failed, waiting}


def test_a_success_that_a_clock_ahead_dated_is_not_the_last_one(lake, clock):
    queue = lake.queue.sync
    right = clock.now
    clock.now = right + YEAR
    queue.mark_success(queue.insert_many([QueueRequest(1, "SPY")]))
    clock.now = right
    assert queue.overview().last_success_at is None
    queue.mark_success(queue.insert_many([QueueRequest(2, "SPY")]))
    clock.advance(60)
    assert queue.overview().last_success_at == right
    assert queue.counts()[QueueStatus.SUCCESS] == 2


@AHEAD
def test_a_lease_that_a_clock_ahead_took_does_not_keep_the_login(lake, clock, ahead):
    who = dict(lease_s=15.0, run_id=None, host="box", pid=42)
    right = clock.now
    clock.now = right + ahead
    before = lake.sessions.acquire("g", Owner.STREAM, **who)
    clock.now = right
    after = Lake(lake.path, clock=clock).sessions.acquire("g", Owner.STREAM, **who)
    assert after.fencing_token == before.fencing_token + 1
    assert lake.sessions.current("g") == after
    assert after.state_since == right


@AHEAD
def test_a_holding_that_a_clock_ahead_published_is_replaced_by_the_next_one(lake, clock, ahead):
    table = lake.broker_positions
    table.replace("g", [make_holding(1, clock.now + ahead, position=1.0)])
    table.replace("g", [make_holding(1, clock.now, position=2.0)])
    [holding] = table.read("g")
    assert (holding.position, holding.received_at) == (2.0, clock.now)


async def test_a_change_that_was_not_published_is_known_beside_a_time_of_a_clock_ahead(lake, clock):
    settings = make_settings()
    lease = Ownership(lake.sessions, settings, owner=Owner.STREAM, clock=clock)
    login = {"gateway_id": settings.gateway_id}
    other = make_holding(2, clock.now + YEAR, **login)
    before, after = (make_holding(1, clock.now, position=held, **login) for held in (1.0, 0.0))
    published = {holding.key: holding for holding in (before, other)}
    changes = changes_between(published, {after.key: after}, {})
    lake.position_changes.add(changes)

    watcher = ChangeWatcher(lease, lake.position_changes)
    unpublished = await watcher.unpublished(published, CLOSED_PUBLISHED)
    assert [holding.position for holding in unpublished.values()] == [0.0]
