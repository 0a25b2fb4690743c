"""After a loss of power all acknowledged commits are there, and a torn one is set aside by name."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.table import TableAlterer

from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage import commits, durability, table
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.opening import Upkeep
from position_sync_dagster.processes.repair import remove_torn
from position_sync_dagster.settings import Settings
from tests.support import queues
from tests.support.extent import EVERYTHING


class SyncedDisk:
    """A disk on which only synced data survives: the bytes of files, the names in folders.

    After the loss of power, a file that was not synced is empty, if its name is there at all.
    """

    def __init__(self) -> None:
        self.bytes: dict[Path, bytes] = {}
        self.names: dict[Path, set[str]] = {}

    def sync(self, path: Path) -> None:
        if path.is_dir():
            self.names[path] = {member.name for member in path.iterdir()}
        elif path.exists():
            self.bytes[path] = path.read_bytes()

    def lose_power(self, source: Path, target: Path) -> Path:
        """Copy to another folder what survives of a folder."""
        target.mkdir(parents=True)
        for name in self.names.get(source, ()):
            if (source / name).is_dir():
                self.lose_power(source / name, target / name)
            elif (source / name).exists():
                (target / name).write_bytes(self.bytes.get(source / name, b""))
        return target


@pytest.fixture
def synced(monkeypatch) -> SyncedDisk:
    disk = SyncedDisk()
    monkeypatch.setattr(durability, "sync_path", disk.sync)
    return disk


def work(queue: PositionQueue, step: int) -> None:
    """Do one of the queue's steps."""
    match step % 3:
        case 0:
            queue.sync.insert_many(QueueRequest(10 * step + c, "SPY") for c in range(1, 5))
        case 1:
            queue.sync.claim_batch(limit=3)
        case _:
            queue.sync.mark_success(
                r.request_id for r in queue.sync.get_batch(None, 9, QueueStatus.PROCESSING)
            )


def assert_survives(queue: PositionQueue, synced: SyncedDisk, target: Path) -> None:
    """Check that all that a queue has is there after a loss of power."""
    survivor = PositionQueue(synced.lose_power(Path(queue.table.path), target))
    assert survivor.table.version() == queue.table.version()
    assert queues.rows(survivor) == queues.rows(queue)


def test_a_new_lake_is_there_after_a_loss_of_power_with_all_folders_around_it(tmp_path, synced):
    source = tmp_path / "before"
    source.mkdir()
    queue = Lake(source / "new" / "data" / "lake").queue
    queue.sync.initialize()
    queue.sync.insert(1, "SPY")
    survived = synced.lose_power(source, tmp_path / "after") / "new" / "data" / "lake"
    assert queues.rows(Lake(survived).queue) == queues.rows(queue)


def test_after_a_loss_of_power_each_acknowledged_commit_is_there(tmp_path, synced):
    queue = PositionQueue(tmp_path / "q", upkeep=Upkeep(clean_every=10))
    queue.sync.initialize()
    for step in range(24):
        work(queue, step)
        if step % 4 == 0:
            assert_survives(queue, synced, tmp_path / f"after-{step}")


def test_a_commit_builds_on_synced_commits_of_others(tmp_path, synced):
    unsynced = queues.queue_at(tmp_path / "q")
    unsynced.sync.initialize()
    for step in range(7):
        work(unsynced, step)
        queue = PositionQueue(tmp_path / "q")
        queue.sync.insert_many([QueueRequest(5000 + step, "SPY")])
        assert_survives(queue, synced, tmp_path / f"after-{step}")


def test_a_migration_builds_on_rows_that_are_on_the_disk(tmp_path, synced, monkeypatch):
    spec = schema.CONTRACTS
    note = schema.StoredColumn(kind=str, description="Of an older release.")
    older = table.Table(tmp_path / "c", replace(spec, described=spec.described | {"note": note}))
    older.initialize()
    rows = schema.frame_of(older.spec, [{"conid": 7, "symbol": "XYZ", "note": "kept before"}])
    older.transact(lambda handle: commits.write(handle, rows, {}))
    before_last_entry: list[set[Path]] = []

    def last_entry(*_arguments: object, **_options: object) -> None:
        before_last_entry.append(set(synced.bytes))
        raise RuntimeError

    monkeypatch.setattr(TableAlterer, "set_table_properties", last_entry)
    with pytest.raises(RuntimeError):
        table.Table(tmp_path / "c", replace(spec, version=spec.version + 1)).initialize()
    [file] = DeltaTable(tmp_path / "c").file_uris()
    assert {Path(file), queues.newest_entry(tmp_path / "c")} <= before_last_entry[-1]


def test_merged_files_are_on_the_disk_before_the_log_is_cut(tmp_path, synced):
    queue = PositionQueue(tmp_path / "q", upkeep=Upkeep(compact_from=8))
    queue.sync.initialize()
    retention = {"delta.logRetentionDuration": "interval 0 seconds"}
    DeltaTable(tmp_path / "q").alter.set_table_properties(retention)
    for step in range(24):
        work(queue, step)
    assert maintain(queue.table, clean_now=True).compacted == 8
    assert_survives(queue, synced, tmp_path / "after")


def test_without_the_setting_nothing_is_synced(tmp_path, synced):
    lake = Lake.of(Settings(_env_file=None, lake=str(tmp_path / "lake"), fsync=False))
    lake.initialize_sync()
    lake.queue.sync.insert_many([QueueRequest(1, "SPY")])
    assert not synced.bytes
    assert Settings(_env_file=None).fsync


