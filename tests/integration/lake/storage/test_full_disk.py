"""A full, nearly full or read-only disk: each step is done, or refused with the reason."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.durability import torn_entries
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.opening import Upkeep
from tests.support.queues import filled_queue, finish_each

FEW = 8
# Few files are merged.
SOON = Upkeep(compact_from=FEW)


def mount(*arguments: str, command: str = "mount") -> bool:
    """Mount as root, by `sudo` if needed; return whether that was allowed."""
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
def test_a_full_disk_is_reported_and_loses_nothing(small_disk, capfd):
    queue = filled_queue(small_disk / "q", 3)
    before = queue.sync.get_batch()
    filler = small_disk / "filler"
    fill(filler)
    with pytest.raises(LakeNotWritableError, match="space"):
        queue.sync.insert_many(QueueRequest(c, "S" * 900) for c in range(100, 400))
    assert capfd.readouterr().err == "", "a library wrote its backtrace"
    assert queue.sync.get_batch() == before
    filler.unlink()
    queue.sync.insert_many([QueueRequest(9, "SPY")])
    assert queue.sync.counts()[QueueStatus.PENDING] == 4


ON_A_FULL_DISK: dict[str, Callable[[PositionQueue, list[str]], object]] = {
    "claim": lambda queue, _: queue.sync.claim_batch(limit=2),
    "mark": lambda queue, held: queue.sync.mark_success(held),
    "maintain": lambda queue, _: maintain(queue.table),
}


# More bytes than any of these steps writes.
ROOM = 128 * 1024


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", ON_A_FULL_DISK)
def test_a_step_on_a_nearly_full_disk_is_done_or_refused_with_the_reason(
    tmp_path, small_disk, capfd, step
):
    first = filled_queue(tmp_path / "q", 10)
    finish_each(first, range(11, 11 + FEW))
    done: dict[int, bool] = {}
    for free in (0, 8192, 16384, 32768, ROOM):
        path = Path(shutil.copytree(tmp_path / "q", small_disk / "q"))
        queue = PositionQueue(path, upkeep=SOON)
        done[free] = assert_done_or_refused(queue, ON_A_FULL_DISK[step], free)
        shutil.rmtree(path)
    assert done[0] is False
    assert done[ROOM] is True
    assert "panicked" not in capfd.readouterr().err


def assert_done_or_refused(
    queue: PositionQueue, step: Callable[[PositionQueue, list[str]], object], free: int
) -> bool:
    """Do a step with few bytes free, then finish everything; return whether it was done."""
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
    assert not torn_entries(Path(queue.table.path))
    under_way = queue.sync.get_batch(None, status=QueueStatus.PROCESSING)
    for batch in (under_way, queue.sync.claim_batch()):
        queue.sync.mark_success(request.request_id for request in batch)
    maintain(queue.table)
    assert queue.sync.counts()[QueueStatus.SUCCESS] == sum(before.values())
    assert not torn_entries(Path(queue.table.path))
    return done


def fill(filler: Path, *, leaving: int = 0) -> None:
    """Write a file until `leaving` bytes are free on its disk."""
    filler.write_bytes(b"x" * (free_on(filler.parent) - leaving))
    assert free_on(filler.parent) == leaving


def free_on(disk: Path) -> int:
    file_system = os.statvfs(disk)
    return file_system.f_bavail * file_system.f_frsize


def test_maintenance_makes_room_on_a_disk_that_is_full_of_replaced_files(small_disk):
    finish_each(filled_queue(small_disk / "q"), range(2, 22))
    queue = PositionQueue(small_disk / "q", upkeep=SOON)
    fill(small_disk / "filler", leaving=12 * 1024)
    first, second = (maintain(queue.table, clean_now=True) for _ in range(2))
    assert "space" in str(first.skipped)
    assert first.deleted > 20
    assert second.compacted >= FEW
    assert queue.sync.counts()[QueueStatus.SUCCESS] == 20


def test_a_read_only_disk_is_reported_and_still_read(small_disk):
    queue = filled_queue(small_disk / "q", 3)
    assert mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(LakeNotWritableError, match="Read-only"):
        queue.sync.claim_batch()
    assert PositionQueue(small_disk / "q").sync.counts()[QueueStatus.PENDING] == 3
