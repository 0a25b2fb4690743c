"""The lock of a home: only one `dagster dev` runs in it at a time.

It is an advisory lock (`flock`) on an open file. Each reaper that was started under it holds the
same open file. So the home stays locked until the last of its processes has ended, also when the
owner was killed. The package filelock cannot do this: its release unlocks the file for all
processes that share it.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from position_sync_dagster.errors import PositionSyncError
from position_sync_dagster.processes.home import HomeError
from position_sync_dagster.processes.process_tree import end_processes, find_marked

LOCK_FILE = ".lock"
POLL_S = 0.1
LEFTOVER_GRACE_S = 1.0
"""Seconds between the interrupt and the kill of processes that an earlier owner left."""


class HomeInUseError(PositionSyncError):
    """Another process uses the home."""


class HomeLock:
    """The lock of the folder `home`. `acquire` takes it.

    Args:
        purpose: The name of the holder, for the message that another process shows.
    """

    def __init__(self, home: Path, *, purpose: str) -> None:
        self._home = home
        self._purpose = purpose
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The file descriptor. The lock is held while any copy of it is open."""
        if self._fd is None:
            raise RuntimeError("The lock is not held.")
        return self._fd

    def acquire(self, *, wait_s: float = 10.0) -> None:
        """Take the lock. If its owner has ended, wait for the owner's processes to end.

        Raises:
            HomeInUseError: A living process holds it, or it was not free after `wait_s`.
        """
        fd = os.open(self._home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = living_holder(os.pread(fd, 4096, 0))
                if holder is None and time.monotonic() < deadline:
                    time.sleep(POLL_S)
                    continue
                os.close(fd)
                user = holder or "processes whose owner has ended"
                raise HomeInUseError(
                    f"The home {self._home} is in use by {user}.",
                    remedy="End it first, or choose another home.",
                ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder_record(self._purpose), 0)
        self._fd = fd

    def release(self) -> None:
        """Close this process's copy of the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextmanager
def exclusive_use(home: Path, *, purpose: str) -> Iterator[HomeLock]:
    """Hold the lock of the folder `home`; end its leftover processes before and after.

    Raises:
        HomeInUseError: Another living process holds the lock.
        HomeError: The folder cannot be created or written.
    """
    lock = HomeLock(home, purpose=purpose)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise HomeError(
            f"The home {home} cannot be written: {error.strerror}.",
            remedy="Choose a folder that you can write.",
        ) from error
    try:
        end_processes(lambda: find_marked(home), grace_s=LEFTOVER_GRACE_S)
        yield lock
    finally:
        end_processes(lambda: find_marked(home), grace_s=LEFTOVER_GRACE_S)
        lock.release()


def holder_record(purpose: str) -> bytes:
    """Return the content of the lock file: the holder's purpose and process, as JSON."""
    process = psutil.Process()
    return json.dumps(
        {"purpose": purpose, "pid": process.pid, "started": process.create_time()}
    ).encode()


def living_holder(content: bytes) -> str | None:
    """Return a description of the holder in a lock file's content, None if it has ended."""
    try:
        record = json.loads(content)
        process = psutil.Process(record["pid"])
        if abs(process.create_time() - record["started"]) > 1.0:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
    except (ValueError, KeyError, TypeError, psutil.Error):
        return None
    return f"{record.get('purpose', 'a process')} (process {record['pid']})"
