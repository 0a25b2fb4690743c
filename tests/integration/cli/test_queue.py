"""The commands `queue …`, on a real queue."""

import json
import re
from functools import partial
from typing import Any

import pytest

from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.lake.position_queue import SyncQueue
from position_sync_dagster.money.lake import MoneyLake
from tests.support import command_line

ACCOUNT = "DUSIM0001"
FAILED = QueueStatus.FAILED
PENDING = QueueStatus.PENDING
ERROR = "No value of 911 came.\x1b[2J\n  second line\x9b31m"


@pytest.fixture
def queue(lake: MoneyLake) -> SyncQueue:
    return lake.queue.sync


def insert(queue, *conids):
    """Insert requests, for even conids with priority 1 and for odd ones with 2."""
    return queue.insert_many(QueueRequest(c, "SPY", 1 + c % 2, ACCOUNT) for c in conids)


def fail(queue, *conids, error=ERROR):
    ids = insert(queue, *conids)
    queue.mark_failed_many(dict.fromkeys(ids, error), retryable=False)
    return ids


run = partial(command_line.run, "queue")


def state(queue):
    return {
        request.request_id: (request.status, request.attempts)
        for status in QueueStatus
        for request in queue.get_batch(None, 100, status)
    }


@pytest.mark.parametrize("name", [[], ["list"]])
def test_the_queue_shows_counts_and_the_oldest_pending_age(queue, name):
    assert json.loads(run("--json"))["oldest_pending_age_s"] is None
    assert run("--status", "FAILED").splitlines()[-1] == "No request is FAILED."
    fail(queue, 1, 2)
    insert(queue, 3)
    printed = json.loads(run(*name, "--json"))
    assert printed["counts"] == {"PENDING": 1, "PROCESSING": 0, "SUCCESS": 0, "FAILED": 2}
    assert 0 <= printed["oldest_pending_age_s"] < 60
    assert printed["status"] is None
    assert printed["requests"] is None
    shown = [line.split() for line in run(*name).splitlines()]
    assert ["failed", "2"] in shown
    assert [line[:2] for line in shown][-1] == ["oldest", "pending"]


def test_requests_of_each_status_are_shown(queue):
    [failed] = fail(queue, 1)
    done, waiting, claimed = insert(queue, 2, 3, 4)
    queue.mark_success(done)
    queue.claim_batch(limit=1)
    ids = (waiting, claimed, done, failed)
    for status, request_id in zip(QueueStatus, ids, strict=True):
        [printed] = json.loads(run("--status", status, "--json"))["requests"]
        assert printed["request_id"] == request_id
        assert printed["status"] == status
        assert request_id in run("--status", status.lower())
        assert "lease_token" not in printed


def test_json_has_a_whole_request_and_the_table_one_line(queue):
    [failed] = fail(queue, 911)
    text = run("--status", "FAILED", "--json")
    [printed] = json.loads(text)["requests"]
    assert printed["error_message"] == ERROR
    assert printed["account"] == ACCOUNT
    assert printed["conid"] == 911
    assert printed["symbol"] == "SPY"
    assert printed["priority"] == 2
    assert printed["attempts"] == 1
    assert printed["age_s"] >= 0

    shown = run("--status", "FAILED")
    heading, row = shown.splitlines()[-2:]
    assert heading.startswith("request id")
    assert row.split()[:6] == [failed, ACCOUNT, "911", "SPY", "2", "1"]
    assert "No value of 911 came.\\x1b[2J" in row
    assert not [char for char in text + shown if not char.isprintable() and char != "\n"]


def test_no_more_than_the_limit_is_shown_and_the_rest_is_counted(queue):
    fail(queue, *range(1, 4))
    assert len(json.loads(run("--status", "FAILED", "--limit", "2", "--json"))["requests"]) == 2
    shown = run("--status", "FAILED", "--limit", "2")
    assert "2 of 3 are shown" in shown
    assert "are shown" not in run("--status", "FAILED")


