"""Changes of one table: each is one commit, conflicts lose no update, and who waits is woken."""

import errno
import fcntl
import itertools
import os
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.errors import CommitContentionError, LakeNotWritableError, StalledError
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.queue_transitions import new_requests
from position_sync_dagster.lake.schema import new_ids
from position_sync_dagster.lake.storage import durability, opening, table
from position_sync_dagster.lake.storage.lifecycle_table import Change
from position_sync_dagster.lake.storage.opening import Upkeep, WriterLock
from tests.support.queues import filled_queue


def test_a_disk_that_cannot_sync_is_reported_and_the_change_is_not_made_twice(
    tmp_path, monkeypatch
):
    queue = filled_queue(tmp_path / "q", 3)

    def refuse(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(durability, "sync_path", refuse)
    with pytest.raises(LakeNotWritableError, match="did not confirm"):
        queue.sync.claim_batch(limit=1)
    monkeypatch.undo()
    counts = PositionQueue(tmp_path / "q").sync.counts()
    assert counts[QueueStatus.PENDING] == 2
    assert counts[QueueStatus.PROCESSING] == 1


def test_a_writer_that_never_wins_gives_up_in_bounded_time_and_changes_nothing(
    tmp_path, monkeypatch
):
    queue = PositionQueue(tmp_path / "q")
    monkeypatch.setattr(queue.table, "_contention_s", 0.3)
    queue.sync.initialize()
    # It goes on without the lock that the other one in this test holds.
    rival = PositionQueue(tmp_path / "q", upkeep=Upkeep(lock_wait_s=0.01))
    conids = iter(range(1, 10_000))

    def decide_too_late(snapshot):
        rival.sync.insert_many([QueueRequest(next(conids), "SPY")])
        return Change(None, new_requests([QueueRequest(1, "QQQ")], utc_now(), new_ids))

    with pytest.raises(CommitContentionError, match="nothing was changed"):
        queue.sync.store.change(decide_too_late, {})
    assert rival.sync.counts()[QueueStatus.PENDING] == next(conids) - 1


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="a clock of Linux")
def test_a_commit_during_which_the_machine_slept_is_not_acknowledged(tmp_path, monkeypatch):
    queue = filled_queue(tmp_path / "q", 3)
    looks = itertools.count()

    def clock_gettime(clock: int) -> float:
        """An hour passes between two looks, for the clock that goes on in a sleep."""
        return next(looks) * 3600.0 if clock == time.CLOCK_BOOTTIME else 1000.0

    clocks = SimpleNamespace(monotonic=lambda: 1000.0, clock_gettime=clock_gettime)
    monkeypatch.setattr(table, "time", clocks)
    with pytest.raises(StalledError, match="stopped for minutes"):
        queue.sync.claim_batch()
    assert queue.sync.get_batch(None, status=QueueStatus.PROCESSING), "a read is never suspect"
    monkeypatch.undo()
    assert queue.sync.insert_many([QueueRequest(9, "SPY")])


def test_a_change_is_made_although_its_checkpoint_finds_no_free_file(tmp_path, monkeypatch, caplog):
    filled_queue(tmp_path / "q", 3)
    queue = PositionQueue(tmp_path / "q", upkeep=Upkeep(checkpoint_every=1))
    open_file = os.open
    locks = []

    def exhausted(path, *arguments, **more):
        if str(path).endswith(durability.WRITER_LOCK):
            locks.append(path)
            if len(locks) > 1:  # the change had its file; the checkpoint finds none
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open_file(path, *arguments, **more)

    monkeypatch.setattr(os, "open", exhausted)
    assert len(queue.sync.claim_batch(limit=1)) == 1
    monkeypatch.undo()
    assert len(locks) == 2
    assert "cannot write a checkpoint" in caplog.text
    assert "Too many open files" in caplog.text
    assert queue.sync.counts()[QueueStatus.PROCESSING] == 1


MANY = 5


def claimed(queue: PositionQueue) -> list[str]:
    return [request.request_id for request in queue.sync.claim_batch(MANY)]


def failed_for_good(queue: PositionQueue) -> list[str]:
    ids = claimed(queue)
    queue.sync.mark_failed_many(dict.fromkeys(ids, "no such contract"), retryable=False)
    return ids


