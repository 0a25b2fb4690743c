"""The open handle of a table: created, checked, migrated or refused; the lock of its writers.

A handle is a `DeltaTable` at one version. It follows the log as others commit, until it is opened
anew (`TableHandle`).
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Literal

from arro3.core import ChunkedArray, DataType, Table
from arro3.core.types import ArrowStreamExportable
from deltalake import (
    CommitProperties,
    DeltaTable,
    Field,
    PostCommitHookProperties,
    QueryBuilder,
    write_deltalake,
)
from deltalake.exceptions import TableNotFoundError

from position_sync_dagster.errors import (
    BrokenTableError,
    ForeignTableError,
    LakeNotWritableError,
    NewerTableError,
)
from position_sync_dagster.lake.schema import (
    NAME_PROPERTY,
    STATISTICS_PROPERTY,
    VERSION_PROPERTY,
    TableSpec,
)
from position_sync_dagster.lake.storage.commit_errors import STORAGE_ERRORS, fail
from position_sync_dagster.lake.storage.durability import (
    LOG,
    WRITER_LOCK,
    SyncedCommits,
    entry_name,
    names_besides_log,
    refuse_torn,
    sync_paths,
)
from position_sync_dagster.lake.storage.object_store import (
    StorageOptions,
    data_file_below,
    is_remote,
    options_at,
)

logger = logging.getLogger(__name__)

# A commit writes no checkpoint and cuts no log: `Table` does, once the commit is synced.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def with_plain_texts(rows: ArrowStreamExportable) -> ChunkedArray:
    """Return rows as structs whose texts are plain strings.

    Polars and DataFusion have them as views. A data file names the type that it was given, and
    pyarrow from 21 on compares no text with a view: each filter of such a column fails.
    """
    structs = Table.from_arrow(rows).to_struct_array()
    fields = [field.with_type(_with_plain_text(field.type)) for field in structs.type.fields]
    return structs.cast(DataType.struct(fields))


def _with_plain_text(kind: DataType) -> DataType:
    """Return a type with plain texts in place of views, which pyarrow compares with no text."""
    if kind.value_type is not None:  # a list
        return DataType.list(_with_plain_text(kind.value_type))
    return DataType.string() if DataType.is_string_view(kind) else kind


# Between two attempts to take it, a fraction of what a commit takes.
LOCK_POLL_S = 0.002

# How long writers go on without the lock after they waited for it in vain.
SKIP_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """When the writers of a table tidy it, and how long they wait for each other.

    Attributes:
        lock_wait_s: How long a writer waits for the lock; then it continues without the lock.
        reopen_after_s: A handle that was not looked at for so long is opened anew; far below the
            retention of log and files.
        checkpoint_every: Versions after which a checkpoint is written: a process that opens the
            table reads each entry of the log since the checkpoint.
        clean_every: Versions after which the log is cut.
        compact_every: Versions after which small files are merged: each file of a snapshot costs
            every commit some microseconds (a claim takes 10 ms at 50 files, 28 at 1,000), and a
            reader of an object store a request.
        compact_from: Small files of one kind are merged when there are this many.
    """

    lock_wait_s: float = 2.0
    reopen_after_s: float = 20.0
    checkpoint_every: int = 10
    clean_every: int = 100
    compact_every: int = 200
    compact_from: int = 32


UPKEEP = Upkeep()

OWNER_ONLY = 0o700


def make_private_folder(path: str) -> None:
    """Create the folder of a table, and the lake's folder around it, for the owner alone.

    Other users cannot reach the files inside then, whatever the permissions of the files. A folder
    that exists stays as it is: its owner may have opened it to a group. The folders around a new
    lake are synced here; the lake's own folder is by the first commit of a table (`SyncedCommits`).

    Args:
        path: A folder or a URI; nothing is done for a URI.

    Raises:
        LakeNotWritableError: A folder cannot be made.
    """
    if os.path.isdir(path) or is_remote(path):
        return
    lake = Path(path).parent
    new = [folder for folder in (lake, *lake.parents) if not folder.exists()]
    try:
        lake.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
        Path(path).mkdir(mode=OWNER_ONLY, exist_ok=True)
        sync_paths(folder.parent for folder in new)
    except OSError as error:
        raise LakeNotWritableError(
            f"No folder can be made at {path}: {error.strerror}.",
            remedy="Correct the rights of the folder around it, or set POSITION_SYNC_LAKE to "
            "another place.",
        ) from error


class WriterLock:
    """A lock file that makes the writers of one machine fair to each other.

    It does not make them safe: Delta's check of each commit does. Without the lock, four writers in
    a tight loop keep each other waiting for seconds. A table in an object store has none.

    It is an advisory lock (`flock`) on a file, which ends with the process that holds it. Writers
    go on without it on a file system without such locks (some NFS and FUSE mounts). Where a holder
    was stopped, they wait for it once in `SKIP_S` seconds.

    Args:
        path: The table's folder or URI.
        wait_s: How long a writer waits for the lock.
    """

    def __init__(self, path: str, wait_s: float = UPKEEP.lock_wait_s) -> None:
        self._path = path
        self._wait_s = wait_s
        # Nobody waits before this time: after a wait in vain, and never in an object store.
        self._skipped_until = inf if is_remote(path) else 0.0

    @contextmanager
    def fair(self) -> Iterator[None]:
        """Wait for the lock for a bounded time, and continue with or without it.

        Without it at once where there is none, or for a while after a wait in vain.
        """
        if time.monotonic() < self._skipped_until:
            yield
            return

        make_private_folder(self._path)
        try:
            opened = os.open(f"{self._path}/{WRITER_LOCK}", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            fail(error, self._path)

        try:
            if not _is_locked(opened, self._wait_s):
                self._skipped_until = time.monotonic() + SKIP_S
            yield
        finally:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(opened, fcntl.LOCK_UN)  # also for a process that was forked meanwhile
            os.close(opened)


def _is_locked(opened: int, wait_s: float) -> bool:
    """Wait for the lock; return whether it was taken.

    It was not if another held it all the time, or on a file system without locks: then a writer
    goes on without, since a commit of Delta alone is safe, and the lock only gives turns.
    """
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_POLL_S)
        except OSError:
            return False
        else:
            return True
    return False


# For what a table is opened: to work, for which it is created or migrated if it has to be; or to
# look at it, and leave it as it is.
Use = Literal["work", "look"]


# Versions after which a handle is opened anew: it never rebases onto newer checkpoints, so each
# of its commits gets slower (3.8 to 42 ms after 560).
REOPEN_EVERY = 10

# What to do about a folder of something else.
_ELSEWHERE = "Point POSITION_SYNC_LAKE at another folder, or move this one away."

# Version, inode and modification time of an entry of the log: the identity of the table.
_Entry = tuple[int, int, int]


@dataclass(eq=False, repr=False)
class TableHandle:
    """The open handle of the table at a path, which it creates, checks, migrates or refuses.

    The table is opened again when the handle is old or the table was replaced.

    Args:
        path: An absolute path or a URI.
        spec: The schema that the table must have.
        options: Those of the object store.
        use: For what it is opened.
        upkeep: When it is opened again.
        synced: Which commits of the table are on the disk. It forgets them when the last entry that
            this process saw is another one, or gone: the table was created again or restored, or
            its log was cut.

    Attributes:
        is_remote: Whether the table lies in an object store.
        generation: Grows by one each time that `synced` forgets: what is cached counts no more.
        _last_entry: The newest entry of the log that this process saw; None: none yet.
    """

    path: str
    spec: TableSpec
    options: StorageOptions
    use: Use
    upkeep: Upkeep
    synced: SyncedCommits
    generation: int = 0
    _handle: DeltaTable | None = None  # None: the next use opens the table
    # When it was known to be the newest, in monotonic seconds: nothing after it is cut from the log
    # before `reopen_after_s`. Of a remote table, when it was opened: one made anew looks the same.
    _newest_at: float = 0.0
    # Its version when it was opened: see `_is_outdated`.
    _opened_version: int = -1
    _last_entry: _Entry | None = None

    def __post_init__(self) -> None:
        self.is_remote = is_remote(self.path)

    @property
    def was_opened(self) -> bool:
        """Whether this process has read or created the table."""
        return self._last_entry is not None

    def exists(self) -> bool:
        """Return whether the table is there; False where one may be created.

        Raises:
            OSError: The folder may not be read.
            ForeignTableError: There are files without a log, such as those of a table that lost it.
        """
        if not self.is_remote:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.stat(f"{self.path}/{LOG}")  # raises where the folder may not be read
        has_log = partial(DeltaTable.is_deltatable, self.path, options_at(self.path, self.options))
        if has_log():
            return True

        unexpected = self._unexpected_content()
        if unexpected and not has_log():
            raise unexpected
        return unexpected is not None  # then another process has created the table meanwhile

    def ready(self) -> DeltaTable:
        """Return the handle, opened if there is none; it may be behind the log."""
        if self._handle is None:
            handle = self._open()
            if self._is_replaced():
                self.generation += 1
                self.synced.forget()
                self._last_entry = None

            # Only of a table that is new to this process: a loss of power that could tear a commit
            # would have ended the process (`refuse_torn`).
            if self._last_entry is None and not self.is_remote:
                refuse_torn(Path(self.path))
            self._handle = handle
            self._newest_at = time.monotonic()
            self._opened_version = handle.version()
            self.record(handle.version())

        return self._handle

    def newest(self) -> DeltaTable:
        """Return the handle at the newest version."""
        handle = self._handle
        if handle is not None and not (self._is_outdated(handle) or self._is_replaced()):
            # Between two steps only: an update between plan and commit would hide a conflict.
            # Versions have no gaps, so one look-up tells; listing the log takes 1.6 ms.
            if self.is_remote or os.path.exists(self._entry_path(handle.version() + 1)):
                handle.update_incremental()
            if not self._is_outdated(handle):  # once more: it may have moved on, or been migrated
                self.record(handle.version())
                return handle
        self._handle = None
        return self.ready()

    def drop(self) -> None:
        """Drop the handle; the next use opens the table anew."""
        self._handle = None

    def record(self, version: int) -> None:
        """Record the newest version, which this process read or committed now."""
        self._last_entry = self._entry(version)
        # Of a remote table it stays the time of its opening, so that it is opened anew after a
        # while: one that was created again looks the same.
        if not self.is_remote:
            self._newest_at = time.monotonic()

    def _is_outdated(self, handle: DeltaTable) -> bool:
        """Return whether to open the table anew; that it is behind the log is no reason.

        Then the log is followed.
        """
        # Entries are cut from the log after a while: those that follow the handle may be gone.
        may_miss_entries = time.monotonic() - self._newest_at > self.upkeep.reopen_after_s
        # Each version that a handle has followed makes its commits slower.
        is_slow = handle.version() - self._opened_version >= REOPEN_EVERY
        # A later release that migrates the table is noticed: opened again, it is refused.
        stored = handle.metadata().configuration.get(VERSION_PROPERTY)
        return may_miss_entries or is_slow or stored != str(self.spec.version)

    def _is_replaced(self) -> bool:
        """Return whether the last entry that was seen is another one now, or gone."""
        # The folder may have been deleted: a commit would then create a log without its start.
        last = self._last_entry  # its first part is the version
        return last is not None and last != self._entry(last[0])

    def _entry(self, version: int) -> _Entry:
        """Return what identifies an entry of the log; without it, or remote, its version alone."""
        with suppress(OSError):
            if not self.is_remote:
                status = os.stat(self._entry_path(version))
                return (version, status.st_ino, status.st_mtime_ns)
        return (version, 0, 0)

    def _entry_path(self, version: int) -> str:
        return f"{self.path}/{LOG}/{entry_name(version)}"

    def _open(self) -> DeltaTable:
        """Open the newest version; create the table where there is none.

        A table that this process has used is not created again: somebody took it away. Nor is one
        that is opened only to look at it (`use`).

        Raises:
            ForeignTableError, NewerTableError, BrokenTableError, LakeNotWritableError.
        """
        try:
            handle = DeltaTable(self.path, storage_options=options_at(self.path, self.options))
        except TableNotFoundError as missing:
            if self.exists():
                raise  # another process has created it, or nothing of its log is whole
            what = "does not exist"
            if self.was_opened:
                what = "was deleted or moved away while this process had it open"
            if self.was_opened or self.use == "look":  # to look creates nothing
                raise BrokenTableError(
                    f"The table {self.path} {what}.",
                    remedy="Put it back from a copy. To begin with an empty one, end the program "
                    "and start it again.",
                ) from missing
            return self._create()
        except STORAGE_ERRORS:
            if not self.is_remote:
                refuse_torn(Path(self.path))
            raise

        return self._checked(handle)

    def _create(self) -> DeltaTable:
        """Create the table; the first entry is on the disk before anything follows it."""
        make_private_folder(self.path)
        handle = DeltaTable.create(
            self.path,
            schema=self.spec.delta,
            partition_by=list(self.spec.partition_by),
            name=self.spec.name,
            description=self.spec.description or None,
            configuration=self.spec.configuration,
            storage_options=options_at(self.path, self.options),
            raise_if_key_not_exists=False,
            # With retries the loser of a race would create the table again, as version 1, and
            # overwrite the winner's properties.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
        # Nothing of a table whose first entry is torn can be read.
        self.synced.sync_through(0)
        return handle

    def _unexpected_content(self) -> ForeignTableError | None:
        """Return the error for files without a log; None where a table may be created."""
        names = []
        if self.is_remote:
            names = data_file_below(self.path, self.options)
        elif os.path.exists(self.path):
            names = names_besides_log(Path(self.path))

        if not names:
            return None
        return self._foreign(
            f"it holds {names[0]!r} and no log of a Delta table",
            "Put its log (the folder _delta_log) back from a backup, or move this folder away. If "
            "the lake is another folder, set POSITION_SYNC_LAKE to it.",
        )

    def _checked(self, handle: DeltaTable) -> DeltaTable:
        """Return the handle; refuse a table of another schema, migrate one of an older release.

        A table that was opened to look at it is not migrated.

        Raises:
            ForeignTableError, NewerTableError.
        """
        properties = handle.metadata().configuration
        name = properties.get(NAME_PROPERTY)
        text = properties.get(VERSION_PROPERTY, "")
        if name != self.spec.name or not text.isdigit():
            raise self._foreign(f"it holds {f'the table {name!r}' if name else 'a foreign table'}")

        if int(text) > self.spec.version:
            raise self._newer(f"has schema version {text}")
        # By the names of types, as `TableSpec.columns` has them.
        stored = {f.name: str(getattr(f.type, "type", f.type)) for f in handle.schema().fields}
        wanted = self.spec.columns
        missing = [column for column in wanted if column not in stored]
        is_older = int(text) < self.spec.version
        former = [column for column in stored if column not in wanted]
        wrong = [column for column, kind in stored.items() if wanted.get(column, kind) != kind]
        wrong += [] if is_older else missing

        if wrong or list(handle.metadata().partition_columns) != list(self.spec.partition_by):
            raise self._foreign(f"its schema is another one ({', '.join(wrong) or 'partitions'})")

        if former and not is_older:  # a newer release adds its columns before its version
            raise self._newer(f"has columns of a later schema version ({', '.join(former)})")

        if not is_older or self.use == "look":
            return handle

        self._migrate(handle, missing, former)
        return self._open()

    def _migrate(self, handle: DeltaTable, missing: list[str], former: list[str]) -> None:
        """Bring a table of an older release to this schema; its version is set last.

        If this process dies in between, the next one does the rest.

        Args:
            missing: Columns that it does not have yet.
            former: Columns that this release has no more.
        """
        logger.info("migrating %s to schema version %d", self.path, self.spec.version)
        if missing:
            # Rows that are there have no value of them.
            nullable = [
                Field(field.name, field.type, metadata=field.metadata)
                for field in self.spec.delta.fields
                if field.name in missing
            ]
            handle.alter.add_columns(nullable, post_commithook_properties=NO_HOOKS)
        if former or self.spec.carried:  # values that older releases had in other columns
            self._rewrite(handle, former)
        # Only last entries are looked at for torn ones: these are synced before another follows.
        self.synced.sync_through(handle.version())

        # How long versions are kept stays as it was when the table was made.
        properties = {
            name: value
            for name, value in self.spec.configuration.items()
            if name.startswith("positionSync.") or name == STATISTICS_PROPERTY
        }
        handle.alter.set_table_properties(
            properties, raise_if_not_exists=False, post_commithook_properties=NO_HOOKS
        )

    def _rewrite(self, handle: DeltaTable, former: list[str]) -> None:
        """Write the rows anew without some columns, and with values that were elsewhere before.

        A column that is copied keeps its comment and what it refuses. One that is carried does if
        no column goes: then the schema of the table is not written again.
        """
        rows = QueryBuilder().register("stored", handle)
        names = [field.name for field in handle.schema().fields if field.name not in former]
        columns = [self.spec.carried.get(name, f'"{name}"') + f' AS "{name}"' for name in names]
        query = " ".join(["SELECT", ", ".join(columns), "FROM stored"])
        write_deltalake(
            handle,
            with_plain_texts(rows.execute(query)),
            mode="overwrite",
            schema_mode="overwrite" if former else None,
            post_commithook_properties=NO_HOOKS,
        )

    def _newer(self, what: str) -> NewerTableError:
        """Return the error of a table that a newer release has migrated, or migrates."""
        return NewerTableError(
            f"The table {self.path} {what}; this release knows {self.spec.version}.",
            remedy="Install the release that wrote it, or a later one; a column of yours belongs "
            "in a table of your own.",
        )

    def _foreign(self, detail: str, remedy: str = _ELSEWHERE) -> ForeignTableError:
        """Return the error of a folder that has something else than this table."""
        return ForeignTableError(
            f"{self.path} is not the table {self.spec.name!r} of this package: {detail}.",
            remedy=remedy,
        )
