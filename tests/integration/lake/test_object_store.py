"""A lake in an object store is whole after every fault."""

import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from position_sync_dagster import errors
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.errors import StoreError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.sync.stream.ownership import Ownership
from tests.support.demo_program import wait_for
from tests.support.empty_lakes import put_tables
from tests.support.extent import EVERYTHING
from tests.support.lake_worker import Worker
from tests.support.object_store import KEY_ID, SECRET, stored_under
from tests.support.queues import requests_of
from tests.support.settings import make_settings
from tests.support.store_proxy import CUT, CUT_AFTER, ERRORS, HANG, TOKEN, Rule

REQUESTS = 6


@pytest.fixture
def lake(store):
    """Return a lake in the store, with some requests."""
    place = store.lake()
    put_tables(place)
    made = Lake(place)
    made.queue.sync.insert_many(requests_of(range(1, REQUESTS + 1)))
    return made


def drained(lake, make_update) -> None:
    """Drain the queue with one batch for each request, and check that each ended once."""
    queue = lake.queue.sync
    updates = lake.updates.sync
    while batch := queue.claim_batch(limit=2, lease_s=600):
        ids = [request.request_id for request in batch]
        rows = [
            make_update(claimed_request.conid, request_id=claimed_request.request_id)
            for claimed_request in batch
        ]
        updates.append(rows)
        queue.mark_success(ids)


def assert_each_once(lake) -> None:
    again = Lake(lake.path)
    assert again.queue.sync.counts()[QueueStatus.SUCCESS] == REQUESTS
    assert sorted(again.updates.table.rows().get_column("conid")) == list(range(1, REQUESTS + 1))


