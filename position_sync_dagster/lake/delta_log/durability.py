"""Bring a table's commits to the disk, so that they outlive a loss of power."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from position_sync_dagster.errors import LakeNotWritableError
from position_sync_dagster.lake.delta_log.commit_log import (
    LAST_CHECKPOINT,
    LOG,
    checkpoint_name,
    checkpoint_versions,
    entry_name,
    read_entry,
)

_THREADS = 8
"""Files synced at once share one turn of the disk's journal: 6 files take 0.5 to 2 ms together,
and 15 one after the other (ext4)."""

_FOLDERS_KEPT = 1000

_pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="fsync")


class SyncedCommits:
    """What is known to be on the disk of one local table.

    A commit is only as safe as those it builds on, whoever made them: all versions since the last
    ones that this object synced are synced, at first those since the last checkpoint, which its
    writer made of synced versions only.

    Args:
        on: Whether to sync at all.
    """

    def __init__(self, table: Path, *, on: bool) -> None:
        self._table = table
        self._log = table / LOG
        self._on = on
        self._through = -1
        self._folders: set[Path] = set()

    def forget(self) -> None:
        """Begin anew: the table is another one."""
        self._through = -1
        self._folders.clear()

    def sync_through(self, version: int) -> None:
        """Sync all versions up to this one.

        Raises:
            LakeNotWritableError: The disk refused; the versions are there, and may be lost with
                the power.
        """
        if not self._on or version <= self._through:
            return
        paths: set[Path] = set()
        after = self._through
        if after < 0:
            checkpoint = max((v for v in checkpoint_versions(self._log) if v <= version), default=0)
            paths |= {self._table.parent, self._table, self._log / LAST_CHECKPOINT}
            paths.add(self._log / checkpoint_name(checkpoint))
            after = checkpoint - 1
        paths |= self._written(range(after + 1, version + 1))
        self._sync(paths)
        self._through = version
        self._folders |= {path.parent for path in paths if path.suffix == ".parquet"}
        if len(self._folders) > _FOLDERS_KEPT:
            self._folders.clear()

    def sync_checkpoint(self, version: int) -> None:
        """Sync the checkpoint of a version; entries before it may be deleted only then."""
        if self._on:
            names = (checkpoint_name(version), LAST_CHECKPOINT, "")
            self._sync({self._log / name for name in names})

    def _written(self, versions: range) -> set[Path]:
        """Give what versions brought: entries, files, and folders that have a new member."""
        paths = {self._log}
        for version in versions:
            paths.add(self._log / entry_name(version))
            for file in read_entry(self._log, version).added:
                folder = (self._table / file.path).parent
                paths |= {self._table / file.path, folder}
                while folder != self._table and folder not in self._folders:
                    folder = folder.parent
                    paths.add(folder)
        return paths

    def _sync(self, paths: Iterable[Path]) -> None:
        try:
            sync_now(paths)
        except OSError as error:
            raise LakeNotWritableError(
                f"A change of {self._table} is made, and the disk did not confirm it: {error}.",
                remedy="Check the disk; after a loss of power run `position-sync doctor`.",
            ) from error


def sync_now(paths: Iterable[Path]) -> None:
    """Sync files and folders; one that is gone is passed over."""
    list(_pool.map(_fsync, paths))


def _fsync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # superseded and deleted since
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
