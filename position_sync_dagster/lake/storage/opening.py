"""Open the table at a path: create, check, migrate or refuse it; and the lock of its writers."""

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Literal

from deltalake import CommitProperties, DeltaTable, Field
from deltalake.exceptions import TableNotFoundError
from deltalake.schema import PrimitiveType

from position_sync_dagster import errors
from position_sync_dagster.lake.schema import table_spec
from position_sync_dagster.lake.storage import commit_errors, object_store
from position_sync_dagster.lake.storage.durability import LOG, SET_ASIDE, refuse_torn, sync_paths

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
        raise errors.LakeNotWritableError(
            f"No folder can be made at {path}: {error.strerror}.",
            remedy="Correct the rights of the folder around it, or set POSITION_SYNC_LAKE to "
            "another place.",
        ) from error


class WriterLock:
    """A lock file that makes the writers of one machine fair to each other.

    It does not make them safe: Delta's check of each commit does. Without the lock, four writers in
    a tight loop keep each other waiting for seconds. A table in an object store has none.

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


# For what a table is opened: to work, for which it is created or migrated if it has to be; or to
# look at it, and leave it as it is.
Use = Literal["work", "look"]


@dataclass(frozen=True, slots=True)
class TableLocation:
    """The place of a table, and the schema that it must have.

    Attributes:
        path: An absolute path or a URI.
        use: For what it is opened.
    """

    path: str
    spec: table_spec.TableSpec
    options: Mapping[str, str] | None
    use: Use = "work"

    @property
    def remote(self) -> bool:
        """Return whether the table lies in an object store."""
        return object_store.is_remote(self.path)

    def exists(self) -> bool:
        """Return whether there is a log at the path.

        Raises:
            OSError: The folder may not be read.
        """
        if not self.remote:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.stat(f"{self.path}/{LOG}")
        return DeltaTable.is_deltatable(self.path, self._options())

    def open(self, *, create: bool = True) -> DeltaTable:
        """Open the newest version; create the table where there is none.

        Args:
            create: Whether to create a missing table; False if this process had it open before.

        Raises:
            ForeignTableError, NewerTableError, BrokenTableError, LakeNotWritableError.
            RetryCommit: The table was migrated or created meanwhile; open it again.
        """
        try:
            handle = DeltaTable(self.path, storage_options=self._options())
        except TableNotFoundError as missing:
            unexpected = self.unexpected_content()
            if unexpected and self.exists():
                raise commit_errors.RetryCommit from missing  # another process has created it
            if unexpected:
                raise unexpected from missing
            if self.use == "look" or not create:
                raise self._vanished() from missing
            return self._create()
        except commit_errors.STORAGE_ERRORS as unreadable:
            if not self.remote and os.path.isfile(self.path):
                raise self._foreign("it is a file") from unreadable
            if not self.remote:
                refuse_torn(Path(self.path))
            raise
        self.check(handle)
        return handle

    def _create(self) -> DeltaTable:
        make_private_folder(self.path)
        return DeltaTable.create(
            self.path,
            schema=self.spec.delta,
            partition_by=list(self.spec.partition_by),
            name=self.spec.name,
            configuration=self.spec.configuration,
            storage_options=self._options(),
            raise_if_key_not_exists=False,
            # With retries the loser of a race would create the table again, as version 1, and
            # overwrite the winner's properties.
            commit_properties=CommitProperties(max_commit_retries=0),
        )

    def _vanished(self) -> errors.BrokenTableError:
        return errors.BrokenTableError(
            f"The table {self.path} was deleted or moved away while this process had it open.",
            remedy="Put it back from a copy. To begin with an empty one, end the program and "
            "start it again.",
        )

    def _options(self) -> dict[str, str] | None:
        return object_store.delta_options(self.path, self.options)

    def unexpected_content(self) -> errors.BrokenTableError | errors.ForeignTableError | None:
        """Return the error for a folder without a log; None where a table may be created."""
        if self.remote or not os.path.exists(self.path):
            return None
        try:
            found = sorted(
                name
                for name in os.listdir(self.path)
                if name != WRITER_LOCK and not name.startswith(SET_ASIDE)
            )
        except OSError as error:
            commit_errors.fail(error, self.path)
        if found in ([], [LOG]):
            return None
        if LOG in found:
            return errors.BrokenTableError(
                f"The table {self.path} has data but no log.",
                remedy="Restore its _delta_log from a copy, or move the folder away to start with "
                "an empty table.",
            )
        return self._foreign(f"it holds {found[0]!r} and no Delta table")

    def check(self, handle: DeltaTable) -> None:
        """Refuse a table of another schema; migrate one of an older release.

        Raises:
            ForeignTableError, NewerTableError.
            RetryCommit: The table was migrated; open it again.
        """
        properties = handle.metadata().configuration
        name = properties.get(table_spec.NAME_PROPERTY)
        text = properties.get(table_spec.VERSION_PROPERTY, "")
        if name != self.spec.name or not text.isdigit():
            raise self._foreign(f"it holds {f'the table {name!r}' if name else 'a foreign table'}")
        if int(text) > self.spec.version:
            raise errors.NewerTableError(
                f"The table {self.path} has schema version {text}; this release knows "
                f"{self.spec.version}.",
                remedy="Install the release that wrote it, or a later one.",
            )
        found = {f.name: str(getattr(f.type, "type", f.type)) for f in handle.schema().fields}
        wanted = {column: kind.value for column, kind in self.spec.columns.items()}
        different = [column for column, kind in found.items() if wanted.get(column) != kind]
        if different or list(handle.metadata().partition_columns) != list(self.spec.partition_by):
            detail = ", ".join(different) or "partitions"
            raise self._foreign(f"its schema is another one ({detail})")
        missing = [column for column in wanted if column not in found]
        if int(text) < self.spec.version:
            if self.use != "look":
                self._migrate(handle, missing)
        elif missing:
            raise self._foreign(f"its schema lacks {', '.join(missing)}")

    def fits(self, handle: DeltaTable) -> bool:
        """Return whether the table has the version of the schema that this release writes."""
        stored = handle.metadata().configuration.get(table_spec.VERSION_PROPERTY)
        return stored == str(self.spec.version)

    def _migrate(self, handle: DeltaTable, missing: list[str]) -> None:
        logger.info("migrating %s to schema version %d", self.path, self.spec.version)
        # Columns first: if this process dies in between, the next one does the rest.
        if missing:
            kinds = [(column, self.spec.columns[column].value) for column in missing]
            handle.alter.add_columns([Field(c, PrimitiveType(kind)) for c, kind in kinds])
        handle.alter.set_table_properties(
            {
                table_spec.VERSION_PROPERTY: str(self.spec.version),
                table_spec.STATISTICS_PROPERTY: self.spec.configuration[
                    table_spec.STATISTICS_PROPERTY
                ],
            },
            raise_if_not_exists=False,
        )
        raise commit_errors.RetryCommit

    def _foreign(self, detail: str) -> errors.ForeignTableError:
        return errors.ForeignTableError(
            f"{self.path} is not the table {self.spec.name!r} of this package: {detail}.",
            remedy="Point POSITION_SYNC_LAKE at another folder, or move this one away.",
        )
