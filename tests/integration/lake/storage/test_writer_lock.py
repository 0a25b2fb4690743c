"""The lock of local writers: who waits is woken, and a wait that ended leaves nothing behind."""

import fcntl
import threading

import pytest

from position_sync_dagster.errors import CommitContentionError
from position_sync_dagster.lake.storage import opening
from position_sync_dagster.lake.storage.opening import WriterLock

LONG_S = 60.0


def test_a_writer_that_waits_is_woken_and_does_not_ask_again(tmp_path, monkeypatch):
    asked: list[int] = []
    flock = fcntl.flock

    def asking(opened: int, how: int) -> None:
        asked.append(how)
        flock(opened, how)

    with WriterLock(str(tmp_path)).exclusive(LONG_S):
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
    monkeypatch.setattr(opening, "FAIR_WAIT_S", 0.01)
    late = WriterLock(str(tmp_path))
    with WriterLock(str(tmp_path)).exclusive(LONG_S):
        before = set(threading.enumerate())
        for _ in range(3):
            with late.fair():
                pass
        with pytest.raises(CommitContentionError, match="holds the writers' lock"):
            late.exclusive(0.01).__enter__()
        assert len(set(threading.enumerate()) - before) == 1
    with WriterLock(str(tmp_path)).exclusive(LONG_S):
        pass
    with late.exclusive(LONG_S):
        pass
