"""The lock of local writers: who waits is woken, and a wait that ended leaves nothing behind."""

import errno
import fcntl
import os
import threading
import time

import pytest

from position_sync_dagster.lake.storage import opening
from position_sync_dagster.lake.storage.opening import WriterLock
from tests.support.filled_queue import filled_queue

LONG_S = 60.0


def test_a_writer_that_waits_is_woken_and_does_not_ask_again(tmp_path, monkeypatch):
    asked: list[int] = []
    flock = fcntl.flock

    def asking(opened: int, how: int) -> None:
        asked.append(how)
        flock(opened, how)

    with WriterLock(str(tmp_path)).fair():
        monkeypatch.setattr(fcntl, "flock", asking)
        monkeypatch.setattr(opening, "FAIR_WAIT_S", LONG_S)
        done = threading.Event()

        def write() -> None:
            with WriterLock(str(tmp_path)).fair():
                done.set()

        writer = threading.Thread(target=write)
        writer.start()
        while not asked:
            assert not done.wait(0.01)
    writer.join()
    assert done.is_set()
    assert [how for how in asked if how != fcntl.LOCK_UN] == [fcntl.LOCK_EX]


def test_waits_that_ended_leave_one_thread_and_do_not_keep_the_lock_from_others(
    tmp_path, monkeypatch
):
    late = WriterLock(str(tmp_path))
    with WriterLock(str(tmp_path)).fair():
        monkeypatch.setattr(opening, "FAIR_WAIT_S", 0.01)
        before = set(threading.enumerate())
        for _ in range(3):
            with late.fair():
                assert not late._taken.done()
        assert len(set(threading.enumerate()) - before) == 1
    monkeypatch.setattr(opening, "FAIR_WAIT_S", LONG_S)
    for lock in (WriterLock(str(tmp_path)), late):
        lock._taken.result(LONG_S)
        file = (tmp_path / opening.WRITER_LOCK).open()
        with file, lock.fair(), pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_without_file_locks_writers_go_on_and_it_is_said_once(tmp_path, monkeypatch, caplog):
    """As on NFS and some FUSE mounts."""
    queue = filled_queue(tmp_path / "q")

    def refuse(_opened: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    opening._say_no_locks.cache_clear()
    queue.sync.insert(1001, "SPY")
    opened, began = len(os.listdir("/proc/self/fd")), time.monotonic()
    for conid in range(1002, 1006):
        queue.sync.insert(conid, "SPY")
    assert time.monotonic() - began < opening.FAIR_WAIT_S
    assert len(os.listdir("/proc/self/fd")) <= opened
    assert sum("no file locks" in one for one in caplog.messages) == 1
