"""The lock file by which the writers of one local table wait for each other.

The lock makes writers fair to each other; it does not make them safe. Safety is Delta's own check
of each commit. Without the lock, four writers in a tight loop keep each other waiting for seconds.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from position_sync_dagster.errors import CommitContentionError
from position_sync_dagster.lake.object_store import is_remote
from position_sync_dagster.lake.storage.commit_errors import to_lake_error
from position_sync_dagster.lake.storage.delta_log import sync_paths

WRITER_LOCK = ".turn.lock"
"""The name of the lock file; it may be in the folder before the table is."""

FAIR_WAIT_S = ((0.02, 0.002), (0.08, 0.0005), (1.9, 0.0001))
"""Phases of waiting for the lock: the length of each, and the pause between two attempts in it, in
seconds. The pauses get shorter, since a writer that tries seldom is overtaken by the one that just
released the lock. After the last phase the writer continues without the lock."""

OWNER_ONLY = 0o700


def make_private_folder(path: str) -> None:
    """Create the folder of a table, and the lake's folder around it, for the owner alone.

    Other users cannot reach the files inside then, whatever the permissions of the files. A folder
    that exists stays as it is: its owner may have opened it to a group. Errors are ignored, since
    the next write to the folder fails with the same error. The parents of new folders are synced,
    because later commits sync no folder outside the table.

    Args:
        path: A folder or a URI; nothing is done for a URI.
    """
    if "://" in path or os.path.isdir(path):
        return
    lake = Path(path).parent
    new = [folder for folder in (lake, *lake.parents) if not folder.exists()]
    with suppress(OSError):
        lake.parent.mkdir(parents=True, exist_ok=True)
        lake.mkdir(mode=OWNER_ONLY, exist_ok=True)
        Path(path).mkdir(mode=OWNER_ONLY, exist_ok=True)
        sync_paths(folder.parent for folder in new)


class WriterLock:
    """The lock of the table at a path; a table in an object store has none.

    Args:
        path: The table's folder or URI.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._remote = is_remote(path)

    @contextmanager
    def fair(self) -> Iterator[None]:
        """Wait for the lock for a bounded time, and continue with or without it."""
        if self._remote:
            yield
            return
        make_private_folder(self._path)
        lock = FileLock(f"{self._path}/{WRITER_LOCK}")
        try:
            for wait_s, poll_s in FAIR_WAIT_S:
                with suppress(Timeout):
                    lock.acquire(timeout=wait_s, poll_interval=poll_s)
                    break
        except OSError as error:
            raise to_lake_error(error, self._path) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def exclusive(self, timeout_s: float) -> Iterator[None]:
        """Hold the lock of a local table.

        Raises:
            CommitContentionError: Another process held it for `timeout_s` seconds.
        """
        lock = FileLock(f"{self._path}/{WRITER_LOCK}")
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout as error:
            raise CommitContentionError(
                f"Another process holds the writers' lock of {self._path}; nothing was changed.",
                remedy="End what writes to the lake, then repair it.",
            ) from error
        except OSError as error:
            raise to_lake_error(error, self._path) from error
        try:
            yield
        finally:
            lock.release()