def test_each_attempt_is_shown_with_its_worker_and_error(queue):
    [request_id] = insert(queue, 1)
    queue.claim_batch(owner="mine")
    queue.mark_failed(request_id, ERROR)
    [shown] = json.loads(run("attempts", request_id[:20], "--json"))
    assert shown["worker"] == "mine"
    assert shown["outcome"] == "FAILED"
    assert shown["error"] == ERROR
    assert shown["began_at"] <= shown["ended_at"]
    assert "mine" in run("attempts")


def test_attempts_of_a_request_that_is_not_there_are_an_error_that_says_where_ids_are(
    queue, refuse
):
    [waiting] = insert(queue, 1)
    assert run("attempts", waiting).strip() == "No request was processed."
    code, printed = refuse("queue", "attempts", "zzz")
    assert code == 2
    assert "begins with 'zzz'" in printed
    assert "queue attempts" in printed


def test_a_request_with_a_live_one_for_its_position_stays_failed(queue):
    one, other = fail(queue, 1, 2)
    [live] = insert(queue, 1)
    first, second = json.loads(run("retry", one, other, one, "--json"))
    assert first == {"request_id": one, "stands_for_it": live, "put_back": False}
    assert second == {"request_id": other, "stands_for_it": other, "put_back": True}
    assert run("retry", one).splitlines()[-1].split() == [one, "no", live]
    assert state(queue) == {one: (FAILED, 1), other: (PENDING, 0), live: (PENDING, 0)}


def test_all_failed_requests_are_retried_in_one_commit(queue):
    ids = fail(queue, *range(1, 61))
    version = queue.overview().version
    printed = json.loads(run("retry", "--all", "--json"))
    assert {row["request_id"]: row["stands_for_it"] for row in printed} == dict(
        zip(ids, ids, strict=True)
    )
    assert queue.counts() == {**dict.fromkeys(QueueStatus, 0), PENDING: 60}
    assert queue.overview().version == version + 1
    assert run("retry", "--all") == "No request is FAILED.\n"
    assert json.loads(run("retry", "--all", "--json")) == []


def test_retry_all_skips_a_request_that_another_program_put_back(queue, monkeypatch):
    ids = fail(queue, 1, 2, 3)
    read = SyncQueue.get_batch
    overtaken: list[Any] = []

    def read_then_lose_one(self, *arguments):
        read_rows = read(self, *arguments)
        if not overtaken:
            overtaken.extend(queue.retry(ids[0]))
        return read_rows

    monkeypatch.setattr(SyncQueue, "get_batch", read_then_lose_one)
    printed = json.loads(run("retry", "--all", "--json"))
    assert overtaken == [ids[0]]
    assert {row["request_id"] for row in printed} == set(ids[1:])
    assert queue.counts()[PENDING] == 3


def test_an_id_that_is_unknown_or_did_not_fail_is_named_and_nothing_is_changed(queue, refuse):
    [failed] = fail(queue, 1)
    [pending, done] = insert(queue, 2, 3)
    queue.mark_success(done)
    before = state(queue)
    named = {
        "01890000-0000-7000-8000-000000000000": "0189000(.|\n)*--status FAILED",
        "'; DROP\x1b[2J": "'; DROP(.|\n)*--status FAILED",
        pending: f"{pending} is PENDING",
        done: f"{done} is SUCCESS",
    }
    for request_id, text in named.items():
        code, printed = refuse("queue", "retry", failed, request_id)
        assert code == 2
        assert re.search(text, printed)
        assert "\x1b" not in printed
    assert state(queue) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["retry"], "--all"),
        (["retry", "some-id", "--all"], "--all"),
        (["bogus"], "bogus"),
        (["--json", "retry", "--all"], ""),
        (["--status", "LOST"], "LOST"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_unknown_commands_and_values_are_refused_by_name(queue, refuse, arguments, named):
    [failed] = fail(queue, 1)
    code, printed = refuse("queue", *arguments)
    assert code == 2
    assert named in printed
    assert state(queue) == {failed: (FAILED, 1)}
