"""What lies at a table's path: nothing, the table, an older or newer one, or something else."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from position_sync_dagster.domain.request import QueueRequest, QueueStatus
from position_sync_dagster.errors import (
    BrokenTableError,
    CommitContentionError,
    ForeignTableError,
    LakeNotWritableError,
    NewerTableError,
    RequestStateError,
)
from position_sync_dagster.lake.delta_log import durability
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.queue.table import PositionQueue
from position_sync_dagster.lake.recovery.diagnosis import diagnose
from position_sync_dagster.lake.storage import writer_lock
from position_sync_dagster.lake.storage.lifecycle_table import Change, LifecycleTable
from position_sync_dagster.lake.storage.maintenance import COMPACT_FROM, maintain
from position_sync_dagster.lake.storage.schemas import (
    POSITION_QUEUE,
    TABLES,
    VERSION_PROPERTY,
    Kind,
)
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.lake.updates.table import PositionUpdatesTable


def spend(path: Path, count: int = 1) -> PositionQueue:
    queue = PositionQueue(path)
    queue.sync.initialize()
    queue.sync.insert_many(QueueRequest(c, "SPY") for c in range(1, count + 1))
    return queue


async def test_a_lake_is_made_with_every_table_and_opens_again_as_it_is(tmp_path):
    await Lake(tmp_path).initialize()
    await Lake(tmp_path).initialize()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(spec.name for spec in TABLES)
    for spec in TABLES:
        table = DeltaTable(tmp_path / spec.name)
        assert [f.name for f in table.schema().fields] == list(spec.columns)
        assert table.version() == 0


def test_threads_that_race_to_create_a_table_create_it_once(tmp_path):
    for turn in range(10):
        barrier = Barrier(4)

        def create(path=tmp_path / f"q{turn}", barrier=barrier) -> int:
            queue = PositionQueue(path)
            barrier.wait()
            queue.sync.initialize()
            return queue.table.version()

        with ThreadPoolExecutor(4) as pool:
            assert [f.result() for f in [pool.submit(create) for _ in range(4)]] == [0] * 4


def test_a_relative_path_stays_where_it_was_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lake = Lake("data/lake")
    lake.initialize_sync()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    lake.queue.sync.insert_many([QueueRequest(1, "SPY")])
    assert list(elsewhere.iterdir()) == []


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "thesis.txt").write_text("years of work")
    with pytest.raises(ForeignTableError, match="thesis"):
        PositionQueue(tmp_path / "q").sync.initialize()
    assert [p.name for p in (tmp_path / "q").iterdir()] == ["thesis.txt"]


def test_a_file_at_the_path_is_refused(tmp_path):
    (tmp_path / "q").write_text("a file")
    with pytest.raises(ForeignTableError, match="it is a file"):
        PositionQueue(tmp_path / "q").sync.initialize()


def test_a_foreign_delta_table_is_refused_and_left_alone(tmp_path):
    write_deltalake(tmp_path / "q", pl.DataFrame({"a": [1]}))
    with pytest.raises(ForeignTableError, match="foreign table"):
        PositionQueue(tmp_path / "q").sync.insert_many([QueueRequest(1, "SPY")])
    assert DeltaTable(tmp_path / "q").version() == 0


def test_another_table_of_the_lake_is_refused_by_name(tmp_path):
    Lake(tmp_path).initialize_sync()
    with pytest.raises(ForeignTableError, match="'position_updates'"):
        PositionQueue(tmp_path / "position_updates").sync.initialize()


def test_a_foreign_schema_under_our_name_is_refused_naming_its_columns(tmp_path):
    columns = {**POSITION_QUEUE.columns, "conid": Kind.TEXT}
    Table(tmp_path / "q", replace(POSITION_QUEUE, columns=columns)).initialize()
    with pytest.raises(ForeignTableError, match="conid"):
        PositionQueue(tmp_path / "q").sync.initialize()


def test_a_table_of_a_newer_release_is_refused_and_left_alone(tmp_path):
    columns = {**POSITION_QUEUE.columns, "later": Kind.TEXT}
    newer = replace(POSITION_QUEUE, version=POSITION_QUEUE.version + 1, columns=columns)
    Table(tmp_path / "q", newer).initialize()
    with pytest.raises(NewerTableError, match="Install the release"):
        spend(tmp_path / "q")
    assert DeltaTable(tmp_path / "q").version() == 0


def test_a_table_of_an_older_release_gets_the_new_columns_and_keeps_its_rows(tmp_path, clock):
    first = spend(tmp_path / "q", 3)
    first.sync.mark_success(first.sync.claim_batch(limit=1)[0].request_id)
    columns = {**POSITION_QUEUE.columns, "note": Kind.TEXT, "seen_at": Kind.MOMENT}
    newer = replace(POSITION_QUEUE, version=POSITION_QUEUE.version + 1, columns=columns)
    lifecycle = LifecycleTable(Table(tmp_path / "q", newer), clock)
    lifecycle.initialize()
    lifecycle.initialize()
    rows = pl.concat([lifecycle.snapshot().live, lifecycle.finished("true")])
    assert rows.height == 3
    assert rows.get_column("note").is_null().all()
    properties = DeltaTable(tmp_path / "q").metadata().configuration
    assert properties[VERSION_PROPERTY] == str(newer.version)
    with pytest.raises(NewerTableError):
        PositionQueue(tmp_path / "q").sync.counts()


def test_a_table_whose_log_is_gone_is_called_broken(tmp_path):
    spend(tmp_path / "q")
    shutil.rmtree(tmp_path / "q" / "_delta_log")
    (tmp_path / "q" / "_delta_log").mkdir()
    with pytest.raises(BrokenTableError, match="no log"):
        PositionQueue(tmp_path / "q").sync.initialize()


def test_a_table_whose_log_is_cut_is_called_broken(tmp_path):
    spend(tmp_path / "q")
    (tmp_path / "q" / "_delta_log" / f"{1:020}.json").write_text('{"add":')
    with pytest.raises(BrokenTableError, match="damaged"):
        PositionQueue(tmp_path / "q").sync.initialize()


def test_a_table_whose_first_log_entries_are_gone_is_called_broken(tmp_path):
    spend(tmp_path / "q")
    (tmp_path / "q" / "_delta_log" / f"{0:020}.json").unlink()
    with pytest.raises(BrokenTableError, match="damaged"):
        PositionQueue(tmp_path / "q").sync.initialize()


def test_a_table_whose_data_files_are_gone_is_called_broken(tmp_path):
    spend(tmp_path / "q")
    for file in (tmp_path / "q" / "bucket=live").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(BrokenTableError, match=r"is missing.*position-sync doctor"):
        PositionQueue(tmp_path / "q").sync.get_batch()


def test_a_table_taken_away_under_a_running_process_is_missed_until_it_is_back(tmp_path):
    queue = spend(tmp_path / "q", 3)
    (tmp_path / "q").rename(tmp_path / "away")
    for step in (queue.sync.counts, lambda: queue.sync.insert_many([QueueRequest(9, "SPY")])):
        with pytest.raises(BrokenTableError, match="deleted or moved away under this process"):
            step()
        assert not (tmp_path / "q" / "_delta_log").exists()
    if (tmp_path / "q").exists():
        shutil.rmtree(tmp_path / "q")
    (tmp_path / "away").rename(tmp_path / "q")
    queue.sync.insert_many([QueueRequest(9, "SPY")])
    assert queue.sync.counts()[QueueStatus.PENDING] == 4


def test_a_table_made_anew_by_another_process_is_used_with_an_error_in_the_log(tmp_path, caplog):
    queue = spend(tmp_path / "q", 3)
    shutil.rmtree(tmp_path / "q")
    spend(tmp_path / "q", 1)
    assert queue.sync.counts()[QueueStatus.PENDING] == 1
    assert "another table than a moment ago" in caplog.text


def test_a_reader_that_sleeps_through_a_cleaning_of_the_log_raises_no_alarm(tmp_path, caplog):
    idle = spend(tmp_path / "q", 1)
    idle.sync.counts()
    busy = PositionQueue(tmp_path / "q")
    for conid in range(2, 15):
        busy.sync.insert_many([QueueRequest(conid, "SPY")])
    log = tmp_path / "q" / "_delta_log"
    for entry in sorted(log.glob("*.json"))[:8]:  # the last checkpoint stands for them
        entry.unlink()
    assert idle.sync.counts()[QueueStatus.PENDING] == 14
    assert "another table" not in caplog.text


def test_a_path_under_a_file_is_not_writable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeNotWritableError, match="POSITION_SYNC_LAKE"):
        PositionQueue(tmp_path / "file" / "q").sync.initialize()


def test_a_path_where_no_folder_can_be_made_is_not_writable():
    if not Path("/proc/self").exists():
        pytest.skip("no file system here that refuses folders to everybody")
    with pytest.raises(LakeNotWritableError):
        PositionQueue("/proc/lake/q").sync.initialize()


def mount(*arguments: str, command: str = "mount") -> bool:
    """Mount as root, by `sudo` if need be; tell whether that was allowed."""
    words = [*([] if os.geteuid() == 0 else ["sudo", "-n"]), command, *arguments]
    return (
        bool(shutil.which(words[0])) and not subprocess.run(words, capture_output=True).returncode
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB of its own; needs the right to mount, as root or by `sudo`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", str(disk)):
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    assert mount("-l", str(disk), command="umount")


@pytest.mark.filterwarnings("ignore")
def test_a_full_disk_is_named_and_loses_nothing(small_disk, capfd):
    queue = spend(small_disk / "q", 3)
    before = queue.sync.get_batch()
    filler = small_disk / "filler"
    fill(filler)
    with pytest.raises(LakeNotWritableError, match="space"):
        queue.sync.insert_many(QueueRequest(c, "S" * 900) for c in range(100, 400))
    assert queue.sync.get_batch() == before
    filler.unlink()
    queue.sync.insert_many([QueueRequest(9, "SPY")])
    assert queue.sync.counts()[QueueStatus.PENDING] == 4


ON_A_FULL_DISK: dict[str, Callable[[PositionQueue, list[str]], object]] = {
    "claim": lambda queue, _: queue.sync.claim_batch(limit=2),
    "mark": lambda queue, held: queue.sync.mark_success(held),
    "maintain": lambda queue, _: maintain(queue.table),
}
ROOM = 128 * 1024
"""More bytes than any of these steps writes."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", ON_A_FULL_DISK)
def test_a_step_on_a_nearly_full_disk_is_done_or_refused_by_name(tmp_path, small_disk, capfd, step):
    first = PositionQueue(tmp_path / "q", fsync=False)
    first.sync.initialize()
    ids = first.sync.insert_many(QueueRequest(c, "SPY") for c in range(1, COMPACT_FROM + 11))
    for request_id in ids[:COMPACT_FROM]:  # as many files as are merged
        first.sync.mark_success(request_id)
    done: dict[int, bool] = {}
    for free in (0, 8192, 16384, 32768, ROOM):
        path = Path(shutil.copytree(tmp_path / "q", small_disk / "q"))
        done[free] = assert_done_or_refused(PositionQueue(path), ON_A_FULL_DISK[step], free)
        shutil.rmtree(path)
    assert (done[0], done[ROOM]) == (False, True)