def requests(*conids: int, priority: int = 2) -> list[QueueRequest]:
    return [QueueRequest(conid, "SPY", priority) for conid in conids]


Prepare = Callable[[PositionQueue], list[str]]


ONE_COMMIT: dict[str, tuple[Prepare, Callable[[PositionQueue, list[str]], object]]] = {}
ONE_COMMIT["insert few"] = (claimed, lambda q, _: q.sync.insert_many(requests(101, 102, 103)))
ONE_COMMIT["insert many"] = (claimed, lambda q, _: q.sync.insert_many(requests(*range(101, 141))))
ONE_COMMIT["insert known"] = (
    claimed,
    lambda q, _: q.sync.insert_many(requests(*range(8, 15), priority=1)),
)
ONE_COMMIT["claim"] = (claimed, lambda q, _: q.sync.claim_batch(MANY))
ONE_COMMIT["mark success"] = (claimed, lambda q, ids: q.sync.mark_success(ids))
ONE_COMMIT["mark failed"] = (
    claimed,
    lambda q, ids: q.sync.mark_failed_many(dict.fromkeys(ids, "busy")),
)
ONE_COMMIT["give up"] = (
    claimed,
    lambda q, ids: q.sync.mark_failed_many(dict.fromkeys(ids, "x"), retryable=False),
)
ONE_COMMIT["release"] = (claimed, lambda q, ids: q.sync.release(ids, "the gateway is gone"))
ONE_COMMIT["retry"] = (failed_for_good, lambda q, ids: q.sync.retry(ids))


@pytest.mark.parametrize("call", ONE_COMMIT)
def test_a_call_for_many_requests_is_one_commit(tmp_path, call):
    queue = filled_queue(tmp_path / "q", 12)
    prepare, change = ONE_COMMIT[call]
    ids = prepare(queue)
    assert len(ids) == MANY
    before = queue.table.rows().sort("request_id")
    version = queue.table.version()
    change(queue, ids)
    assert queue.table.version() == version + 1
    touched = queue.table.rows().join(before, on=before.columns, how="anti", nulls_equal=True)
    assert touched.height >= 3, "it was for many"


LONG_S = 60.0


def test_a_writer_waits_until_the_one_before_it_is_done(tmp_path, monkeypatch):
    asked = threading.Event()
    done = threading.Event()
    monkeypatch.setattr(opening.time, "sleep", lambda _seconds: asked.set())

    def write() -> None:
        with WriterLock(str(tmp_path), LONG_S).fair():
            done.set()

    writer = threading.Thread(target=write)
    with WriterLock(str(tmp_path)).fair():
        writer.start()
        assert asked.wait(LONG_S)
        assert not done.is_set()
    writer.join()
    assert done.is_set()


def test_a_writer_that_waited_in_vain_does_not_ask_again_soon_and_keeps_no_lock(
    tmp_path, monkeypatch
):
    late = WriterLock(str(tmp_path), 0.01)
    with WriterLock(str(tmp_path)).fair(), late.fair():
        pass
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("it asks again"))
    with late.fair():
        pass
    monkeypatch.undo()
    file = (tmp_path / durability.WRITER_LOCK).open()
    with file, WriterLock(str(tmp_path)).fair(), pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_worker_that_wants_nothing_keeps_no_writer_waiting(tmp_path, monkeypatch):
    queue = filled_queue(tmp_path / "q").sync
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("it waits for its turn"))
    assert queue.claim_batch(limit=0) == []
    assert queue.rescue() == []


def test_without_file_locks_writers_go_on(tmp_path, monkeypatch):
    """As on NFS and some FUSE mounts."""
    filled_queue(tmp_path / "q")
    # Whoever waits for its turn hangs.
    queue = PositionQueue(tmp_path / "q", upkeep=Upkeep(lock_wait_s=inf))

    def refuse(_opened: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    queue.sync.insert(1001, "SPY")
    opened = len(os.listdir("/proc/self/fd"))
    for conid in range(1002, 1006):
        queue.sync.insert(conid, "SPY")
    assert len(os.listdir("/proc/self/fd")) <= opened
