"""Torn commits: real files cut at many places are found, and repaired without losing a request."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from position_sync_dagster.domain.broker_position import AccountSummary
from position_sync_dagster.domain.update import QueueRequest, QueueStatus
from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.account_values import AccountValuesTable
from position_sync_dagster.lake.queue.position_queue import PositionQueue
from position_sync_dagster.lake.recovery import Diagnosis, diagnose, repair
from position_sync_dagster.lake.schema.codec import update_rows
from position_sync_dagster.lake.schema.table_spec import TableSpec, described
from position_sync_dagster.lake.schema.tables import ACCOUNT_VALUES, POSITION_UPDATES
from position_sync_dagster.lake.storage import maintenance
from position_sync_dagster.lake.storage.table import Table, append
from position_sync_dagster.lake.updates.position_updates import PositionUpdatesTable
from tests.support.extent import EVERYTHING
from tests.support.torn_queues import (
    STEPS,
    claim,
    cuts,
    entry,
    insert,
    insert_many,
    mark,
    newest_entry,
    queue_at,
    rows,
    small_queue,
    written_by,
)

NOW = datetime.now(UTC)
CUTS = 4 if EVERYTHING else 1
"""At how many lengths a data file is torn."""

PENDING, PROCESSING = QueueStatus.PENDING, QueueStatus.PROCESSING
SUCCESS, FAILED = QueueStatus.SUCCESS, QueueStatus.FAILED


@pytest.fixture(params=STEPS, ids=lambda step: step.__name__)
def last_step(request: pytest.FixtureRequest) -> Callable[[PositionQueue], None]:
    return request.param


@pytest.fixture
def before(tmp_path: Path) -> tuple[Path, list[dict]]:
    """The path of a small queue, and its rows."""
    return tmp_path / "q", rows(small_queue(tmp_path / "q"))


def examined(path: Path) -> Diagnosis:
    return diagnose(queue_at(path).table, pause_s=0)


def assert_refused(path: Path) -> None:
    with pytest.raises(BrokenTableError, match="position-sync doctor"):
        queue_at(path).sync.counts()


def copies(source: Path, target: Path, count: int) -> Iterator[Path]:
    for number in range(count):
        yield Path(shutil.copytree(source, target / str(number)))


def test_a_torn_entry_is_refused_found_and_repaired_and_no_request_is_lost(
    before, last_step, tmp_path
):
    path, old = before
    last_step(queue_at(path))
    new = rows(queue_at(path))
    whole = newest_entry(path).read_bytes()
    lengths = cuts(len(whole), 12 if EVERYTHING else 2)
    for length, copy in zip(lengths, copies(path, tmp_path / "c", len(lengths)), strict=True):
        newest_entry(copy).write_bytes(whole[:length])
        assert_refused(copy)
        found = examined(copy)
        assert (found.version, found.whole_version) == (3, 2)
        assert [one.version for one in found.torn_files] == [3]
        assert found.rows, "the data files are there"
        done = repair(queue_at(copy).table, NOW)
        assert done.whole_version == 2
        assert examined(copy).healthy
        repaired = rows(queue_at(copy))
        assert {r["request_id"] for r in repaired} == {r["request_id"] for r in new}
        assert [r for r in repaired if r["request_id"] in {o["request_id"] for o in old}] == old
        finish(queue_at(copy), count=len(new))


def test_a_torn_data_file_is_refused_found_and_repaired(before, last_step, tmp_path):
    path, old = before
    last_step(queue_at(path))
    files = written_by(path, 3)
    cases = [
        (file, length) for file in files for length in (None, *cuts(file.stat().st_size, CUTS))
    ]
    for (file, length), copy in zip(cases, copies(path, tmp_path / "c", len(cases)), strict=True):
        torn = copy / file.relative_to(path)
        if length is None:
            torn.unlink()
        else:
            torn.write_bytes(torn.read_bytes()[:length])
        assert_refused(copy)
        found = examined(copy)
        assert [one.file for one in found.torn_files] == [str(file.relative_to(path))]
        assert found.whole_version == 2
        repair(queue_at(copy).table, NOW)
        assert examined(copy).healthy
        known = {r["request_id"] for r in old}
        assert [r for r in rows(queue_at(copy)) if r["request_id"] in known] == old


def test_a_data_file_of_the_right_size_full_of_zeros_is_found(before, last_step):
    path, old = before
    last_step(queue_at(path))
    for file in written_by(path, 3):
        text = file.read_bytes()
        file.write_bytes(text[: len(text) // 3].ljust(len(text), b"\0"))
    found = examined(path)
    assert found.whole_version == 2
    repair(queue_at(path).table, NOW)
    assert rows(queue_at(path)) == old


@pytest.mark.parametrize(("first", "count"), [(insert, 5), (insert_many, 20)])
def test_several_torn_commits_are_undone_together(before, first, count):
    path, old = before
    queue = queue_at(path)
    for step in (first, claim, mark):
        step(queue)
    entry(path, 3).write_bytes(b"")
    written_by(path, 5)[0].unlink()
    found = examined(path)
    assert (found.version, found.whole_version) == (5, 2)
    assert {one.version for one in found.torn_files} >= {3, 5}
    assert repair(queue_at(path).table, NOW).saved == count
    assert len(rows(queue_at(path))) == len(old) + count


@pytest.mark.parametrize("size", [0, 3, 1000, None])
def test_the_first_insert_into_an_empty_queue_is_put_back(tmp_path, size):
    path = tmp_path / "q"
    queue_at(path).sync.initialize()
    insert(queue_at(path))
    asked = {row["request_id"] for row in rows(queue_at(path))}
    torn = newest_entry(path)
    torn.write_bytes(torn.read_bytes()[: size if size is not None else -2])
    assert_refused(path)
    found = examined(path)
    assert (found.version, found.whole_version, found.rows) == (1, 0, 5)
    assert repair(queue_at(path).table, NOW).saved == 5
    assert {row["request_id"] for row in rows(queue_at(path))} == asked
    finish(queue_at(path), count=5)


def test_an_appended_insert_survives_the_torn_file_of_the_insert_before_it(before):
    path, old = before
    queue = queue_at(path)
    insert_many(queue)
    queue.sync.insert_many(QueueRequest(c, "SPY") for c in range(200, 260))
    written_by(path, 3)[0].unlink()
    found = examined(path)
    assert (found.version, found.whole_version, found.rows) == (4, 2, 60)
    assert repair(queue_at(path).table, NOW).saved == 60
    repaired = rows(queue_at(path))
    assert {r["conid"] for r in repaired} == {r["conid"] for r in old} | set(range(200, 260))


def test_all_requests_of_a_position_that_came_one_after_the_other_come_back(before):
    path, old = before
    queue = queue_at(path)
    ids = []
    for _ in range(3):
        ids += queue.sync.insert_many([QueueRequest(500, "SPY")])
        queue.sync.mark_success(ids[-1])
    ids += queue.sync.insert_many([QueueRequest(500, "SPY")])
    entry(path, 3).write_bytes(b"")
    assert repair(queue_at(path).table, NOW).saved == 4
    assert {r["request_id"] for r in rows(queue_at(path))} == {
        *ids,
        *(r["request_id"] for r in old),
    }
    finish(queue_at(path), count=len(old) + 4)


def test_a_torn_merge_of_finished_requests_puts_none_of_them_back(before, monkeypatch):
    monkeypatch.setattr(maintenance, "COMPACT_FROM", 2)
    path, _ = before
    queue = queue_at(path)
    for _ in range(3):
        queue.sync.mark_success(queue.sync.get_batch(limit=1)[0].request_id)
    old = rows(queue)
    assert maintenance.compact(queue.table, 2**20) > 0
    newest_entry(path).write_bytes(b"")
    repair(queue_at(path).table, NOW)
    assert examined(path).healthy
    assert rows(queue_at(path)) == old


def test_many_thousand_requests_are_put_back(before):
    path, old = before
    queue_at(path).sync.insert_many(QueueRequest(c, "SPY") for c in range(1000, 31_000))
    newest_entry(path).write_bytes(b"")
    assert repair(queue_at(path).table, NOW).saved == 30_000
    assert sum(queue_at(path).sync.counts().values()) == 30_000 + len(old)


def test_account_values_of_a_torn_commit_are_written_once_again(tmp_path):
    table = AccountValuesTable(Table(tmp_path / "a", ACCOUNT_VALUES, fsync=False))
    for amount in (1.0, 2.0, 3.0):
        at = NOW + timedelta(seconds=amount)
        table.append([AccountSummary(account="DUSIM1", timestamp=at, cash=amount)])
    newest_entry(tmp_path / "a").write_bytes(b"")
    again = AccountValuesTable(Table(tmp_path / "a", ACCOUNT_VALUES, fsync=False))
    assert repair(again.table, NOW).saved == 1
    assert again.latest().get_column("cash").to_list() == [3.0]
    assert again.table.rows().height == 3


def test_an_insert_whose_file_is_older_than_the_version_before_it_is_put_back(before):
    path, old = before
    insert(queue_at(path))
    # A merge of files was committed between the file of the insert and its entry.
    written = written_by(path, 3)[0].stat().st_mtime
    os.utime(entry(path, 2), (written + 60, written + 60))
    newest_entry(path).write_bytes(b"")
    assert repair(queue_at(path).table, NOW).saved == 5
    assert len(rows(queue_at(path))) == len(old) + 5


def test_a_version_that_is_missing_between_others_is_found(before):
    path, old = before
    queue = queue_at(path)
    claim(queue)
    insert(queue)
    entry(path, 3).unlink()
    assert examined(path).whole_version == 2
    repair(queue_at(path).table, NOW)
    assert len(rows(queue_at(path))) == len(old) + 5


@pytest.mark.parametrize("name", ["checkpoint", "pointer"])
@pytest.mark.parametrize("part", [0.0, 0.4, 0.9])
def test_a_torn_checkpoint_costs_nothing(before, name, part):
    path, _ = before
    queue = queue_at(path)
    for _ in range(5):
        claim(queue)
        insert(queue)
        mark(queue)
    old = rows(queue)
    [*_, checkpoint] = sorted((path / "_delta_log").glob("*.checkpoint.parquet"))
    torn = checkpoint if name == "checkpoint" else path / "_delta_log" / "_last_checkpoint"
    torn.write_bytes(torn.read_bytes()[: int(torn.stat().st_size * part)])
    found = examined(path)
    assert [one.file for one in found.torn_files] == [f"_delta_log/{torn.name}"]
    assert found.whole_version == found.version
    repair(queue_at(path).table, NOW)
    assert examined(path).healthy
    assert rows(queue_at(path)) == old
    assert DeltaTable(path).version() == found.version


@pytest.mark.parametrize("length", [0, 1, 500, 900])
def test_a_table_whose_creation_is_torn_is_created_again(tmp_path, length):
    queue_at(tmp_path / "q").sync.initialize()
    first = entry(tmp_path / "q", 0)
    first.write_bytes(first.read_bytes()[:length])
    with pytest.raises(BrokenTableError, match="doctor"):
        queue_at(tmp_path / "q").sync.initialize()
    assert examined(tmp_path / "q").whole_version == -1
    repair(queue_at(tmp_path / "q").table, NOW)
    assert queue_at(tmp_path / "q").sync.counts()[PENDING] == 0
    assert examined(tmp_path / "q").healthy


def test_values_that_an_older_release_wrote_are_written_again(tmp_path, make_update):
    columns = dict(POSITION_UPDATES.described)
    for added in ("note", "ledger_version", "committed_at"):
        del columns[added]
    older = replace(POSITION_UPDATES, version=1, described=columns, indexed=("update_id",))
    for name in ("row-1", "row-2"):
        frame = update_rows([replace(make_update(1, update_id=name), batch_id=name)])
        Table(tmp_path / "u", older, fsync=False).transact(
            lambda handle, frame=frame: append(handle, frame.select(list(columns)), {})
        )
    newest_entry(tmp_path / "u").write_bytes(b"")
    ledger = PositionUpdatesTable(tmp_path / "u", fsync=False)
    assert repair(ledger.table, NOW).saved == 1
    assert ledger.sync.existing(["row-1", "row-2"]) == {"row-1", "row-2"}


def test_values_of_a_torn_commit_are_written_once_again(tmp_path, make_update, clock):
    ledger = PositionUpdatesTable(tmp_path / "u", fsync=False)
    for _ in range(3):
        clock.advance(1)
        ledger.sync.append([make_update(c) for c in (1, 2, 3)])
    old = ledger.table.rows().sort("update_id")
    newest_entry(tmp_path / "u").write_bytes(b"")
    again = PositionUpdatesTable(tmp_path / "u", fsync=False)
    found = diagnose(again.table, pause_s=0)
    assert found.rows == 3
    assert repair(again.table, NOW).saved == 3
    by_commit = ("ledger_version", "committed_at")  # the rows came again with another commit
    assert again.table.rows().sort("update_id").drop(by_commit).equals(old.drop(by_commit))


def test_a_torn_file_before_the_start_of_the_log_is_reported_and_left_alone(
    tmp_path, make_update, clock
):
    ledger = PositionUpdatesTable(tmp_path / "u", fsync=False)
    for _ in range(25):
        clock.advance(1)
        ledger.sync.append([make_update(1)])
    first = written_by(tmp_path / "u", 2)[0]
    for version in range(9):
        entry(tmp_path / "u", version).unlink()
    first.unlink()
    again = PositionUpdatesTable(tmp_path / "u", fsync=False)
    found = diagnose(again.table, pause_s=0)
    assert (found.whole_version, found.repairable) == (None, False)
    assert [(one.flaw, one.rows) for one in found.torn_files] == [("is missing", 1)]
    with pytest.raises(BrokenTableError, match="Restore"):
        repair(again.table, NOW)
    assert again.sync.count() == 25


def test_a_whole_table_is_left_as_it_is(before):
    path, old = before
    files = sorted(path.rglob("*"))
    assert examined(path).healthy
    assert repair(queue_at(path).table, NOW) is None
    assert sorted(path.rglob("*")) in (files, sorted([*files, path / ".turn.lock"]))
    assert rows(queue_at(path)) == old


def test_a_process_that_runs_during_a_repair_reads_the_table_again(before):
    path, old = before
    queue = queue_at(path)
    claim(queue)
    assert queue.sync.counts()[PROCESSING] == 2
    newest_entry(path).write_bytes(b"")
    repair(queue_at(path).table, NOW)
    queue_at(path).sync.insert_many([QueueRequest(77, "SPY")])
    assert queue.table.version() == 3  # the same number, and another content
    assert queue.sync.counts() == {PENDING: len(old), PROCESSING: 0, SUCCESS: 1, FAILED: 0}


def finish(queue: PositionQueue, count: int) -> None:
    """Drain what is left, and check that each request ends once."""
    while batch := queue.sync.claim_batch():
        queue.sync.mark_success([r.request_id for r in batch])
    counts = queue.sync.counts()
    assert counts[PENDING] == counts[PROCESSING] == 0
    assert counts[SUCCESS] + counts[FAILED] == count


def test_records_of_a_torn_commit_are_written_once_again_with_their_partition(tmp_path):
    columns = described(
        """
        run_id text The run.
        ended text How it ended; null while it runs.
        date day Partition: the day.
        """
    )
    spec = TableSpec("runs", columns, partition_by=("date",), indexed=("run_id",))
    table = Table(tmp_path / "r", spec, fsync=False)
    for number, ended in ((1, None), (1, "well"), (2, None)):
        row = {"run_id": f"run-{number}", "ended": ended, "date": NOW.date()}
        frame = pl.DataFrame([row], schema=spec.polars)
        table.transact(lambda handle, frame=frame: append(handle, frame, {}))
    old = table.rows().sort("run_id", "ended")
    entry(tmp_path / "r", 2).write_bytes(b"")
    done = repair(Table(tmp_path / "r", spec, fsync=False), NOW)
    assert (done.whole_version, done.saved) == (1, 2)
    [kept] = done.files
    kept.rename(kept.with_name("rows_to_put_back.parquet"))
    assert repair(Table(tmp_path / "r", spec, fsync=False), NOW).saved == 0
    assert Table(tmp_path / "r", spec, fsync=False).rows().sort("run_id", "ended").equals(old)