def assert_done_or_refused(
    queue: PositionQueue, step: Callable[[PositionQueue, list[str]], object], free: int
) -> bool:
    """Do a step with so many bytes free, then everything with enough; tell if it was done."""
    held = [request.request_id for request in queue.sync.claim_batch(limit=3)]
    before = queue.sync.counts()
    filler = Path(queue.table.path).with_name("filler")
    fill(filler, leaving=free)
    try:
        step(queue, held)
        done = True
    except LakeNotWritableError as error:
        assert "space" in str(error)  # noqa: PT017 - which of the two is the question here
        done = False
    counts = queue.sync.counts()
    assert PositionQueue(queue.table.path).sync.counts() == counts
    assert done or counts == before
    assert sum(counts.values()) == sum(before.values())
    filler.unlink()
    assert diagnose(queue.table).healthy
    under_way = queue.sync.get_batch(None, status=QueueStatus.PROCESSING)
    for batch in (under_way, queue.sync.claim_batch()):
        queue.sync.mark_success(request.request_id for request in batch)
    maintain(queue.table)
    assert queue.sync.counts()[QueueStatus.SUCCESS] == sum(before.values())
    assert diagnose(queue.table).healthy
    return done


def fill(filler: Path, *, leaving: int = 0) -> None:
    """Write a file until so many bytes are free on its disk."""
    filler.write_bytes(b"x" * (free_on(filler.parent) - leaving))
    assert free_on(filler.parent) == leaving