@pytest.mark.parametrize("fault", ["denied", "expired", "bad signature", "region"])
def test_a_refusal_in_the_middle_is_named_and_work_goes_on_after_it(
    store, lake, make_update, fault
):
    [first] = lake.queue.sync.claim_batch(limit=1, lease_s=600)
    store.proxy.fail(Rule(fault))
    for call in (
        lambda: lake.queue.sync.claim_batch(limit=1, lease_s=600),
        lambda: lake.updates.sync.append([make_update(1, request_id=first.request_id)]),
        lambda: lake.updates.sync.latest(),
        lambda: Lake(lake.path).initialize_sync(),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        assert lake.path in caught.value.what
        assert TOKEN not in repr((caught.value, caught.value.__cause__))
    assert all(map(Table.damage, Lake(lake.path).tables))
    store.proxy.fail()
    lake.queue.sync.release([first.request_id])
    drained(lake, make_update)
    assert_each_once(lake)


@pytest.mark.parametrize("fault", ["slow down", "broken", CUT])
def test_passing_faults_of_a_store_are_not_noticed(store, lake, make_update, fault):
    store.proxy.fail(*(Rule(fault, kind, times=2) for kind in ("GET", "PUT", "LIST")))
    drained(lake, make_update)
    assert_each_once(lake)


def test_a_commit_whose_answer_is_lost_counts_once(store, lake, make_update):
    store.proxy.fail(Rule(CUT_AFTER, "PUT", "position_updates/_delta_log", times=1))
    drained(lake, make_update)
    assert_each_once(lake)


def test_a_claim_whose_answer_is_lost_is_granted_once(store, lake):
    store.proxy.fail(Rule(CUT_AFTER, "PUT", "position_queue/_delta_log", times=1))
    [granted] = lake.queue.sync.claim_batch(limit=1, lease_s=600)
    lake.queue.sync.mark_success([granted.request_id])
    left = {QueueStatus.PENDING: REQUESTS - 1, QueueStatus.PROCESSING: 0, QueueStatus.SUCCESS: 1}
    assert left.items() <= lake.queue.sync.counts().items()


def test_an_owner_whose_answer_is_lost_owns_the_login(store, lake):
    store.proxy.fail(Rule(CUT_AFTER, "PUT", "gateway_sessions/_delta_log", times=1))
    session = lake.sessions.acquire(
        "g", Owner.REFRESH, lease_s=600, run_id=None, host="here", pid=1
    )
    assert session == lake.sessions.current("g")
    assert session.fencing_token == 1


def test_a_mark_whose_answer_is_lost_counts_once_and_says_that_the_lease_is_over(
    store, lake, make_update
):
    batch = lake.queue.sync.claim_batch(limit=REQUESTS, lease_s=600)
    lake.updates.sync.append([make_update(r.conid, request_id=r.request_id) for r in batch])
    store.proxy.fail(Rule(CUT_AFTER, "PUT", "position_queue/_delta_log", times=1))
    with pytest.raises(
        errors.LeaseLostError
    ):  # it does not know its own commit: nothing is done twice
        lake.queue.sync.mark_success([request.request_id for request in batch])
    assert_each_once(lake)


def test_missing_credentials_are_named(store, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError):
        Lake(store.lake()).initialize_sync()


def test_no_credential_is_in_a_log_an_error_or_the_store(store, lake, make_update, caplog):
    caplog.set_level(logging.DEBUG)
    drained(lake, make_update)
    lake.maintain()
    said = []
    for fault in ERRORS:
        store.proxy.fail(Rule(fault))
        with pytest.raises(StoreError) as caught:
            Lake(lake.path).queue.sync.counts()
        said.append(repr(caught.getrepr(chain=True)))
    stored = b"\n".join(stored_under(lake.path).values())
    everything = stored + "\n".join([*said, caplog.text]).encode()
    assert len(everything) > 10_000

    for secret in (SECRET, TOKEN, KEY_ID):
        assert secret.encode() not in everything


@pytest.mark.parametrize(
    ("clock_s", "lease_s", "is_stopped"),
    [(0.0, 2.0, True), (-60.0, 50.0, False), (60.0 if EVERYTHING else 5.0, 2.0, False)],
    ids=["stopped", "behind", "ahead"],
)
def test_an_owner_that_was_stopped_or_whose_clock_is_off_never_writes_after_its_successor(
    lake, make_update, clock_s, lease_s, is_stopped
):
    """To the others a lease of another clock has ended before it began; or ends so much later."""
    worker = Worker("write_as_owner", lake.path, clock_s=clock_s, lease_s=lease_s).begin()
    updates = lake.updates.sync
    wait_for("the owner writes", updates.count)
    if is_stopped:
        os.kill(worker.pid, signal.SIGSTOP)
    session = _taken_over(lake)
    updates.table.fence(session.gateway_id, session.fencing_token)
    rows = updates.count()
    if is_stopped:
        os.kill(worker.pid, signal.SIGCONT)
    assert worker.result() == "LeaseLostError"
    assert updates.count() == rows
    own = replace(make_update(2), gateway_id="g", fencing_token=session.fencing_token)
    assert updates.append([own]).rows == 1
    tokens = lake.updates.table.rows().sort("ledger_version")["fencing_token"].to_list()
    assert tokens == sorted(tokens)
    assert set(tokens) == {session.fencing_token - 1, session.fencing_token}


def _taken_over(lake):
    """Acquire the login as soon as the lease of its owner is over."""

    def acquired():
        with suppress(errors.LoginOwnedError):
            return lake.sessions.acquire(
                "g", Owner.STREAM, lease_s=60, run_id=None, host="other", pid=os.getpid()
            )

    return wait_for("the lease of its owner ends", acquired)


def test_keys_of_a_file_that_expire_are_read_again_without_a_new_process(
    store, lake, make_update, monkeypatch, tmp_path
):
    """The keys of a process's environment cannot be renewed from outside; those of a file can."""
    file = tmp_path / "credentials"

    def write(key_id: str) -> None:
        keys = f"aws_access_key_id = {key_id}\naws_secret_access_key = {SECRET}\n"
        file.write_text(f"[default]\n{keys}aws_session_token = {TOKEN}\n")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    write("FIRSTKEY")
    lake = Lake(lake.path)
    assert lake.queue.sync.counts()[QueueStatus.PENDING] == REQUESTS
    lake.updates.sync.append([make_update(1)])
    assert lake.updates.sync.latest().height == 1

    store.proxy.fail(Rule("expired", key_id="FIRSTKEY"))
    for use in (lake.updates.sync.latest, lake.queue.sync.counts):
        with pytest.raises(StoreError, match="ExpiredToken"):
            use()
    write("SECONDKEY")
    lake.updates.sync.append([make_update(2)])
    assert lake.updates.sync.latest().height == 2
    assert lake.queue.sync.counts()[QueueStatus.PENDING] == REQUESTS


async def test_a_store_that_hangs_suspends_an_owner_before_its_lease_ends(store, lake, eventually):
    settings = make_settings(heartbeat_s=0.2, session_lease_s=15.0)
    async with Ownership(lake.open_sessions(), settings, owner=Owner.STREAM) as own:
        store.proxy.fail(Rule(HANG))
        hung_at = time.monotonic()
        await eventually(lambda: own.store_fault is not None)
        # A heartbeat may begin 4 s after the last renewal.
        assert time.monotonic() - hung_at < settings.session_lease_s - 4
        assert not own.lost.is_set()
        store.proxy.fail()
        await eventually(lambda: own.store_fault is None)
        own.check()


COMMITS = 21


def test_a_commit_takes_as_few_requests_after_many_commits(store, make_update, clock):
    updates = Lake(store.lake()).updates.sync
    updates.initialize()
    updates.table.fence("g", 1)
    taken = []
    for number in range(COMMITS):
        row = replace(make_update(number + 1), gateway_id="g", fencing_token=1)
        store.proxy.change()
        updates.append([row])
        taken.append(len(store.proxy.change()))
        clock.advance(1)
    ordered = sorted(taken)
    assert ordered[COMMITS // 2] <= 12, taken
    assert ordered[-1] <= 70, taken  # with a checkpoint, and the table opened anew