CUTS = 12 if EVERYTHING else 2


@pytest.fixture
def before(tmp_path: Path) -> tuple[Path, list[dict]]:
    """The path of a small queue of version 2, and its rows."""
    return tmp_path / "q", queues.rows(queues.small_queue(tmp_path / "q"))


def assert_refused(path: Path) -> None:
    with pytest.raises(BrokenTableError, match="doctor --repair"):
        queues.queue_at(path).sync.counts()


@pytest.mark.parametrize("step", queues.STEPS, ids=lambda step: step.__name__)
def test_a_torn_last_commit_is_refused_and_set_aside_and_the_others_stay(before, step, tmp_path):
    path, old = before
    step(queues.queue_at(path))
    torn = [queues.newest_entry(path), *queues.written_by(path, 3)]
    cases = [(file, length) for file in torn for length in queues.cuts(file.stat().st_size, CUTS)]
    for number, (file, length) in enumerate(cases):
        copy = Path(shutil.copytree(path, tmp_path / str(number)))
        broken = copy / file.relative_to(path)
        broken.write_bytes(broken.read_bytes()[:length])
        assert_refused(copy)
        [removed] = remove_torn(copy)
        assert removed.version == 3
        assert queues.rows(queues.queue_at(copy)) == old
        assert durability.torn_entries(copy) == []
        assert (copy / f"{durability.SET_ASIDE}{queues.entry(copy, 3).name}").exists()


def test_several_torn_last_commits_are_set_aside_together(before, tmp_path):
    path, old = before
    for step in queues.STEPS[:3]:
        step(queues.queue_at(path))
    for version in (3, 4, 5):
        queues.entry(path, version).write_bytes(b"{")
    assert [removed.version for removed in remove_torn(path)] == [5, 4, 3]
    assert queues.rows(queues.queue_at(path)) == old


def test_the_torn_creation_of_a_table_is_set_aside_and_it_is_created_again(tmp_path):
    queues.queue_at(tmp_path / "q").sync.initialize()
    queues.newest_entry(tmp_path / "q").write_bytes(b"")
    assert_refused(tmp_path / "q")
    remove_torn(tmp_path / "q")
    assert queues.queue_at(tmp_path / "q").table.count() == 0


BIRTHS = {
    "first is gone": lambda path: queues.entry(path, 0).unlink(),
    "first is empty": lambda path: queues.entry(path, 0).write_bytes(b""),
    "first is cut": lambda path: queues.entry(path, 0).write_bytes(b"{"),
}


@pytest.mark.parametrize("lose_first", BIRTHS.values(), ids=BIRTHS)
@pytest.mark.parametrize("second", [b"", b'{"add":'], ids=["empty", "cut"])
def test_a_table_that_was_torn_at_its_birth_is_set_aside_with_its_files_and_made_again(
    tmp_path, lose_first, second
):
    path = tmp_path / "q"
    for _power_cut in range(2):
        queues.filled_queue(path, 3)
        lose_first(path)
        queues.entry(path, 1).write_bytes(second)
        assert_refused(path)
        assert [torn.version for torn in remove_torn(path)] == [1, 0]
        assert not queues.queue_at(path).table.exists()

    queue = queues.filled_queue(path, 1)
    maintain(queue.table, clean_now=True)
    assert queue.table.count() == 1
    aside = [file for file in path.rglob("*.parquet") if durability.SET_ASIDE in str(file)]
    assert len(aside) == 2, "nothing is deleted"


def test_the_first_entry_of_a_table_is_on_the_disk_before_another_one_builds_on_it(
    tmp_path, synced
):
    contracts = table.Table(tmp_path / "c", schema.CONTRACTS)
    first = queues.entry(tmp_path / "c", 0)
    assert contracts.transact(lambda _handle: first in synced.bytes)


def test_a_file_that_is_missing_names_itself(before):
    path, _ = before
    DeltaTable(path).create_checkpoint()
    [file] = (request for request in queues.written_by(path, 2) if "SUCCESS" in str(request))
    file.unlink()
    with pytest.raises(BrokenTableError, match=file.name):
        queues.queue_at(path).table.rows()
    assert remove_torn(path) == []


@pytest.mark.parametrize("step", queues.STEPS, ids=lambda step: step.__name__)
def test_an_entry_cut_at_any_byte_is_found_torn(tmp_path, step):
    step(queues.small_queue(tmp_path / "q"))
    whole = queues.newest_entry(tmp_path / "q").read_bytes()
    assert durability.parse_entry(whole).flaw is None
    for length in range(len(whole)):
        assert durability.parse_entry(whole[:length]).flaw, length
        assert durability.parse_entry(whole[:length].ljust(len(whole), b"\0")).flaw, length


@pytest.mark.parametrize("step", queues.STEPS, ids=lambda step: step.__name__)
def test_an_entry_of_another_writer_without_commit_info_is_whole(tmp_path, step):
    path = tmp_path / "q"
    queue = queues.small_queue(path)
    step(queue)
    entry = queues.newest_entry(path)
    info, *actions = entry.read_bytes().splitlines(keepends=True)
    assert b'"commitInfo"' in info
    entry.write_bytes(b"".join(actions))
    assert DeltaTable(path).version() == 3
    assert durability.torn_entries(path) == []
    assert queues.rows(PositionQueue(path)) == queues.rows(queue)
