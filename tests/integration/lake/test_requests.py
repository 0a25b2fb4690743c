"""How many requests to the store a commit takes: as many after many commits as after few."""

import threading
import time
from dataclasses import fields, replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from deltalake import DeltaTable

from position_sync_dagster.domain.closures import PositionChange
from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.domain.update import QueueRequest
from position_sync_dagster.lake import broker_positions, inspection
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage import maintenance, table
from position_sync_dagster.lake.storage.table import append
from tests.support.contracts import contract_details
from tests.support.holdings import make_holding

COMMITS = 30

REQUESTS = 8


@pytest.fixture(autouse=True)
def _without_checkpoints(monkeypatch):
    """Count what a commit itself takes: one of ten writes a checkpoint as well."""
    monkeypatch.setattr(table, "CHECKPOINT_EVERY", 10 * COMMITS)


def test_an_append_of_an_owner_takes_as_few_requests_after_many_commits(store, make_update, clock):
    lake = Lake(store.lake())
    updates = lake.updates.sync
    updates.initialize()
    updates.fence("g", 1)
    taken = []
    for number in range(COMMITS):
        row = replace(make_update(number + 1), gateway_id="g", fencing_token=1)
        store.proxy.change()
        updates.append([row])
        taken.append(len(store.proxy.change()))
        clock.advance(1)
    assert max(taken[1:]) <= REQUESTS, taken


