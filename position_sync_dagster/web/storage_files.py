"""The files of Dagster's storage on SQLite, which may be deleted or replaced while it runs.

A program that has one open goes on with what is deleted, and one that opens it later finds an empty
file without tables: each of Dagster's steps fails then, hundreds of times.
"""

import os
from pathlib import Path

from position_sync_dagster import last_work
from position_sync_dagster.web.supervised_program import CannotRunError

STORAGE = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
"""The files of Dagster's storage on SQLite, in its home."""


class StorageFiles:
    """The files of Dagster's storage, held open: else the next file may get the same inode."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self._made = False

    def make(self) -> None:
        """Make the files that are missing, before several programs do so at once, and hold all.

        Raises:
            CannotRunError: The storage cannot be used.
        """
        self.close()
        paths = [last_work.dagster_home() / name for name in STORAGE]
        if self._made or not all(path.exists() for path in paths):
            from dagster import DagsterInstance

            try:
                with DagsterInstance.get():
                    pass
            except Exception as error:
                raise CannotRunError(f"Dagster's storage cannot be used: {error}") from error
        self._made = True
        self._held = {path: os.open(path, os.O_RDONLY) for path in paths if path.exists()}

    def close(self) -> None:
        """Hold nothing any more."""
        for fd in self._held.values():
            os.close(fd)
        self._held = {}

    def lost(self) -> list[str]:
        """Return the files that were deleted or replaced since."""
        return [path.name for path, fd in self._held.items() if not is_still(path, fd)]


def is_still(path: Path, fd: int) -> bool:
    """Return whether a path still names an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except OSError:
        return False
