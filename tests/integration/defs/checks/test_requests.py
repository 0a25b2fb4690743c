"""The checks of the queue, over real tables."""

from datetime import UTC, datetime, timedelta

import polars as pl
from deltalake import write_deltalake

from position_sync_dagster.defs.checks.ledger import (
    judge_requests,
    requests_are_answered,
)
from position_sync_dagster.domain.update import Answer
from position_sync_dagster.settings import Settings

ACCOUNT = "DUSIM0001"


def fail(lake, ids) -> None:
    lake.queue.sync.claim_batch(limit=50)
    lake.queue.sync.mark_failed_many(dict.fromkeys(ids, "not held"), retryable=False)


def test_requests_that_wait_for_a_moment_pass(check, lake, enqueue) -> None:
    enqueue(1, 2)
    found = check(requests_are_answered)
    assert found.passed
    assert found.metadata["waiting"].value == 2


def test_a_failed_request_is_named_with_its_error(check, shown, lake, enqueue) -> None:
    fail(lake, enqueue(1))
    found = check(requests_are_answered)
    assert not found.passed
    (row,) = shown(found)
    assert (row["conid"], row["status"], row["error_message"]) == (1, "FAILED", "not held")
    assert "queue retry" in found.metadata["what_to_do"].value


def test_a_failure_counts_until_its_holding_is_valued(
    check, lake, enqueue, append_row, seconds_ago
) -> None:
    fail(lake, enqueue(1))
    append_row(1, seconds_ago(60))
    assert not check(requests_are_answered).passed
    append_row(1, seconds_ago(-1))
    assert check(requests_are_answered).passed


def test_a_failure_counts_until_a_later_request_is_answered_by_an_older_row(
    check, lake, enqueue, append_row, seconds_ago
) -> None:
    append_row(1, seconds_ago(60), update_id="row-1")
    fail(lake, enqueue(1))
    assert not check(requests_are_answered).passed
    (again,) = enqueue(1)
    lake.queue.sync.claim_batch(limit=50)
    lake.queue.sync.mark_success(again, answers={again: Answer(update_id="row-1")})
    assert check(requests_are_answered).passed


def test_a_failure_of_a_closed_holding_or_one_that_is_tried_again_does_not_count(
    check, lake, enqueue, append_row, seconds_ago
) -> None:
    append_row(1, seconds_ago(60), position=0.0)
    again = enqueue(2)
    fail(lake, [*enqueue(1), *again])
    lake.queue.sync.retry(again)
    assert check(requests_are_answered).passed


def test_a_request_that_waits_for_too_long_is_named(check, shown, lake, enqueue, monkeypatch):
    enqueue(1)
    monkeypatch.setattr(Settings, "stale_after_s", 1e-6)
    found = check(requests_are_answered)
    assert not found.passed
    assert [(row["conid"], row["status"]) for row in shown(found)] == [(1, "PENDING")]


def test_twenty_of_many_are_shown_and_all_are_counted(lake, enqueue) -> None:
    enqueue(*range(1, 101))
    now = datetime.now(UTC) + timedelta(hours=1)
    live = lake.queue.table.rows()
    none = live.clear().select("account", "conid", at="updated_at")
    result = judge_requests(
        live.clear(),
        live,
        none,
        foreign=live.clear(),
        now=now,
        old_after=timedelta(minutes=10),
    )
    assert len(result.metadata["rows"].records) == 20
    assert result.metadata["found"].value == 100


def test_a_row_of_another_writer_is_named_and_left_alone(check, lake, enqueue) -> None:
    enqueue(1)
    table = lake.queue.table
    row = table.rows().with_columns(request_id=pl.lit(None, pl.String))
    write_deltalake(table.path, row.to_arrow(), mode="append")
    found = check(requests_are_answered)
    assert not found.passed
    assert found.metadata["foreign"].value == 1
    assert "another Delta writer" in found.metadata["what_to_do"].value
    assert table.rows().height == 2
