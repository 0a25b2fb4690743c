"""The examination of a lake that others write to: no false alarm, and no repair under a writer."""

import re
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import polars as pl
import pytest
from deltalake import DeltaTable

from position_sync_dagster.domain.update import QueueRequest
from position_sync_dagster.errors import CommitContentionError
from position_sync_dagster.lake import recovery
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.queue.position_queue import PositionQueue
from position_sync_dagster.lake.recovery import Checkup, check_up, diagnose, repair
from position_sync_dagster.lake.schema.tables import POSITION_QUEUE
from position_sync_dagster.lake.storage import delta_log
from position_sync_dagster.lake.storage.table import CHECKPOINT_EVERY, append
from tests.support.extent import EVERYTHING
from tests.support.lake_processes import Worker, workers
from tests.support.torn_queues import entry, newest_entry, queue_at, small_queue

CALLS = 60 if EVERYTHING else 10


def checked(lake: Lake, *, mend: bool, pause_s: float) -> list[Checkup]:
    return check_up(lake.all_tables, lake.sessions, datetime.now(UTC), mend=mend, pause_s=pause_s)


def test_a_lake_that_is_being_written_is_healthy_at_each_of_many_examinations(tmp_path):
    path = tmp_path / "lake"
    Lake(path, fsync=False).initialize_sync()
    writers = (
        # The log keeps minutes: without a pause it outgrows the examinations of a busy machine.
        Worker("insert", path, first=1, count=100_000, size=1, pause_s=0.1),
        Worker("drain", path, lease_s=60, limit=5, until_empty=False),
        Worker("maintain", path),
    )
    queue, calls = PositionQueue(path / "position_queue").table, 0
    with workers(*writers):
        while calls < CALLS or queue.version() <= CHECKPOINT_EVERY:
            found = checked(Lake(path, fsync=False), mend=False, pause_s=0.2)
            assert [one for one in found if not one.healthy] == []
            calls += 1


def test_a_checkpoint_that_is_written_during_the_examination_is_no_fault(tmp_path, monkeypatch):
    path = tmp_path / "q"
    queue = small_queue(path)
    real, conids = delta_log.versions_of, iter(range(1000, 2000))

    def versions_before_a_checkpoint(log: Path, names: re.Pattern[str]) -> list[int]:
        found = real(log, names)
        for _ in range(CHECKPOINT_EVERY if names is delta_log.CHECKPOINT else 0):
            queue.sync.insert_many([QueueRequest(next(conids), "SPY")])
        return found

    monkeypatch.setattr(delta_log, "versions_of", versions_before_a_checkpoint)
    monkeypatch.setattr(recovery, "READINGS", 1)
    assert diagnose(queue_at(path).table).healthy


def test_what_only_one_reading_finds_torn_is_not_torn(tmp_path, monkeypatch):
    path = tmp_path / "q"
    small_queue(path)
    whole = newest_entry(path).read_bytes()
    newest_entry(path).write_bytes(b"")
    pauses = []

    def finish_writing(pause_s: float) -> None:
        pauses.append(pause_s)
        newest_entry(path).write_bytes(whole)

    monkeypatch.setattr(recovery, "sleep", finish_writing)
    assert diagnose(queue_at(path).table, pause_s=7.0).healthy
    assert pauses == [7.0]


def test_a_table_in_which_every_reading_finds_something_else_is_not_called_torn(
    tmp_path, monkeypatch
):
    path = tmp_path / "q"
    queue = small_queue(path)
    queue.sync.insert_many([QueueRequest(77, "SPY")])
    whole = {version: entry(path, version).read_bytes() for version in (1, 2, 3)}
    torn = iter([1, 2, 3])

    def go_on(_: float) -> None:
        for version, text in whole.items():
            entry(path, version).write_bytes(text)
        entry(path, next(torn)).write_bytes(b"")

    go_on(0)
    monkeypatch.setattr(recovery, "READINGS", 3)
    monkeypatch.setattr(recovery, "sleep", go_on)
    found = diagnose(queue_at(path).table)
    assert (found.healthy, found.repairable, found.torn_files) == (False, False, ())
    assert "too fast" in str(found.problem)


def test_a_torn_table_is_not_repaired_while_somebody_writes_to_it(tmp_path):
    lake = Lake(tmp_path / "lake", fsync=False)
    lake.initialize_sync()
    path = Path(lake.queue.table.path)
    lake.queue.sync.mark_success(lake.queue.sync.insert_many([QueueRequest(1, "SPY")]))
    writer, stop = PositionQueue(path, fsync=False), Event()
    writer.sync.counts()
    [finished] = path.glob("bucket=SUCCESS/**/*.parquet")  # inserts do not read it
    finished.unlink()

    def write() -> None:
        for conid in range(100, 100_000):
            if stop.is_set():
                return
            writer.sync.insert_many([QueueRequest(conid, "SPY")])

    thread = Thread(target=write)
    thread.start()
    try:
        results = checked(Lake(lake.path), mend=True, pause_s=0.5)
    finally:
        stop.set()
        thread.join()
    [torn] = [one for one in results if not one.healthy]
    assert torn.found.being_written
    assert torn.writer == "another process"
    assert (torn.repair, "is not repaired" in str(torn.failure)) == (None, True)
    assert newest_entry(path).stat().st_size
    assert not list(path.glob("_torn*"))


def test_a_repair_notices_itself_that_somebody_commits(tmp_path, monkeypatch):
    path = tmp_path / "q"
    small_queue(path)
    entry(path, 1).write_bytes(b"")
    nothing = pl.DataFrame(schema=POSITION_QUEUE.polars)
    monkeypatch.setattr(recovery, "sleep", lambda _: append(DeltaTable(path), nothing, {}))
    with pytest.raises(CommitContentionError, match="being written"):
        repair(queue_at(path).table, datetime.now(UTC))
    assert entry(path, 1).exists()
