"""A torn last commit is refused by name and set aside; other damage names its file."""

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.durability import (
    SET_ASIDE,
    parse_entry,
    remove_torn,
    torn_entries,
)
from position_sync_dagster.lake.storage.table import CHECKPOINT_EVERY
from tests.support import torn_queues
from tests.support.extent import EVERYTHING

CUTS = 12 if EVERYTHING else 2


@pytest.fixture
def before(tmp_path: Path) -> tuple[Path, list[dict]]:
    """The path of a small queue of version 2, and its rows."""
    return tmp_path / "q", torn_queues.rows(torn_queues.small_queue(tmp_path / "q"))


def write_checkpoint(path: Path) -> None:
    while not list(path.glob("_delta_log/*.checkpoint.parquet")):
        torn_queues.insert(torn_queues.queue_at(path))
        torn_queues.mark(torn_queues.queue_at(path))


def assert_refused(path: Path, *, remedy: str = "doctor --repair") -> None:
    with pytest.raises(BrokenTableError, match=remedy):
        torn_queues.queue_at(path).sync.counts()


@pytest.mark.parametrize("step", torn_queues.STEPS, ids=lambda step: step.__name__)
def test_a_torn_last_commit_is_refused_and_set_aside_and_the_others_stay(before, step, tmp_path):
    path, old = before
    step(torn_queues.queue_at(path))
    torn = [torn_queues.newest_entry(path), *torn_queues.written_by(path, 3)]
    cases = [
        (file, length) for file in torn for length in torn_queues.cuts(file.stat().st_size, CUTS)
    ]
    for number, (file, length) in enumerate(cases):
        copy = Path(shutil.copytree(path, tmp_path / str(number)))
        broken = copy / file.relative_to(path)
        broken.write_bytes(broken.read_bytes()[:length])
        assert_refused(copy)
        [found] = remove_torn(copy)
        assert (found.version, found.is_last) == (3, True)
        assert torn_queues.rows(torn_queues.queue_at(copy)) == old
        assert torn_entries(copy) == []
        assert (copy / f"{SET_ASIDE}{torn_queues.entry(copy, 3).name}").exists()


def test_several_torn_last_commits_are_set_aside_together(before, tmp_path):
    path, old = before
    for step in torn_queues.STEPS[:3]:
        step(torn_queues.queue_at(path))
    for version in (3, 4, 5):
        torn_queues.entry(path, version).write_bytes(b"{")
    assert [one.version for one in remove_torn(path)] == [5, 4, 3]
    assert torn_queues.rows(torn_queues.queue_at(path)) == old


def test_a_torn_commit_before_whole_ones_is_left_to_a_backup(before):
    path, _ = before
    torn_queues.insert(torn_queues.queue_at(path))
    torn_queues.entry(path, 2).write_bytes(b"")
    assert_refused(path, remedy="from a backup")
    assert remove_torn(path) == []


def test_the_torn_creation_of_a_table_is_set_aside_and_it_is_created_again(tmp_path):
    torn_queues.queue_at(tmp_path / "q").sync.initialize()
    torn_queues.newest_entry(tmp_path / "q").write_bytes(b"")
    assert_refused(tmp_path / "q")
    remove_torn(tmp_path / "q")
    assert torn_queues.queue_at(tmp_path / "q").table.count() == 0


def test_a_torn_checkpoint_is_set_aside_and_its_entries_stand_for_it(before):
    path, _ = before
    write_checkpoint(path)
    whole = torn_queues.rows(torn_queues.queue_at(path))
    [checkpoint] = path.glob("_delta_log/*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-20])
    assert_refused(path)
    assert remove_torn(path) == []
    assert torn_queues.rows(torn_queues.queue_at(path)) == whole
    assert int(checkpoint.name[:20]) == CHECKPOINT_EVERY


def test_a_file_that_is_missing_names_itself(before):
    path, _ = before
    write_checkpoint(path)
    [file] = (one for one in torn_queues.written_by(path, 2) if "SUCCESS" in str(one))
    file.unlink()
    with pytest.raises(BrokenTableError, match=file.name):
        torn_queues.queue_at(path).table.rows()
    assert remove_torn(path) == []


@pytest.mark.parametrize("step", torn_queues.STEPS, ids=lambda step: step.__name__)
def test_an_entry_cut_at_any_byte_is_found_torn(tmp_path, step):
    step(torn_queues.small_queue(tmp_path / "q"))
    whole = torn_queues.newest_entry(tmp_path / "q").read_bytes()
    assert parse_entry(3, whole).flaw is None
    for length in range(len(whole)):
        assert parse_entry(3, whole[:length]).flaw, length
        assert parse_entry(3, whole[:length].ljust(len(whole), b"\0")).flaw, length


@pytest.mark.parametrize("step", torn_queues.STEPS, ids=lambda step: step.__name__)
def test_an_entry_of_another_writer_without_commit_info_is_whole(tmp_path, step, clock):
    lake = Lake(tmp_path, clock=clock, fsync=False)
    lake.initialize_sync()
    queue = torn_queues.small_queue(tmp_path / "position_queue")
    step(queue)
    torn_queues.entry = torn_queues.newest_entry(tmp_path / "position_queue")
    info, *actions = torn_queues.entry.read_bytes().splitlines(keepends=True)
    assert b'"commitInfo"' in info
    torn_queues.entry.write_bytes(b"".join(actions))
    assert DeltaTable(tmp_path / "position_queue").version() == 3
    assert torn_entries(tmp_path / "position_queue") == []
    assert torn_queues.rows(PositionQueue(tmp_path / "position_queue")) == torn_queues.rows(queue)
