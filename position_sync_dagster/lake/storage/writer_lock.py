"""A lock file that makes the writers of one machine fair to each other.

It does not make them safe: Delta's check of each commit does. Without the lock, four writers in a
tight loop keep each other waiting for seconds. Only its owner may enter the folder of a new table.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.lake.storage import commit_errors
from position_sync_dagster.lake.storage.durability import sync_paths

logger = logging.getLogger(__name__)

# The name of the lock file; it may be in the folder before the table is.
WRITER_LOCK = ".turn.lock"

# How long a writer waits for the lock, in seconds; then it continues without the lock.
FAIR_WAIT_S = 2.0

OWNER_ONLY = 0o700


def make_private_folder(path: str) -> None:
    """Create the folder of a table, and the lake's folder around it, for the owner alone.

    Other users cannot reach the files inside then, whatever the permissions of the files. A folder
    that exists stays as it is: its owner may have opened it to a group. The parents of new folders
    are synced, because later commits sync no folder outside the table.

    Args:
        path: A folder or a URI; nothing is done for a URI.

    Raises:
        LakeNotWritableError: A folder cannot be made.
    """
    if "://" in path or os.path.isdir(path):
        return
    lake = Path(path).parent
    new = [folder for folder in (lake, *lake.parents) if not folder.exists()]
    try:
        lake.parent.mkdir(parents=True, exist_ok=True)
        lake.mkdir(mode=OWNER_ONLY, exist_ok=True)
        Path(path).mkdir(mode=OWNER_ONLY, exist_ok=True)
        sync_paths(folder.parent for folder in new)
    except OSError as error:
        raise LakeNotWritableError(
            f"No folder can be made at {path}: {error.strerror}.",
            remedy="Correct the rights of the folder around it, or set POSITION_SYNC_LAKE to "
            "another place.",
        ) from error


class WriterLock:
    """The lock of the table at a path; a table in an object store has none.

    It is an advisory lock (`flock`) on a file, which ends with the process that holds it. On a file
    system without such locks (some NFS and FUSE mounts) that is said once, and work goes on. The
    kernel wakes a thread that waits for the lock. That thread cannot be interrupted: after a wait
    that ended without the lock, all go on without it until the thread gets it, and releases it.

    Args:
        path: The table's folder or URI.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_usable = "://" not in path
        self._taken = Future[None]()
        self._taken.set_result(None)

    @contextmanager
    def fair(self) -> Iterator[None]:
        """Wait for the lock for a bounded time, and continue with or without it."""
        if not self._is_usable or not self._taken.done():
            yield
            return
        make_private_folder(self._path)
        try:
            opened = os.open(f"{self._path}/{WRITER_LOCK}", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            commit_errors.fail(error, self._path)
        self._taken = taken = Future[None]()
        Thread(target=_take, args=(opened, taken), daemon=True).start()
        try:
            with suppress(TimeoutError):
                self._is_usable = taken.exception(FAIR_WAIT_S) is None
            if not self._is_usable:
                logger.warning(
                    "the file system of %s has no file locks (%s): writers that meet may wait "
                    "longer for each other",
                    self._path,
                    taken.exception(),
                )
            yield
        finally:
            taken.add_done_callback(lambda _taken: _unlock(opened))


def _take(opened: int, taken: Future[None]) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
    except OSError as error:
        taken.set_exception(error)
    else:
        taken.set_result(None)


def _unlock(opened: int) -> None:
    with suppress(OSError):  # a file system without locks
        fcntl.flock(opened, fcntl.LOCK_UN)  # also for a process that was forked meanwhile
    os.close(opened)