def test_an_owner_publishes_with_as_few_requests_after_many_commits(store, clock):
    lake = Lake(store.lake())
    lake.sessions.table.initialize()
    session = lake.sessions.acquire("g", Owner.STREAM, lease_s=600, run_id=None, host="here", pid=1)
    session = lake.sessions.renew(session, lease_s=600, state=SessionState.LIVE)
    positions = lake.broker_positions
    positions.table.initialize()
    positions.replace("g", [make_holding(conid, clock.now) for conid in range(1, 100)], session)
    taken = []
    for number in range(COMMITS):
        changed = make_holding(7, clock.now, position=float(number + 1))
        store.proxy.change()
        version = positions.update("g", [changed], session, accounts={})
        taken.append(len(store.proxy.change()))
        assert version is not None
    assert sorted(taken)[COMMITS // 2] <= REQUESTS, taken


def test_an_open_table_is_verified_with_one_request_and_one_that_was_just_used_with_none(
    store, monkeypatch
):
    """A check does so for all tables of the lake, in each stream and each drain."""
    lake = Lake(store.lake())
    sessions = lake.sessions.table
    sessions.initialize()
    sessions.version()
    store.proxy.change()
    sessions.verify()
    assert not store.proxy.change()
    monkeypatch.setattr(table, "LOOKED_S", 0.0)
    sessions.verify()
    assert len(store.proxy.change()) == 1


def test_a_table_that_is_in_use_is_not_opened_anew_for_minutes(store, monkeypatch):
    now = [0.0]
    clocks = SimpleNamespace(monotonic=lambda: now[0], clock_gettime=time.clock_gettime)
    monkeypatch.setattr(table, "time", clocks)
    queue = Lake(store.lake()).queue
    queue.sync.initialize()

    def taken_after(seconds: float) -> int:
        now[0] += seconds
        store.proxy.change()
        queue.table.version()
        return len(store.proxy.change())

    assert [taken_after(100) for _ in range(10)] == [1] * 10
    assert taken_after(table.UNUSED_S + 1) > 1
    assert [taken_after(200) for _ in range(7)].count(1) == 6


def test_a_change_that_commits_looks_for_no_newer_version_first(store, make_update):
    lake = Lake(store.lake())
    updates = lake.updates.sync
    for conid in (1, 2):  # the first rows are two commits, as if another writer had been there
        updates.append([make_update(conid)])
    store.proxy.change()
    updates.append([make_update(3)])
    assert store.proxy.counts()["LIST"] == 2
    Lake(lake.path).updates.sync.append([make_update(4)])
    assert updates.append([make_update(5)]).rows == 1
    assert updates.latest().get_column("ledger_version").n_unique() == 5


def test_a_change_that_commits_nothing_is_decided_by_the_newest_rows(store):
    """Without a commit, Delta does not refuse what was decided by older ones."""
    lake = Lake(store.lake())
    queue = lake.queue.sync
    queue.initialize()
    assert queue.claim_batch() == []
    Lake(lake.path).queue.sync.insert(1, "SPY")
    assert [one.conid for one in queue.claim_batch()] == [1]


def test_a_change_that_is_refused_is_decided_by_the_newest_rows(store):
    lake = Lake(store.lake())
    registry = lake.registry.sync
    registry.initialize()
    registry.refresh()
    Lake(lake.path).registry.sync.add_active(7, "SPY", strategy_id="one")
    registry.remove_active(7, strategy_id="one")
    assert registry.get_all_active() == []


def test_owners_that_commit_in_turns_look_once_for_what_the_others_did(store):
    """Each commit reads that of the other: list, and read it for its facts and for its files."""
    uri = store.lake()
    lakes = [Lake(uri), Lake(uri)]
    lakes[0].sessions.table.initialize()
    who = {"lease_s": 600, "run_id": None, "host": "here", "pid": 1}
    sessions = [lake.sessions for lake in lakes]
    own = [s.acquire(f"g:{n}", Owner.STREAM, **who) for n, s in enumerate(sessions)]
    taken = []
    for number in range(COMMITS):
        turn = number % 2
        store.proxy.change()
        own[turn] = sessions[turn].renew(own[turn], lease_s=600)
        taken.append(len(store.proxy.change()))
    assert sorted(taken)[COMMITS // 2] <= REQUESTS + 1, taken


def test_the_sessions_of_all_logins_take_one_request_for_each_that_changed(store):
    """The sensors ask each 5 s, for forty logins as for one."""
    uri = store.lake()
    sessions, reader = Lake(uri).sessions, Lake(uri).sessions
    sessions.table.initialize()
    who = {"lease_s": 600, "run_id": None, "host": "here", "pid": 1}
    own = {name: sessions.acquire(name, Owner.STREAM, **who) for name in ("a", "b", "c", "d")}
    assert reader.current_of(own) == own
    store.proxy.change()
    assert reader.current_of(own) == own
    assert len(store.proxy.change()) == 1
    for name in ("b", "d"):
        own[name] = sessions.renew(own[name], lease_s=600)
    store.proxy.change()
    assert reader.current_of([*own, "never"]) == own
    read = [one for one in store.proxy.change() if ".parquet" in one.path]
    assert [one.kind for one in read] == ["GET"] * 2


def _change(conid: int, at: datetime) -> PositionChange:
    unknown = dict.fromkeys(field.name for field in fields(PositionChange))
    return PositionChange(**unknown | {"change_id": str(conid), "conid": conid, "seen_at": at})


def _reads(store) -> int:
    """Return how many requests for data files there were since the last question."""
    return sum(".parquet" in one.path and one.kind == "GET" for one in store.proxy.change())


def test_checks_look_once_for_newer_versions_of_a_table_and_commits_look_as_always(store):
    uri = store.lake()
    other, lake = Lake(uri).queue.sync, Lake(uri)
    other.insert(1, "SPY")
    assert lake.queue.sync.overview().claimable == 1
    seen = set[int]()
    with lake.looked_at_once(seen):
        lake.queue.sync.overview()
        other.insert(2, "SPY")
        store.proxy.change()
        assert lake.queue.sync.overview().claimable == 1
    with lake.looked_at_once(seen):
        assert lake.queue.sync.overview().claimable == 1
        assert not store.proxy.change()
        assert len(lake.queue.sync.claim_batch()) == 2
    assert other.insert(3, "SPY")
    assert lake.queue.sync.overview().claimable == 1


async def test_what_a_check_offloads_looks_once_too(store):
    lake = Lake(store.lake())
    with lake.looked_at_once():
        await lake.queue.overview()
        store.proxy.change()
        await lake.queue.overview()
    assert not store.proxy.change()


def test_a_table_that_was_just_opened_is_not_looked_at_again(store):
    uri = store.lake()
    Lake(uri).queue.sync.initialize()
    store.proxy.change()
    Lake(uri).queue.table.version()
    assert store.proxy.counts()["LIST"] == 1


def test_a_small_file_of_the_ledger_is_read_once_by_a_process(store, make_update, clock):
    uri = store.lake()
    for number in range(5):
        Lake(uri).updates.sync.append([make_update(number + 1)])
    updates = Lake(uri).updates.sync
    since = clock.now - timedelta(days=1)
    store.proxy.change()
    assert updates.latest().height == len(updates.newest_of(range(1, 6), since).rows) == 5
    assert updates.latest_since(since).height == updates.between(since, clock.now).height == 5
    assert _reads(store) == 5


def test_the_search_for_repeated_ids_reads_merged_files_and_those_whose_ids_overlap(
    store, make_update, clock, monkeypatch
):
    monkeypatch.setattr(maintenance, "COMPACT_FROM", 4)
    lake, ids = Lake(store.lake()), [f"id-{number}" for number in range(10)]
    for number in (0, 1, 2, 3):
        lake.updates.sync.append([make_update(number, update_id=ids[number])])
    since, until = clock.now - timedelta(days=1), clock.now + timedelta(days=1)

    def repeated() -> list[str]:
        return (
            inspection.repeated_ids(Lake(lake.path), since, until).get_column("update_id").to_list()
        )

    store.proxy.change()
    assert (repeated(), _reads(store)) == ([], 0)
    lake.updates.sync.append([make_update(n, update_id=ids[n]) for n in (5, 8)])
    lake.updates.sync.append([make_update(7, update_id=ids[7])])
    store.proxy.change()
    assert (repeated(), _reads(store)) == ([], 2)
    rows = lake.updates.table.rows()
    append(DeltaTable(lake.updates.table.path), rows.filter(conid=7), {})
    assert repeated() == [ids[7]]
    assert maintenance.compact(lake.updates.table, maintenance.WRITER_SMALL_BYTES) == 7
    store.proxy.change()
    assert (repeated(), _reads(store)) == ([ids[7]], 1)


def test_rows_that_are_read_whole_take_one_request_for_each_file(store, clock):
    lake = Lake(store.lake())
    for conid in (1, 2, 3):
        lake.contracts.put([contract_details(conid, price_magnifier=100)])
        lake.position_changes.add([_change(conid, clock.now)])
        lake.queue.sync.insert(conid, "SPY")
    fresh = Lake(lake.path)
    store.proxy.change()
    assert set(fresh.contracts.get([1, 3])) == {1, 3}
    assert set(fresh.contracts.quoted_in_cents()) == {1, 2, 3}
    assert _reads(store) == 6
    assert len(fresh.position_changes.records()) == 3
    assert _reads(store) == 3
    assert fresh.queue.sync.overview().claimable == 3
    assert _reads(store) <= 2


def test_records_are_compared_with_those_in_files_that_may_have_them(store, clock):
    lake = Lake(store.lake())
    for conid in range(1, 9):
        lake.position_changes.add([_change(conid, clock.now)])
        clock.advance(1)
    store.proxy.change()
    moment = clock.now - timedelta(seconds=1)
    assert lake.position_changes.add([_change(8, moment)]) == 0
    assert _reads(store) == 2  # once more after a look: nothing was committed
    assert lake.position_changes.add([_change(9, clock.now)]) == 1
    assert _reads(store) == 0
    assert lake.position_changes.add([_change(9, clock.now), _change(1, moment)]) == 0


def test_a_merge_reads_each_file_with_one_request_and_delta_rs_that_of_a_time_again(
    store, make_update, monkeypatch
):
    """Delta-rs replaces rows by a range of times, and reads their files for it: three each."""
    monkeypatch.setattr(maintenance, "COMPACT_FROM", 4)
    lake = Lake(store.lake())
    for number in range(1, 6):
        lake.updates.sync.append([make_update(number)])
        (claim,) = lake.queue.sync.insert_many([QueueRequest(number, "SPY")])
        lake.queue.sync.mark_failed(claim, "no", retryable=False)
    for one, each in ((lake.queue.table, 1), (lake.updates.table, 4)):
        store.proxy.change()
        assert maintenance.compact(one, maintenance.WRITER_SMALL_BYTES) == 5
        assert _reads(store) == 5 * each
    assert lake.updates.sync.latest().height == 5


def test_a_fold_of_the_holdings_takes_one_request_for_each_file(store, clock, monkeypatch):
    monkeypatch.setattr(broker_positions, "FOLD_FILES", 4)
    positions = Lake(store.lake()).broker_positions
    positions.replace("a:1", [make_holding(conid, clock.now) for conid in range(1, 9)])
    for number in range(4):
        store.proxy.change()
        changed = make_holding(7, clock.now, position=float(number))
        assert positions.update("a:1", [changed], accounts={}) is not None
    assert _reads(store) == 4
    assert [one.position for one in positions.read("a:1") if one.instrument.conid == 7] == [3.0]
    assert len(positions.read("a:1")) == 8


async def test_in_an_object_store_no_commit_waits_for_a_checkpoint(store, monkeypatch, eventually):
    monkeypatch.setattr(table, "CHECKPOINT_EVERY", 2)
    go_on, written = threading.Event(), []

    def slow(self, handle) -> None:
        assert go_on.wait(60)
        written.append(handle.version())

    monkeypatch.setattr(table.Table, "checkpoint", slow)
    queue = Lake(store.lake()).queue.sync
    for conid in (1, 2, 3):
        queue.insert(conid, "SPY")
    assert not written
    go_on.set()
    await eventually(lambda: len(written) == 1)


async def test_a_run_opens_its_tables_ahead_and_creates_no_derived_table(store, eventually):
    lake = Lake(store.lake())
    lake.open_ahead()
    await eventually(lambda: all(Lake(lake.path).tables[n].exists() for n in range(13)))
    assert not any(one.exists() for one in Lake(lake.path).derived_tables)
    lake.queue.sync.insert(1, "SPY")
    fresh = Lake(lake.path)
    fresh.open_ahead()
    assert fresh.queue.sync.overview().claimable == 1


async def test_a_reader_opens_ahead_the_tables_that_are_there_and_creates_none(store, eventually):
    lake = Lake(store.lake())
    lake.queue.sync.insert(1, "SPY")
    reader = Lake(lake.path)
    reader.read_ahead()
    await eventually(lambda: reader.queue.table._handle.is_open)
    assert [one.spec.name for one in Lake(lake.path).tables if one.exists()] == ["position_queue"]
