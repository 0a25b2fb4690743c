"""One Delta table: created, checked, read, and changed by commits that never lose an update.

Its open handle is kept up to date with the log, and opened again when necessary. Reads and commits
that fail are retried for a bounded time.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, TypedDict
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from polars import DataFrame, Expr, LazyFrame

from position_sync_dagster.errors import LakeError, StalledError
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.storage.commit_errors import (
    STORAGE_ERRORS,
    to_lake_error,
)
from position_sync_dagster.lake.storage.commits import T, bind, check_room, retried
from position_sync_dagster.lake.storage.data_files import EVERY, data_files
from position_sync_dagster.lake.storage.durability import (
    LOG,
    SyncedCommits,
    checkpoint_name,
)
from position_sync_dagster.lake.storage.merges import compact_after_commit
from position_sync_dagster.lake.storage.object_store import (
    StorageOptions,
    absolute_path,
    is_remote,
    polars_options,
)
from position_sync_dagster.lake.storage.opening import UPKEEP, TableHandle, Upkeep, Use, WriterLock

logger = logging.getLogger(__name__)

# Seconds from a snapshot after which a commit is suspect: the log may have been cleaned since.
SUSPECT_AFTER_S = 300.0

# The clock for it. It goes on while the machine sleeps, as writers on other machines do.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


# How long a change is retried while other writers commit first, in seconds: in an object store each
# attempt takes several requests.
CONTENTION_S = 15.0
REMOTE_CONTENTION_S = 60.0


# The column of the path or URI of the file of each row, while a table is read.
_FILE = "file"


class TableOptions(TypedDict, total=False):
    """The options of every table; see `Table`, where the defaults are."""

    storage_options: StorageOptions
    fsync: bool
    use: Use
    upkeep: Upkeep


# Merges of tables in an object store, one at a time.
_merges = ThreadPoolExecutor(max_workers=1, thread_name_prefix="merges")


class Table:
    """A Delta table at a path; every method may be called from any thread.

    Args:
        path: A folder, absolute or relative to the working directory, or an `s3://` URI.
        fsync: Whether a change is synced to the disk before the call returns (local tables only).
        use: For what the table is opened.
        upkeep: When it is tidied, and how long its writers wait for each other.

    Attributes:
        is_remote: Whether the table lies in an object store.
    """

    def __init__(
        self,
        path: str | Path,
        spec: schema.TableSpec,
        *,
        storage_options: StorageOptions = None,
        fsync: bool = True,
        use: Use = "work",
        upkeep: Upkeep = UPKEEP,
    ) -> None:
        self.path = absolute_path(path)
        self.spec = spec
        self.upkeep = upkeep
        self.options = storage_options
        self.is_remote = is_remote(self.path)
        is_synced = fsync and not self.is_remote
        self._synced = SyncedCommits(Path(self.path), on=is_synced)
        self._handle = TableHandle(self.path, spec, self.options, use, upkeep, self._synced)
        self._writer_lock = WriterLock(self.path, upkeep.lock_wait_s)
        # How long an attempt is repeated while other writers are first.
        self._contention_s = REMOTE_CONTENTION_S if self.is_remote else CONTENTION_S
        self._mutex = RLock()  # one thread at a time uses the handle
        # The data files that were listed last: of which handle, and at which version.
        self._listed: tuple[DeltaTable | None, int, DataFrame] = (None, -1, DataFrame())
        # Whether a commit reached a multiple of `compact_every`; `transact` merges then.
        self._compaction_due = False

    def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there.

        Raises:
            ForeignTableError, NewerTableError, BrokenTableError, LakeNotWritableError,
            CommitContentionError.
        """
        self.version()

    def exists(self) -> bool:
        """Return whether there is a table at the path; a request, where it is remote.

        Raises:
            LakeError: The folder may not be read, the store cannot be used, or there are files of a
                table whose log is gone.
        """
        return retried(self._handle.exists, path=self.path, contention_s=self._contention_s)

    def damage(self) -> LakeError | None:
        """Return why the log of the table cannot be read; None if it can, or never was there."""
        try:
            # A table that this process has opened has to be there. It is opened anew: who follows
            # the log sees only what was added to it.
            if self._handle.was_opened or self.exists():
                with self._mutex:
                    self._handle.drop()
                self.version()
        except LakeError as error:
            return error
        return None

    def snapshot(self, step: Callable[[DeltaTable], T]) -> T:
        """Read from the newest version; `step` may run more than once."""
        return self._run(step, change=False)

    def read(self, step: Callable[[DataFrame], T], chosen: Expr = EVERY) -> T:
        """Read from data files of the newest version.

        Args:
            step: Reads the files that it is given; it may run more than once.
            chosen: Chooses the files.
        """

        def read_files(handle: DeltaTable) -> T:
            # Inside `noted` the reading is kept, so that `derive` can repeat it and compare.
            files = self._files_of(handle)
            if chosen is not EVERY:
                files = files.filter(chosen)
            reads = _NOTED.get()
            if reads is not None:
                reads.append(Read(self, step, chosen, files))
            return step(files)

        return self.snapshot(read_files)

    def _files_of(self, handle: DeltaTable) -> DataFrame:
        """Return the data files of a snapshot, which the log is asked for once a version."""
        listed_of, version, files = self._listed
        if listed_of is not handle or version != handle.version():
            files = data_files(handle)
            self._listed = (handle, handle.version(), files)
        return files

    def transact(self, step: Callable[[DeltaTable], T]) -> T:
        """Read, decide and commit on one handle; on a conflict all of it runs again.

        After enough commits the smallest files are merged. In an object store a merge takes up to
        20 s: there it runs beside the writer, on a handle of its own, so that no flush waits for
        it.

        The handle that `step` reads is the one it commits with, so that Delta checks the commit
        against exactly what was read.

        Raises:
            CommitContentionError: Other writers committed first each time; nothing was changed.
            BrokenTableError: Nothing was changed.
            LakeNotWritableError: Nothing was changed, or the change was committed and the disk did
                not confirm it; the message says which.
        """
        result = self._run(step, change=True)
        with self._mutex:  # of several threads one merges
            is_due = self._compaction_due
            self._compaction_due = False
        if is_due and self.is_remote:
            beside = Table(self.path, self.spec, storage_options=self.options, upkeep=self.upkeep)
            _merges.submit(compact_after_commit, beside)
        elif is_due:
            compact_after_commit(self)
        return result

    def scan_files(self, files: DataFrame) -> LazyFrame:
        """Return the rows of data files of a snapshot, read side by side.

        In an object store each file takes one request, where a predicate of Delta takes three, one
        file after the other. Rows without a value that they need are left out.

        Args:
            files: Rows of `data_files`.
        """
        return self.scan_stored(files).filter(self.spec.readable)

    def scan_stored(self, files: DataFrame) -> LazyFrame:
        """Return the rows of data files of a snapshot exactly as they are stored."""
        spec = self.spec
        if files.is_empty():
            return spec.empty.lazy()
        # The log has the path of a file as a part of a URL.
        paths = [f"{self.path}/{unquote(path)}" for path in files["path"]]
        rows = pl.scan_parquet(
            paths,
            schema=spec.stored,
            missing_columns="insert",
            extra_columns="ignore",  # those of an older release
            glob=False,
            hive_partitioning=False,
            include_file_paths=_FILE,
            storage_options=polars_options(self.options) if self.is_remote else None,
            credential_provider=None,
        )
        if spec.partition_by:  # the log has these columns, and no data file does
            parts = (pl.col(f"partition.{name}").alias(name) for name in spec.partition_by)
            of_file = files.select(pl.Series(_FILE, paths, pl.String), *parts)
            rows = rows.join(of_file.lazy(), on=_FILE)
        return rows.select(pl.col(*spec.columns))

    def read_rows(
        self, files: DataFrame, columns: Sequence[str] | None = None, only: Expr = EVERY
    ) -> DataFrame:
        """Read rows from data files of a snapshot into memory.

        Args:
            files: Rows of `data_files`.
            columns: Of the table; all by default.
            only: Chooses rows.
        """
        if files.is_empty():
            return self.spec.empty.select(columns) if columns else self.spec.empty
        names = pl.col(columns or list(self.spec.columns))
        return self.scan_files(files).filter(only).select(names).collect()

    def fence(self, gateway_id: str, token: int) -> None:
        """Refuse, from now on, owners of the gateway with a smaller fencing token.

        Raises:
            LeaseLostError: An owner with a greater token has fenced the table already.
        """
        self.transact(lambda handle: bind(handle, self.path, owner=(gateway_id, token)))

    def rows(
        self, only: Expr = EVERY, chosen: Expr = EVERY, columns: Sequence[str] | None = None
    ) -> DataFrame:
        """Read the rows that one expression chooses, from data files that another one chooses.

        They come in no particular order.
        """
        return self.read(lambda files: self.read_rows(files, columns, only), chosen)

    def count(self) -> int:
        """Count the rows, from the log alone."""
        return int(self.read(lambda files: files["num_records"].sum()))

    def version(self) -> int:
        """Return the newest version."""
        return self.snapshot(lambda handle: handle.version())

    def table_id(self) -> str:
        """Return the id of the table: another one after it was deleted and created again."""
        return self.snapshot(lambda handle: str(handle.metadata().id))

    def cache_key(self, handle: DeltaTable) -> tuple[int, int]:
        """Return a key that is equal for equal content, for caches.

        Returns:
            The generation and the version. The generation grows when the table may have been
            created again or restored: then the same version number may have another content.
        """
        return (self._handle.generation, handle.version())

    def checkpoint(self, handle: DeltaTable) -> None:
        """Write a checkpoint of the handle's version, and sync the versions that it stands for.

        On a disk, a checkpoint that exists is left alone: written again it may differ in size, and
        a reader that has it open takes that for damage. A store replaces an object whole.
        """
        version = handle.version()
        with self._mutex, self._writer_lock.fair():
            self._synced.sync_through(version)
            if self.is_remote or not os.path.exists(
                f"{self.path}/{LOG}/{checkpoint_name(version)}"
            ):
                check_room(self.path)
                handle.create_checkpoint()
            self._synced.sync_checkpoint(version)

    def remove_empty_folders(self, *, empty_for_s: float) -> None:
        """Remove the folders of parts whose files were deleted; no such part is written again.

        Each commit that finishes rows makes a part, and delta-rs leaves the folder of a deleted
        file. Parts with a fixed name, which have no dash, are written again, and stay.

        Args:
            empty_for_s: How long a folder has been empty, in seconds.
        """
        before = time.time() - empty_for_s
        for folder in () if self.is_remote else Path(self.path).glob("bucket=*/part=*-*"):
            with suppress(OSError):  # it has a file, or another process was faster
                if folder.stat().st_mtime <= before:
                    folder.rmdir()

    def _run(self, step: Callable[[DeltaTable], T], *, change: bool) -> T:
        """Run a step on the newest version, again after errors that may pass (`retried`).

        Args:
            change: Whether it may commit: writers take turns, and sync what was committed.
        """

        def attempt() -> T:
            with self._mutex:
                try:
                    return self._attempt(step, change=change)
                except CommitFailedError:
                    raise  # another writer won: the handle is whole, and only to be updated
                except STORAGE_ERRORS:
                    self._handle.drop()
                    raise

        return retried(attempt, path=self.path, contention_s=self._contention_s)

    def _attempt(self, step: Callable[[DeltaTable], T], *, change: bool) -> T:
        """Run a step once on the newest version, and checkpoint the log if that is due.

        Args:
            change: Whether it may commit: then the lock of writers is held meanwhile, and the
                commit is synced to the disk.

        Raises:
            StalledError: The process stood still while it committed: the commit may be lost
                (`_record_commit`), and is not tried again.
        """
        if not self.is_remote:
            # A folder of something else is refused before a lock file is put there.
            self._handle.ready()
        with self._writer_lock.fair() if change else nullcontext():
            handle = self._handle.newest()
            started = time.clock_gettime(_CLOCK)
            before = handle.version()
            result = step(handle)
            self._record_commit(handle, before, started)  # if there was one
        if change:
            # Outside the lock: others may commit while this commit is synced.
            self._synced.sync_through(handle.version())
        self._checkpoint_if_due(handle, before)
        return result

    def _record_commit(self, handle: DeltaTable, before: int, started: float) -> None:
        """Record the version that a step committed, if it did, and whether a merge is due.

        Raises:
            StalledError: The process stood still in it for `SUSPECT_AFTER_S`: meanwhile others may
                have cleaned the log, and its commit follow entries that are gone.
        """
        version = handle.version()
        if version == before:
            return
        if time.clock_gettime(_CLOCK) - started > SUSPECT_AFTER_S:
            self._handle.drop()
            raise StalledError(
                f"This process was stopped for minutes inside a commit to {self.path}.",
                remedy="Read the table again before going on; the commit may be lost.",
            )
        self._handle.record(version)
        if _has_passed(self.upkeep.compact_every, before, version):
            self._compaction_due = True

    def _checkpoint_if_due(self, handle: DeltaTable, before: int) -> None:
        """Write a checkpoint after so many versions, and cut the log after more."""
        version = handle.version()
        if not _has_passed(self.upkeep.checkpoint_every, before, version):
            return
        self._handle.drop()  # opened again, it begins from the checkpoint
        try:
            self.checkpoint(handle)
            if _has_passed(self.upkeep.clean_every, before, version):
                handle.cleanup_metadata()
        except (*STORAGE_ERRORS, LakeError) as error:
            # The commit itself is whole; the next checkpoint or `maintain` makes up for this.
            logger.warning(
                "cannot write a checkpoint of %s at version %d; its commits are safe: %s",
                self.path,
                version,
                to_lake_error(error, self.path),
            )


def _has_passed(every: int, before: int, version: int) -> bool:
    """Return whether a multiple lies between the version before and this one."""
    return version // every != before // every


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a table: the arguments of `Table.read`, and the files that were chosen."""

    table: Table
    step: Callable[[DataFrame], Any]
    chosen: Expr
    files: DataFrame


# Where the reads of a thread are noted (see `noted`); None: nowhere.
_NOTED: ContextVar[list[Read] | None] = ContextVar("noted", default=None)


def is_noting() -> bool:
    """Return whether what is read here is noted."""
    return _NOTED.get() is not None


def noted(work: Callable[[], T]) -> tuple[T, list[Read]]:
    """Return what blocking work returns, and what it read of tables by `Table.read`.

    `derive` reads it once more when the rows are made, and makes them anew if it has changed.

    What is kept up to date in memory is not among this: the newest rows of the ledger, the live
    rows of a life cycle.
    """
    reads: list[Read] = []
    before = _NOTED.set(reads)
    try:
        return work(), reads
    finally:
        _NOTED.reset(before)
