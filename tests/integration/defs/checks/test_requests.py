"""The checks of the queue, over real tables."""

from position_sync_dagster.defs.checks.tables import requests_are_answered
from position_sync_dagster.domain.holding import Answer
from position_sync_dagster.settings import Settings

ACCOUNT = "DUSIM0001"


def fail(lake, ids) -> None:
    lake.queue.sync.claim_batch(limit=50)
    lake.queue.sync.mark_failed_many(dict.fromkeys(ids, "not held"), retryable=False)


def test_requests_that_wait_for_a_moment_pass(check, lake, enqueue):
    enqueue(1, 2)
    found = check(requests_are_answered)
    assert found.passed
    assert found.metadata["waiting"].value == 2


def test_a_failed_request_is_named_with_its_error(check, shown, lake, enqueue):
    fail(lake, enqueue(1))
    found = check(requests_are_answered)
    assert not found.passed
    (row,) = shown(found)
    assert (row["conid"], row["status"], row["error_message"]) == (1, "FAILED", "not held")
    assert "queue retry" in found.metadata["what_to_do"].value


def test_a_failure_counts_until_its_holding_is_valued(
    check, lake, enqueue, append_row, seconds_ago
):
    fail(lake, enqueue(1))
    append_row(1, seconds_ago(60))
    assert not check(requests_are_answered).passed
    append_row(1, seconds_ago(-1))
    assert check(requests_are_answered).passed


def test_a_failure_counts_until_a_later_request_is_answered_by_an_older_row(
    check, lake, enqueue, append_row, seconds_ago
):
    append_row(1, seconds_ago(60), update_id="row-1")
    fail(lake, enqueue(1))
    assert not check(requests_are_answered).passed
    (again,) = enqueue(1)
    lake.queue.sync.claim_batch(limit=50)
    lake.queue.sync.mark_success(again, answers={again: Answer(update_id="row-1")})
    assert check(requests_are_answered).passed


def test_a_failure_of_a_closed_holding_or_one_that_is_tried_again_does_not_count(
    check, lake, enqueue, append_row, seconds_ago
):
    append_row(1, seconds_ago(60), position=0.0)
    again = enqueue(2)
    fail(lake, [*enqueue(1), *again])
    lake.queue.sync.retry(again)
    assert check(requests_are_answered).passed


def test_requests_that_wait_for_too_long_are_counted_and_twenty_are_shown(
    check, shown, lake, enqueue, monkeypatch
):
    enqueue(*range(1, 101))
    monkeypatch.setattr(Settings, "stale_after_s", 1e-6)
    found = check(requests_are_answered)
    assert not found.passed
    assert {row["status"] for row in shown(found)} == {"PENDING"}
    assert (len(shown(found)), found.metadata["found"].value) == (20, 100)
