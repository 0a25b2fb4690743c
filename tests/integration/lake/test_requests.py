"""How many requests to the store a commit takes: as many after many commits as after few."""

from dataclasses import replace

import pytest

from position_sync_dagster.domain.gateway_session import Owner, SessionState
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage import table
from tests.support.holdings import make_holding

COMMITS = 30

REQUESTS = 8


@pytest.fixture(autouse=True)
def _without_checkpoints(monkeypatch):
    """Count what a commit itself takes: one of 20 writes a checkpoint as well."""
    monkeypatch.setattr(table, "REMOTE_CHECKPOINT_EVERY", 10 * COMMITS)


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


def test_an_open_table_is_verified_with_one_request(store):
    """A check does so for all tables of the lake, in each stream and each drain."""
    lake = Lake(store.lake())
    table = lake.sessions.table
    lake.sessions.table.initialize()
    table.version()
    store.proxy.change()
    table.verify()
    assert len(store.proxy.change()) == 1


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
