"""After a loss of power, all acknowledged commits are on the disk."""

from pathlib import Path

import pytest
from deltalake import DeltaTable

from position_sync_dagster.domain.holding import QueueRequest, QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage import durability, table
from position_sync_dagster.lake.storage.table import maintain
from position_sync_dagster.settings import Settings


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
    made = SyncedDisk()
    monkeypatch.setattr(durability, "sync_path", made.sync)
    return made


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


def everything(queue: PositionQueue) -> list[dict]:
    return queue.table.rows().sort("request_id").to_dicts()


def test_a_new_lake_is_there_after_a_loss_of_power_with_all_folders_around_it(tmp_path, synced):
    source = tmp_path / "before"
    source.mkdir()
    queue = Lake(source / "new" / "data" / "lake").queue
    queue.sync.initialize()
    queue.sync.insert(1, "SPY")
    survived = synced.lose_power(source, tmp_path / "after") / "new" / "data" / "lake"
    assert everything(Lake(survived).queue) == everything(queue)


def test_after_a_loss_of_power_each_acknowledged_commit_is_there(tmp_path, synced, monkeypatch):
    monkeypatch.setattr(table, "CLEAN_EVERY", 20)
    source = tmp_path / "q"
    queue = PositionQueue(source)
    queue.sync.initialize()
    for step in range(45):
        work(queue, step)
        if step % 4 == 0:
            survivor = PositionQueue(synced.lose_power(source, tmp_path / f"after-{step}"))
            assert survivor.table.version() == queue.table.version()
            assert everything(survivor) == everything(queue)


def test_a_commit_builds_on_synced_commits_of_others(tmp_path, synced):
    source = tmp_path / "q"
    unsynced = PositionQueue(source, fsync=False)
    unsynced.sync.initialize()
    for step in range(14):
        work(unsynced, step)
        synced_queue = PositionQueue(source)
        synced_queue.sync.insert_many([QueueRequest(5000 + step, "SPY")])
        survivor = PositionQueue(synced.lose_power(source, tmp_path / f"after-{step}"))
        assert everything(survivor) == everything(synced_queue)


def test_merged_files_are_on_the_disk_before_the_log_is_cut(tmp_path, synced):
    source = tmp_path / "q"
    queue = PositionQueue(source)
    queue.sync.initialize()
    retention = {"delta.logRetentionDuration": "interval 0 seconds"}
    DeltaTable(source).alter.set_table_properties(retention)
    for step in range(120):
        work(queue, step)
    assert maintain(queue.table, clean_now=True).compacted >= 32
    survivor = PositionQueue(synced.lose_power(source, tmp_path / "after"))
    assert everything(survivor) == everything(queue)


def test_without_the_setting_nothing_is_synced(tmp_path, synced):
    lake = Lake.of(Settings(_env_file=None, lake=str(tmp_path / "lake"), fsync=False))
    lake.initialize_sync()
    lake.queue.sync.insert_many([QueueRequest(1, "SPY")])
    assert not synced.bytes
    assert Settings(_env_file=None).fsync
