"""The lock of a home: one `dagster dev` in it at a time.

It is an advisory lock on an open file. Each keeper that was started under it holds the same
open file, so that the home stays locked until the last process of it has ended, even when the
owner was killed.
"""

import fcntl
import json
import os
import time
from pathlib import Path

import psutil

from position_sync_dagster.errors import PositionSyncError

LOCK_FILE = ".lock"
POLL_S = 0.1


class HomeInUseError(PositionSyncError):
    """Another process runs in the home."""


class HomeLock:
    """The lock of the folder `home`; taken with `acquire`.

    Args:
        purpose: What the holder is, for the message that another one shows.
    """

    def __init__(self, home: Path, *, purpose: str) -> None:
        self._home = home
        self._purpose = purpose
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """Give the file descriptor; the lock is held while any copy of it is open."""
        if self._fd is None:
            raise RuntimeError("The lock is not held.")
        return self._fd

    def acquire(self, *, wait_s: float = 10.0) -> None:
        """Take the lock; wait for the processes of an owner that is gone already.

        Raises:
            HomeInUseError: A living process holds it, or it was not free after `wait_s`.
        """
        fd = os.open(self._home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
                who = holder or "processes of a session that has ended"
                raise HomeInUseError(
                    f"The home {self._home} is in use by {who}.",
                    remedy="End it first, or choose another home.",
                ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder_record(self._purpose), 0)
        self._fd = fd

    def release(self) -> None:
        """Let go of this process's copy."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def holder_record(purpose: str) -> bytes:
    """Say who holds the lock, for a person and for `living_holder`."""
    me = psutil.Process()
    return json.dumps({"purpose": purpose, "pid": me.pid, "started": me.create_time()}).encode()


def living_holder(content: bytes) -> str | None:
    """Name the holder that a lock file tells of, if it still runs."""
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