def free_on(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def test_an_upkeep_makes_room_on_a_disk_that_is_full_of_what_was_replaced(small_disk):
    queue = spend(small_disk / "q")
    for conid in range(2, 42):
        [request_id] = queue.sync.insert_many([QueueRequest(conid, "SPY")])
        queue.sync.mark_success(request_id)
    fill(small_disk / "filler", leaving=12 * 1024)
    result = maintain(queue.table, clean_now=True)
    assert result.compacted >= 32
    assert result.deleted > 40
    assert queue.sync.counts()[QueueStatus.SUCCESS] == 40


def test_a_read_only_disk_is_named_and_still_read(small_disk):
    queue = spend(small_disk / "q", 3)
    assert mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(LakeNotWritableError, match="Read-only"):
        queue.sync.claim_batch()
    assert PositionQueue(small_disk / "q").sync.counts()[QueueStatus.PENDING] == 3


@pytest.mark.filterwarnings("ignore")
def test_the_ledger_on_a_full_disk_keeps_what_it_has_and_takes_the_rows_later(
    small_disk, make_update, clock
):
    ledger = PositionUpdatesTable(small_disk / "u")
    ledger.sync.append([make_update(1)], batch_id="b-1")
    filler = small_disk / "filler"
    fill(filler)
    clock.advance(1)
    rows = [make_update(c, symbol="S" * 900) for c in range(300)]
    with pytest.raises(LakeNotWritableError, match="space"):
        ledger.sync.append(rows, batch_id="b-2")
    assert ledger.sync.count() == 1
    assert diagnose(ledger.table).healthy
    filler.unlink()
    assert ledger.sync.append(rows, batch_id="b-2").rows == 300


def test_a_disk_that_cannot_sync_is_named_and_the_change_is_not_made_twice(tmp_path, monkeypatch):
    queue = spend(tmp_path / "q", 3)

    def refuse(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(durability, "sync_path", refuse)
    with pytest.raises(LakeNotWritableError, match="did not confirm"):
        queue.sync.claim_batch(limit=1)
    monkeypatch.undo()
    counts = PositionQueue(tmp_path / "q").sync.counts()
    assert (counts[QueueStatus.PENDING], counts[QueueStatus.PROCESSING]) == (2, 1)


def no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a writer go on without the lock that another one in the same test holds."""
    monkeypatch.setattr(writer_lock, "FAIR_WAIT_S", ((0.01, 0.001),))


def test_a_writer_that_never_wins_gives_up_in_bounded_time_and_changes_nothing(
    tmp_path, monkeypatch
):
    queue = PositionQueue(tmp_path / "q", contention_s=0.3)
    queue.sync.initialize()
    rival = PositionQueue(tmp_path / "q")
    no_long_wait(monkeypatch)
    conids = iter(range(1, 10_000))

    def always_late(view):
        rival.sync.insert_many([QueueRequest(next(conids), "SPY")])
        return Change(None, view.live.clear())

    with pytest.raises(CommitContentionError, match="nothing was changed"):
        queue.sync.store.change(always_late, {})
    assert rival.sync.counts()[QueueStatus.PENDING] == next(conids) - 1


CHANGES: dict[str, Callable[[PositionQueue], object]] = {
    "append": lambda queue: queue.sync.insert_many(QueueRequest(c, "SPY") for c in range(50, 60)),
    "overwrite": lambda queue: queue.sync.claim_batch(1),
    "retry": lambda queue: queue.sync.retry(
        str(queue.sync.store.finished("true")["request_id"][0])
    ),
}


@pytest.mark.parametrize("first", CHANGES)
@pytest.mark.parametrize("second", CHANGES)
def test_of_two_changes_of_one_snapshot_the_second_plans_again(
    tmp_path, monkeypatch, first, second
):
    queue = spend(tmp_path / "q", 2)
    [failed] = queue.sync.claim_batch(1)
    queue.sync.mark_failed(failed.request_id, "no such contract", retryable=False)
    rival = PositionQueue(tmp_path / "q")
    no_long_wait(monkeypatch)
    plans = 0
    change = queue.sync.store.change

    def late(step, note):
        def planned(view):
            nonlocal plans
            plans += 1
            if plans == 1:
                CHANGES[first](rival)
            return step(view)

        return change(planned, note)

    queue.sync.store.change = late
    with suppress(RequestStateError):  # on the second plan: it is retried already
        CHANGES[second](queue)
    assert plans == 2
    live = queue.sync.store.snapshot().live
    assert live.select("account", "conid").is_unique().all()


MANY = 5


def taken(queue: PositionQueue) -> list[str]:
    return [request.request_id for request in queue.sync.claim_batch(MANY)]


def given_up(queue: PositionQueue) -> list[str]:
    ids = taken(queue)
    queue.sync.mark_failed_many(dict.fromkeys(ids, "no such contract"), retryable=False)
    return ids


def asked(*conids: int, priority: int = 2) -> list[QueueRequest]:
    return [QueueRequest(conid, "SPY", priority) for conid in conids]


Ids = Callable[[PositionQueue], list[str]]
ONE_COMMIT: dict[str, tuple[Ids, Callable[[PositionQueue, list[str]], object]]] = {
    "insert few": (taken, lambda q, _: q.sync.insert_many(asked(101, 102, 103))),
    "insert many": (taken, lambda q, _: q.sync.insert_many(asked(*range(101, 141)))),
    "insert known": (taken, lambda q, _: q.sync.insert_many(asked(*range(8, 15), priority=1))),
    "claim": (taken, lambda q, _: q.sync.claim_batch(MANY)),
    "mark success": (taken, lambda q, ids: q.sync.mark_success(ids)),
    "mark failed": (taken, lambda q, ids: q.sync.mark_failed_many(dict.fromkeys(ids, "busy"))),
    "give up": (
        taken,
        lambda q, ids: q.sync.mark_failed_many(dict.fromkeys(ids, "x"), retryable=False),
    ),
    "release": (taken, lambda q, ids: q.sync.release(ids, "the gateway is gone")),
    "renew": (taken, lambda q, ids: q.sync.renew(ids)),
    "retry": (given_up, lambda q, ids: q.sync.retry(ids)),
}


@pytest.mark.parametrize("call", ONE_COMMIT)
def test_a_call_for_many_requests_is_one_commit(tmp_path, call):
    queue = spend(tmp_path / "q", 12)
    prepare, change = ONE_COMMIT[call]
    ids = prepare(queue)
    assert len(ids) == MANY
    before = queue.table.rows().sort("request_id")
    version = queue.table.version()
    change(queue, ids)
    assert queue.table.version() == version + 1
    touched = queue.table.rows().join(before, on=before.columns, how="anti", nulls_equal=True)
    assert touched.height >= 3, "it was for many"


def test_many_commits_leave_handles_fresh_and_the_log_with_checkpoints(tmp_path):
    queue = spend(tmp_path / "q")
    for conid in range(2, 32):
        queue.sync.insert_many([QueueRequest(conid, "SPY")])
    log = tmp_path / "q" / "_delta_log"
    assert len(list(log.glob("*.checkpoint.parquet"))) == 3
    assert queue.sync.counts()[QueueStatus.PENDING] == 31
