"""Each run of Dagster leaves a record in the table `runs` that says what its event says."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from position_sync_dagster.defs.assets.latest_positions import latest_positions
from position_sync_dagster.defs.assets.position_queue import position_queue
from position_sync_dagster.defs.assets.position_updates import position_updates
from position_sync_dagster.defs.maintenance import delete_run, maintain_lake
from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.defs.runs import columns_of_event
from position_sync_dagster.defs.stream import STREAM_JOB
from position_sync_dagster.domain.gateway_session import RecordedBy, RunResult
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.sync import run_recorder
from position_sync_dagster.sync.audit import trace


def test_a_drain_is_recorded_in_one_commit_with_the_counts_of_its_event(
    lake: Lake, materialize, own_login, write_holdings, enqueue
) -> None:
    write_holdings(own_login(), 1, 2)
    enqueue(1, 2, 3)
    before = lake.runs.table.version()
    result = materialize(position_updates)
    assert lake.runs.table.version() == before + 1
    (record,) = lake.runs.get(result.run_id)
    (event,) = result.asset_materializations_for_node("position_updates")
    assert (record.step, record.result) == ("position_updates", RunResult.SUCCESS)
    assert (record.rows, record.commits) == (2, 1)
    assert (record.claimed, record.succeeded, record.failed, record.released) == (3, 2, 1, 0)
    assert record.version_to == event.metadata["delta_version"].value
    assert record.version_from == event.metadata["delta_version_from"].value
    assert record.first_batch_id == record.last_batch_id
    assert record.last_batch_id == event.metadata["last_batch_id"].value
    rows = lake.updates.table.rows(columns=["run_id", "ledger_version", "batch_id"])
    assert rows.unique().rows() == [(result.run_id, record.version_to, record.last_batch_id)]
    assert record.started_at <= record.ended_at


def test_a_failed_run_is_recorded_with_its_reason(lake: Lake, materialize) -> None:
    result = materialize(position_queue)  # nothing listens at the port
    assert not result.success
    (record,) = lake.runs.get(result.run_id)
    assert (record.step, record.result) == ("position_queue", RunResult.FAILED)
    assert "127.0.0.1:1" in record.reason


def test_a_derived_table_is_recorded_with_its_rows_and_version(
    lake: Lake, materialize, append_row, seconds_ago
) -> None:
    append_row(1, seconds_ago(1))
    first, second = materialize(latest_positions), materialize(latest_positions)
    records = [lake.runs.get(one.run_id)[0] for one in (first, second)]
    assert [(r.table_name, r.rows, r.commits) for r in records] == [
        ("latest_positions", 1, 1),
        ("latest_positions", 1, 0),
    ]


def test_maintenance_is_recorded_step_by_step(lake: Lake, instance) -> None:
    result = maintain_lake.execute_in_process(
        instance=instance, resources={"position_sync": POSITION_SYNC}
    )
    records = lake.runs.get(result.run_id)
    assert {(r.job, r.step, r.result) for r in records} == {
        ("maintain_lake", "maintain_tables", RunResult.SUCCESS),
        ("maintain_lake", "forget_old_runs", RunResult.SUCCESS),
    }


def test_a_run_is_known_when_dagster_has_forgotten_it(
    lake: Lake, instance, materialize, own_login, write_holdings, enqueue
) -> None:
    write_holdings(own_login(), 1)
    enqueue(1)
    run_id = materialize(position_updates).run_id
    delete_run(instance, run_id)
    assert instance.get_run_by_id(run_id) is None
    found = trace(lake, run_id, limit=10)
    assert (found.row_count, found.runs[0].recorded_by) == (1, RecordedBy.RUN)


def test_a_run_that_cannot_be_recorded_does_not_fail(lake: Lake, caplog) -> None:
    class Full:
        table = lake.runs.table

        def record(self, records):
            from position_sync_dagster.errors import LakeNotWritableError

            raise LakeNotWritableError("The disk is full.", remedy="Make room.")

    with run_recorder.RunRecorder(Full(), run_id="run-1", job=None, step="step"):
        pass
    assert "run run-1 is not recorded" in caplog.text


def test_metadata_with_a_prefix_is_read_without_it() -> None:
    metadata = {"drain/rows": dg.MetadataValue.int(3), "drain/note": dg.MetadataValue.text("")}
    assert columns_of_event(metadata) == {"rows": 3}


def test_the_stream_records_itself_under_the_name_of_its_job() -> None:
    assert run_recorder.STREAM_JOB == STREAM_JOB


def test_the_newest_record_of_a_step_counts_and_ids_are_found_by_their_beginning(
    lake: Lake, monkeypatch
) -> None:
    now = datetime.now(UTC)
    times = iter(now + timedelta(seconds=n) for n in range(9))
    monkeypatch.setattr(run_recorder, "utc_now", lambda: next(times))
    recorder = run_recorder.RunRecorder(lake.runs, run_id="abc-1", job="job", step="step")
    recorder.write()
    with recorder:
        recorder.note(rows=3)
    (found,) = lake.runs.beginning_with("abc")
    assert (found.result, found.rows) == (RunResult.SUCCESS, 3)
    assert lake.runs.since(now.date()) == [found]
    assert lake.runs.since(now.date() + timedelta(days=2)) == []
    assert lake.runs.get("abc") == lake.runs.get("a' OR '1'='1") == []
    assert lake.runs.beginning_with("a' OR '1'='1") == []


def test_the_end_of_a_step_counts_though_the_clock_was_set_back_during_it(
    lake: Lake, monkeypatch
) -> None:
    now = datetime.now(UTC)
    recorder = run_recorder.RunRecorder(lake.runs, run_id="abc-1", job="job", step="step")
    recorder.write()
    monkeypatch.setattr(run_recorder, "utc_now", lambda: now - timedelta(hours=1))
    with recorder:
        recorder.note(rows=3)
    (found,) = lake.runs.get("abc-1")
    assert (found.result, found.rows) == (RunResult.SUCCESS, 3)
