"""Rows, records and events are compared in all directions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from position_sync_dagster.domain.gateway_session import RecordedBy, RunRecord, RunResult
from position_sync_dagster.sync.audit import EVENT_COLUMNS, Events, FindingKind, compare

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
AT = NOW - timedelta(hours=1)
GRACE = timedelta(minutes=2)
RUN = "run-1"

COMMIT = {
    "run_id": RUN,
    "ledger_version": 11,
    "batch_id": "b1",
    "rows": 2,
    "committed_at": AT,
    "gateway_id": "host:1",
    "session_id": "session-1",
    "source": "STREAM",
}
COMMITS = (COMMIT, COMMIT | {"ledger_version": 13, "batch_id": "b2", "rows": 3})
COLUMNS = {
    "ledger_version": pl.Int64,
    "rows": pl.Int64,
    "committed_at": pl.Datetime("us", "UTC"),
}
RECORD = RunRecord(
    run_id=RUN,
    step="stream_legs",
    job="stream_positions",
    result=RunResult.SUCCESS,
    started_at=AT,
    ended_at=AT,
    recorded_at=AT,
    table_name="position_updates",
    rows=5,
)
EVENT = {"run_id": RUN, "rows": 5, "version_from": 10, "version_to": 13, "at": AT}


def found(commits=COMMITS, records=(RECORD,), events=(EVENT,), *, runs=None, alive=(), **more):
    known = None
    if events is not None:
        kept_since = more.pop("kept_since", NOW - timedelta(days=14))
        named = pl.DataFrame(list(events), EVENT_COLUMNS)
        known = Events(named=named, runs=runs or {}, kept_since=kept_since)
    schema = dict.fromkeys(COMMIT, pl.String) | COLUMNS
    rows = pl.DataFrame(list(commits), schema)
    return compare(rows, records, known, now=NOW, grace=GRACE, alive=alive, **more)


def kinds(*args, **more):
    return [(one.kind, one.rows) for one in found(*args, **more)]


def test_a_run_whose_rows_record_and_events_agree_is_no_finding():
    assert found() == []


def test_rows_without_a_record_are_found_and_the_record_is_rebuilt_from_them():
    (one,) = found(records=())
    assert (one.kind, one.rows) == (FindingKind.RECORD_MISSING, 5)
    record = one.record
    assert (record.result, record.recorded_by) == (RunResult.LOST, RecordedBy.AUDIT)
    assert (record.rows, record.commits, record.version_from, record.version_to) == (5, 2, 10, 13)
    assert (record.first_batch_id, record.last_batch_id) == ("b1", "b2")
    assert (record.job, record.ended_at, record.claimed) == (None, None, None)


def test_what_dagster_knows_of_a_run_is_in_its_rebuilt_record():
    known = replace(RECORD, ended_at=NOW, result=RunResult.FAILED)
    (one,) = found(records=(), runs={RUN: known})
    assert (one.record.job, one.record.ended_at) == ("stream_positions", NOW)
    assert one.record.result is RunResult.FAILED


def test_a_record_that_says_less_than_the_rows_is_brought_up_to_them():
    (one,) = found(records=[replace(RECORD, rows=2, result=RunResult.FAILED, reason="why")])
    assert (one.kind, one.rows) == (FindingKind.RECORD_BEHIND, 3)
    assert (one.record.rows, one.record.result, one.record.reason) == (5, RunResult.FAILED, "why")


def test_a_record_that_still_says_running_after_the_end_is_lost():
    running = replace(RECORD, result=RunResult.RUNNING, ended_at=None)
    (one,) = found(records=[running])
    assert (one.kind, one.record.result) == (FindingKind.RECORD_BEHIND, RunResult.LOST)


def test_rows_that_no_event_names_are_found_with_their_versions():
    (one,) = found(events=[EVENT | {"rows": 2, "version_to": 12}])
    assert (one.kind, one.rows) == (FindingKind.EVENT_MISSING, 3)
    assert (one.version_from, one.version_to) == (12, 13)


def test_events_that_overlap_name_each_row_once():
    assert found(events=[EVENT, EVENT | {"rows": 2, "version_to": 11}]) == []


@pytest.mark.parametrize("commits", [(), COMMITS[:1]])
def test_rows_that_a_record_and_an_event_name_and_the_ledger_lacks_cannot_be_mended(commits):
    lost = 5 if not commits else 3
    assert kinds(commits) == [(FindingKind.ROWS_MISSING, lost)] * 2
    assert not any(one.repairable for one in found(commits))


def test_an_event_without_rows_of_a_run_without_a_record_is_no_finding():
    assert found(commits=(), records=(), events=[EVENT | {"rows": 0, "version_from": None}]) == []


def test_rows_of_another_run_are_in_no_event_of_this_one():
    other = replace(RECORD, run_id="run-2", rows=0)
    assert kinds(records=[RECORD, other], events=[EVENT | {"run_id": "run-2"}]) == [
        (FindingKind.EVENT_MISSING, 5),
        (FindingKind.ROWS_MISSING, 5),
    ]


def test_events_that_were_deleted_by_their_age_are_not_missing():
    assert kinds(events=()) == [(FindingKind.EVENT_MISSING, 5)]
    assert found(events=(), kept_since=NOW) == []
    assert kinds(events=(), kept_since=AT) == [(FindingKind.EVENT_MISSING, 5)]


def test_of_a_run_that_went_on_afterwards_no_event_was_deleted_by_its_age():
    long_ago = {"committed_at": AT - timedelta(days=20)}
    commits = [
        COMMITS[0] | long_ago,
        COMMITS[1],
        COMMIT | long_ago | {"run_id": "run-0", "ledger_version": 1, "rows": 5},
    ]
    records = [RECORD, replace(RECORD, run_id="run-0")]
    (one,) = found(commits, records, events=())
    assert (one.kind, one.run_id, one.rows) == (FindingKind.EVENT_MISSING, RUN, 5)


def test_events_of_a_run_that_dagster_still_knows_are_missing_at_any_age():
    ended = RECORD
    missing = kinds(events=(), kept_since=NOW, runs={RUN: ended})
    assert missing == [(FindingKind.EVENT_MISSING, 5)]


def test_without_events_rows_and_records_are_compared():
    assert found(events=None) == []
    assert kinds(records=(), events=None) == [(FindingKind.RECORD_MISSING, 5)]


def test_a_run_in_progress_is_not_judged():
    assert found(records=(), events=(), alive={RUN}) == []
    assert found([COMMIT | {"committed_at": NOW - GRACE / 2}], (), ()) == []


def test_a_record_of_another_table_says_nothing_about_the_ledger():
    derived = replace(RECORD, table_name="latest_positions", rows=200)
    assert found(commits=(), records=[derived], events=()) == []


def test_what_a_repair_wrote_is_no_finding_and_no_sign_of_life():
    (one,) = found(records=())
    assert found(records=[one.record]) == []
    (missing,) = found(events=())
    assert found(events=[{name: getattr(missing, name, AT) for name in EVENT}]) == []


def test_rows_of_older_releases_without_a_version_are_in_no_range_and_not_missing():
    assert found([COMMIT | {"ledger_version": None, "rows": 5}], events=()) == []
