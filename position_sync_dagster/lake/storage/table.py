"""One Delta table: created, checked, read, and changed by commits that never lose an update.

Its open handle is kept up to date with the log, and opened again when necessary. Reads and commits
that fail are retried for a bounded time.

Who may write to a table stands in its properties: the newest owner of each gateway, and one trading
mode. An open handle has them in memory, so that each commit checks them without a request; and a
commit that was planned before a property changed conflicts with the change.

Its maintenance is here too: merges of small files, checkpoints, retention; and the threads in which
blocking work runs, apart from the event loop.
"""

import asyncio
import errno
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from threading import RLock
from typing import Any, Concatenate, ParamSpec, TypedDict, TypeVar
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from polars.exceptions import PanicException

from position_sync_dagster import errors
from position_sync_dagster.domain.position_update import TradingMode
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.storage import commit_errors, durability, object_store
from position_sync_dagster.lake.storage.opening import (
    NO_HOOKS,
    UPKEEP,
    TableHandle,
    Upkeep,
    Use,
    WriterLock,
    with_plain_texts,
)

_PROPERTY = "positionSync.owner."


def refuse_stale_owner(handle: DeltaTable, gateway_id: str, token: int) -> int | None:
    """Refuse an owner if the gateway has a newer one.

    Returns:
        The fencing token of the gateway's newest owner; None before the first.

    Raises:
        LeaseLostError: The newest token is greater.
    """
    text = handle.metadata().configuration.get(_PROPERTY + schema.storable(gateway_id))
    newest = None if text is None else int(text)
    if newest is not None and token < newest:
        raise errors.LeaseLostError(
            f"The login {gateway_id} has a newer owner (token {newest}; this session has {token}).",
            remedy="End this session; the newer owner writes for the login.",
        )
    return newest


def mode_of(handle: DeltaTable) -> TradingMode | None:
    """Return the trading mode of the table; None before its first data."""
    text = handle.metadata().configuration.get(schema.MODE_PROPERTY)
    return TradingMode(text) if text else None


def bind(
    handle: DeltaTable,
    path: str,
    modes: Iterable[TradingMode] = (),
    owner: tuple[str, int] | None = None,
) -> None:
    """Check that data of these trading modes and of this owner may go into the table.

    The mode of the first data is stored, and the owner as the newest of its gateway: owners with a
    smaller token are refused from now on. Call it in a step, before it reads: what is new is a
    commit of its own, after which the step goes on. Nothing else of the process runs meanwhile:
    delta-rs keeps the interpreter for itself.

    Args:
        path: The table's path, for the error.
        owner: A gateway and the fencing token of its owner.

    Raises:
        TradingModeError: The table holds another mode's data, or the data are of several.
        LeaseLostError: An owner with a greater token has fenced the table already.
    """
    new: dict[str, str] = {}

    offered = sorted(set(modes))
    remembered = mode_of(handle)
    if remembered is None and len(offered) == 1:
        new[schema.MODE_PROPERTY] = offered[0].value
    elif offered and offered != [remembered]:
        wrong = ", ".join(mode.value for mode in offered if mode is not remembered)
        raise errors.TradingModeError(
            f"{path} holds {remembered.value if remembered else 'no'} data and was given {wrong}.",
            remedy="Give each trading mode its own lake: set POSITION_SYNC_LAKE to another folder, "
            "or point POSITION_SYNC_GATEWAY_PORT at the account that this lake belongs to.",
        )

    if owner is not None and refuse_stale_owner(handle, *owner) != owner[1]:
        new[_PROPERTY + schema.storable(owner[0])] = str(owner[1])
    if new:
        handle.alter.set_table_properties(
            new,
            raise_if_not_exists=False,
            commit_properties=CommitProperties(custom_metadata={"action": "bind"}),
            post_commithook_properties=NO_HOOKS,
        )


# Room for what a commit writes besides its rows: footers of files, the log entry, folders.
SPARE_BYTES = 64 * 1024


def check_room(table: str, needed: float = 0) -> None:
    """Check that a local disk has room for a commit of `needed` bytes.

    On a full disk the writer of parquet files panics, which prints pages of native backtraces at
    each attempt.

    Args:
        table: The table's path or URI; an object store is not checked.
        needed: Bytes of the rows.

    Raises:
        OSError: Less is free than `needed` and `SPARE_BYTES` (ENOSPC).
    """
    if table.startswith("file://"):
        table = unquote(table.removeprefix("file://"))
    if "://" in table:
        return
    disk = os.statvfs(table)
    if disk.f_bavail * disk.f_frsize < needed + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# The column of the path or URI of the file of each row, while a table is read.
_FILE = "file"


def write(
    handle: DeltaTable,
    frame: pl.DataFrame,
    commit_info: Mapping[str, str],
    transactions: list[Transaction] | None = None,
    predicate: str | None = None,
) -> None:
    """Append rows, or replace the rows that match a predicate by them.

    An append conflicts only with a commit that names the same application transaction; a
    replacement with every commit that changes or adds rows that match.

    Args:
        predicate: Of partitions and of the column of order.
    """
    check_room(handle.table_uri, frame.estimated_size())
    metadata = {**commit_info, durability.TRANSACTIONS: str(len(transactions or []))}
    options: dict[str, Any] = {"mode": "append"}
    if predicate is not None:
        options = {"mode": "overwrite", "predicate": predicate}
    write_deltalake(
        handle,
        with_plain_texts(frame),
        commit_properties=CommitProperties(metadata, app_transactions=transactions),
        post_commithook_properties=NO_HOOKS,
        **options,
    )


def text_literal(text: str) -> str:
    """Return any text as an SQL literal; the quote is the only special character there.

    >>> text_literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def in_parts(bucket: str, parts: Iterable[str]) -> str:
    """Return the predicate of the rows of some parts of one bucket, in parentheses."""
    names = ",".join(map(text_literal, parts))
    return f"(bucket = '{bucket}' AND part IN ({names}))"


def data_files(handle: DeltaTable) -> pl.DataFrame:
    """Return one row for each data file of the snapshot, from the log alone.

    Returns:
        path, size_bytes and num_records; of each partition column `partition.NAME`; of each
        indexed column `min.NAME`, `max.NAME` and `null_count.NAME`, null where the log has no
        statistics.
    """
    return pl.DataFrame(handle.get_add_actions(flatten=True))


# The log's statistics cut times to it.
_CUT = timedelta(milliseconds=1)


def last_of(greatest: Any) -> Any:
    """Return the last value that the greatest one in the log's statistics may stand for."""
    if not isinstance(greatest, datetime):
        return greatest

    return greatest + _CUT


# Chooses every data file, or every row.
EVERY = pl.lit(value=True)


def may_have(column: str, first: Any, last: Any = None) -> pl.Expr:
    """Return which data files may hold a value from `first` to `last`, by the log's statistics.

    Args:
        column: An indexed column.
        last: The greatest value; None: any.
    """
    greatest = pl.col(f"max.{column}")
    if isinstance(first, datetime):
        greatest += _CUT
    overlaps = greatest >= pl.lit(first)
    if last is not None:
        overlaps &= pl.col(f"min.{column}") <= pl.lit(last)
    return overlaps.fill_null(value=True)


def may_have_one_of(column: str, values: pl.Series) -> pl.Expr:
    """Return which data files may hold one of the values, by the log's statistics.

    One of the values must lie between the smallest and the greatest of a file. It is not enough
    that the range of all of them overlaps the file: one old id among new ones would then select
    every file that was written in between.

    Args:
        column: An indexed column.
        values: The values, of the type of the column; with a null, each file may hold one.
    """
    if values.has_nulls():
        return EVERY
    greatest = pl.col(f"max.{column}")
    if values.dtype == pl.Datetime:
        greatest += _CUT
    ordered = pl.lit(values.sort())
    behind = ordered.search_sorted(greatest, side="right")
    overlaps = behind > ordered.search_sorted(pl.col(f"min.{column}"))
    # A null among the statistics sorts before all values.
    has_no_bound = pl.col(f"min.{column}", f"max.{column}").is_null()
    return overlaps | pl.any_horizontal(has_no_bound)


def files_in(handle: DeltaTable, **partition: str) -> pl.DataFrame:
    """Return one row for each data file of a partition; no path is ever given twice."""
    wanted = (pl.col(f"partition.{name}") == value for name, value in partition.items())
    return data_files(handle).filter(*wanted)


def in_bucket(bucket: str) -> pl.Expr:
    """Return which data files have the rows of a bucket."""
    return pl.col("partition.bucket") == bucket


T = TypeVar("T")

# Attempts with a new handle. If a file is missing in each, the table is broken.
_STALE_ATTEMPTS = 4

# The longest pause before another try, in seconds: a few times as long as a commit takes.
PAUSE_S = 0.25


def retried(attempt: Callable[[], T], *, path: str, contention_s: float) -> T:
    """Run an attempt until it succeeds, and return its result.

    Conflicts are retried for `contention_s` seconds with growing random pauses, missing or
    incomplete files a few times, and other errors not at all: a panic prints pages each time.

    Args:
        attempt: Must read anew each time that it runs.
        path: The table's path, for the error.

    Raises:
        LakeError: No attempt succeeded; see `commit_errors.to_lake_error`.
    """
    begun = time.monotonic()
    stale = 0
    longest_s = PAUSE_S / 64

    while True:
        try:
            return attempt()
        except commit_errors.RetryCommit:
            pass
        except commit_errors.STORAGE_ERRORS as error:
            match commit_errors.to_lake_error(error, path):
                case errors.BrokenTableError() if not isinstance(error, PanicException):
                    stale += 1
                    is_last = stale == _STALE_ATTEMPTS
                case errors.CommitContentionError():
                    is_last = time.monotonic() - begun >= contention_s
                case _:
                    is_last = True

            if is_last:
                commit_errors.fail(error, path)

        longest_s = min(2 * longest_s, PAUSE_S)
        time.sleep(random.uniform(0, longest_s))  # noqa: S311 - a pause, not a secret


logger = logging.getLogger(__name__)

# Seconds from a snapshot after which a commit is suspect: the log may have been cleaned since.
SUSPECT_AFTER_S = 300.0

# The clock for it. It goes on while the machine sleeps, as writers on other machines do.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


# How long a change is retried while other writers commit first, in seconds: in an object store each
# attempt takes several requests.
CONTENTION_S = 15.0
REMOTE_CONTENTION_S = 60.0


class TableOptions(TypedDict, total=False):
    """The options of every table; see `Table`, where the defaults are."""

    storage_options: Mapping[str, str] | None
    fsync: bool
    use: Use
    upkeep: Upkeep


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
        storage_options: Mapping[str, str] | None = None,
        fsync: bool = True,
        use: Use = "work",
        upkeep: Upkeep = UPKEEP,
    ) -> None:
        self.path = object_store.absolute_path(path)
        self.spec = spec
        self.upkeep = upkeep
        self.options = dict(storage_options) if storage_options else None
        self.is_remote = object_store.is_remote(self.path)
        self._synced = durability.SyncedCommits(Path(self.path), on=fsync and not self.is_remote)
        self._handle = TableHandle(self.path, spec, self.options, use, upkeep, self._synced)
        self._writer_lock = WriterLock(self.path, upkeep.lock_wait_s)
        self._contention_s = REMOTE_CONTENTION_S if self.is_remote else CONTENTION_S
        self._mutex = RLock()
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

    def damage(self) -> errors.LakeError | None:
        """Return why the log of the table cannot be read; None if it can, or never was there."""
        try:
            if self._handle.was_opened or self.exists():
                self.version()
        except errors.LakeError as error:
            return error
        return None

    def remove_torn(self) -> list[durability.TornFile]:
        """Set aside what keeps a local table from being opened; see `durability.remove_torn`.

        Raises:
            LakeError: A file cannot be moved.
        """
        if self.is_remote:
            return []

        remove = partial(durability.remove_torn, Path(self.path))
        return retried(remove, path=self.path, contention_s=self._contention_s)

    def snapshot(self, step: Callable[[DeltaTable], T]) -> T:
        """Read from the newest version; `step` may run more than once."""
        return self._run(step, change=False)

    def read(self, step: Callable[[pl.DataFrame], T], chosen: pl.Expr = EVERY) -> T:
        """Read from data files of the newest version; `noted` notes it.

        Args:
            step: Reads the files that it is given; it may run more than once.
            chosen: Chooses the files.
        """

        def read_files(handle: DeltaTable) -> T:
            files = data_files(handle).filter(chosen)
            for reads in _NOTED.get():
                reads.append(Read(self, step, chosen, files))
            return step(files)

        return self.snapshot(read_files)

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
        with self._mutex:
            is_due = self._compaction_due
            self._compaction_due = False
        if is_due and self.is_remote:
            beside = Table(self.path, self.spec, storage_options=self.options, upkeep=self.upkeep)
            _merges.submit(_compact, beside)
        elif is_due:
            _compact(self)
        return result

    def scan_files(self, files: pl.DataFrame) -> pl.LazyFrame:
        """Return the rows of data files of a snapshot, read side by side.

        In an object store each file takes one request, where a predicate of Delta takes three, one
        file after the other. Rows without a value that they need are left out.

        Args:
            files: Rows of `data_files`.
        """
        rows = self.scan_stored(files)
        if not self.spec.required:
            return rows

        return rows.filter(self.spec.readable)

    def scan_stored(self, files: pl.DataFrame) -> pl.LazyFrame:
        """Return the rows of data files of a snapshot exactly as they are stored."""
        spec = self.spec
        if files.is_empty():
            return spec.empty.lazy()
        # The log has the path of a file as a part of a URL.
        paths = [f"{self.path}/{unquote(path)}" for path in files.get_column("path")]
        rows = pl.scan_parquet(
            paths,
            schema=spec.stored,
            missing_columns="insert",
            extra_columns="ignore",  # those of an older release
            glob=False,
            hive_partitioning=False,
            include_file_paths=_FILE,
            storage_options=object_store.polars_options(self.options) if self.is_remote else None,
            credential_provider=None,
        )
        if spec.partition_by:
            parts = (pl.col(f"partition.{name}").alias(name) for name in spec.partition_by)
            of_file = files.select(pl.Series(_FILE, paths, pl.String), *parts)
            rows = rows.join(of_file.lazy(), on=_FILE)
        return rows.select(list(spec.columns))

    def read_rows(self, files: pl.DataFrame, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read data files of a snapshot; see `scan_files`.

        Args:
            files: Rows of `data_files`.
            columns: Of the table; all by default.
        """
        return self.scan_files(files).select(columns or list(self.spec.columns)).collect()

    def examine_files(self) -> list[errors.LakeError | None]:
        """Read each data file that the log names; return why it is not whole, or None if it is.

        Raises:
            LakeError: The log cannot be read.
        """
        return together(self._damage_of, self.read(lambda files: files).iter_slices(1))

    def _damage_of(self, file: pl.DataFrame) -> errors.LakeError | None:
        path = unquote(file.item(0, "path"))
        files = object_store.FileSystem(self.path, object_store.delta_options(self.options))
        try:
            if files.open_input_file(path).size() != file.item(0, "size_bytes"):
                raise OSError("the log says another size")
            # Each column is read for it, and none is kept.
            self.scan_stored(file).select(pl.all().null_count()).collect()
        except commit_errors.STORAGE_ERRORS as error:
            return commit_errors.to_lake_error(error, f"{self.path}/{path}")

        return None

    def fence(self, gateway_id: str, token: int) -> None:
        """Refuse, from now on, owners of the gateway with a smaller fencing token.

        Raises:
            LeaseLostError: An owner with a greater token has fenced the table already.
        """
        self.transact(lambda handle: bind(handle, self.path, owner=(gateway_id, token)))

    def rows(
        self, only: pl.Expr = EVERY, chosen: pl.Expr = EVERY, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Read the rows that one expression chooses, from data files that another one chooses.

        They come in no particular order.
        """
        names = columns or list(self.spec.columns)
        scan = self.scan_files
        return self.read(lambda files: scan(files).filter(only).select(names).collect(), chosen)

    def count(self) -> int:
        """Count the rows, from the log alone."""
        return int(self.read(lambda files: files.get_column("num_records").sum()))

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

        A checkpoint that exists is left alone: written again it may differ in size, and a reader
        that has it open takes that for damage.
        """
        version = handle.version()
        with self._mutex, self._writer_lock.fair():
            self._synced.sync_through(version)
            if self.is_remote or not os.path.exists(
                f"{self.path}/{durability.LOG}/{durability.checkpoint_name(version)}"
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
        def attempt() -> T:
            with self._mutex:
                try:
                    return self._attempt(step, change=change)
                except CommitFailedError:
                    raise  # another writer won: the handle is whole, and only to be updated
                except (*commit_errors.STORAGE_ERRORS, commit_errors.RetryCommit):
                    self._handle.drop()
                    raise

        return retried(attempt, path=self.path, contention_s=self._contention_s)

    def _attempt(self, step: Callable[[DeltaTable], T], *, change: bool) -> T:
        if not self.is_remote:
            # The lock file lies in the table's folder, which must be there first.
            self._handle.ready()
        with self._writer_lock.fair() if change else nullcontext():
            handle = self._handle.newest()
            started = time.clock_gettime(_CLOCK)
            before = handle.version()
            result = step(handle)
            self._record_commit(handle, before, started)
        if change:
            # Outside the lock: others may commit while this commit is synced.
            self._synced.sync_through(handle.version())
        self._checkpoint_if_due(handle, before)
        return result

    def _record_commit(self, handle: DeltaTable, before: int, started: float) -> None:
        version = handle.version()
        if version == before:
            return
        if time.clock_gettime(_CLOCK) - started > SUSPECT_AFTER_S:
            self._handle.drop()
            raise errors.StalledError(
                f"This process was stopped for minutes inside a commit to {self.path}.",
                remedy="Read the table again before going on; the commit may be lost.",
            )
        self._handle.record(version)
        every = self.upkeep.compact_every
        if version // every != before // every:
            self._compaction_due = True

    def _checkpoint_if_due(self, handle: DeltaTable, before: int) -> None:
        version = handle.version()
        every = self.upkeep.checkpoint_every
        if version // every == before // every:
            return
        self._handle.drop()
        try:
            self.checkpoint(handle)
            every = self.upkeep.clean_every
            if version // every != before // every:
                handle.cleanup_metadata()
        except (*commit_errors.STORAGE_ERRORS, errors.LakeError) as error:
            # The commit itself is whole; the next checkpoint or `maintain` makes up for this.
            logger.warning(
                "cannot write a checkpoint of %s at version %d; its commits are safe: %s",
                self.path,
                version,
                commit_errors.to_lake_error(error, self.path),
            )


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a table: the arguments of `Table.read`, and the files that were chosen."""

    table: Table
    step: Callable[[pl.DataFrame], Any]
    chosen: pl.Expr
    files: pl.DataFrame


# Where the reads of a thread are noted, if they are.
_NOTED: ContextVar[tuple[list[Read], ...]] = ContextVar("noted", default=())


def noted(work: Callable[[], T]) -> tuple[T, list[Read]]:
    """Return what blocking work returns, and what it read of tables by `Table.read`.

    What is kept up to date in memory is not among this: the newest rows of the ledger, the live
    rows of a life cycle.
    """
    reads: list[Read] = []
    before = _NOTED.set((reads,))
    try:
        return work(), reads
    finally:
        _NOTED.reset(before)


WRITER_SMALL_BYTES = 1024 * 1024
# A file of this size or more is left alone: merging it again would cost more than it saves.
# Writers merge files below the first bound after their commits, `maintain` below the second.
SMALL_BYTES = 16 * 1024 * 1024

# Maximum number of parts that one commit merges.
MAX_FILES = 512

# Maximum size that one merge reads, besides its first file, as a multiple of the size below which
# a file is small.
MAX_SMALL = 4

# A folder without files is removed after this time, in seconds.
EMPTY_S = 1_800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceResult:
    """The result of one maintenance of one table.

    Attributes:
        compacted: Files that were merged into fewer.
        deleted: Files that were deleted: no version within the retention needs them.
        files: Data files of the newest version.
        version: The newest version.
        skipped: Which work was left for the next maintenance, and why; None when all was done.
    """

    table: str
    compacted: int
    deleted: int
    files: int
    version: int
    skipped: str | None = None


def maintain(table: Table, *, clean_now: bool = False) -> MaintenanceResult:
    """Merge small files, write a checkpoint, delete files older than the retention; blocks.

    Writers and readers may go on meanwhile. If a writer commits first, less is merged.

    Args:
        clean_now: Ignore the retention, for tests and for tables that nobody else has open.
    """
    compacted = 0
    skipped = None

    try:
        compacted = compact(table, SMALL_BYTES)
    except (errors.CommitContentionError, errors.LakeNotWritableError) as error:
        skipped = f"compaction: {error.what}"  # what is deleted next may make room

    # Only a full vacuum lists the folder. A lite one finds replaced files by their tombstones,
    # which the checkpoints of writers drop: it would leave most of them.
    vacuumed = table.snapshot(
        lambda handle: handle.vacuum(
            retention_hours=0 if clean_now else None,
            dry_run=False,
            enforce_retention_duration=not clean_now,
            full=True,
        )
    )
    table.remove_empty_folders(empty_for_s=0.0 if clean_now else EMPTY_S)
    table.snapshot(partial(_cut_log, table))
    files = table.snapshot(data_files).height

    return MaintenanceResult(
        table=table.spec.name,
        compacted=compacted,
        deleted=len(vacuumed),
        files=files,
        version=table.version(),
        skipped=skipped,
    )


_merges = ThreadPoolExecutor(max_workers=1, thread_name_prefix="merges")


def _compact(table: Table) -> None:
    try:
        compact(table, WRITER_SMALL_BYTES)
    except (*commit_errors.STORAGE_ERRORS, errors.LakeError) as error:
        # The commit before it is whole; the next compaction merges more.
        logger.warning(
            "cannot compact %s now: %s", table.path, commit_errors.to_lake_error(error, table.path)
        )


def compact(table: Table, small_bytes: int) -> int:
    """Merge files smaller than `small_bytes`; return how many were merged.

    Only this function merges files. Each merge overwrites exactly the rows that it read: if another
    merge or change of these rows commits first, it fails and runs again. Delta's own OPTIMIZE does
    not conflict with another one (delta-rs 1.6): both add the merged rows, which are then in the
    table twice.

    Finished rows are merged by their parts, so that changes of live rows go on. Other tables are
    merged along their `order`: rows that are appended meanwhile come after the merged ones.
    """
    merge = _merge_parts if "part" in table.spec.partition_by else _merge_in_order
    merged = 0
    while table.spec.order and (done := table.transact(partial(merge, table, small_bytes))):
        merged += done
    return merged


def _merge_parts(table: Table, small_bytes: int, handle: DeltaTable) -> int:
    """Merge the small finished parts of one bucket; return how many files."""
    files = data_files(handle).filter(~in_bucket(schema.LIVE))
    by_part = ["partition.bucket", "partition.part"]
    size = pl.col("size_bytes").sum()
    sizes = files.group_by(by_part).agg(size, pl.len().alias("files"))
    small = sizes.filter(pl.col("size_bytes") < small_bytes)
    is_due = pl.len().over("partition.bucket") >= table.upkeep.compact_from
    many = small.filter(is_due).sort(by_part)
    if many.is_empty():
        return 0

    bucket = many.item(0, "partition.bucket")
    chosen = many.filter(pl.col("partition.bucket") == bucket).head(MAX_FILES)
    part = schema.new_part(datetime.now(UTC))
    rows = table.scan_stored(files.join(chosen, on=by_part, how="semi")).collect()
    ordered = rows.with_columns(part=pl.lit(part)).sort(table.spec.indexed[0])
    replaced = in_parts(bucket, [*chosen["partition.part"], part])
    write(handle, ordered, {"action": "compact"}, predicate=replaced)

    return int(chosen["files"].sum())


def _merge_in_order(table: Table, small_bytes: int, handle: DeltaTable) -> int:
    """Merge the small files of one partition that follow each other; return how many.

    `maintain` leaves no two small files of a day that is over: else a few of each day would never
    be merged. Files are read side by side: in an object store, a predicate takes three requests for
    each, one after the other.
    """
    spec = table.spec
    files = data_files(handle)
    runs = _runs_of_small_files(table, files, small_bytes)
    if runs.is_empty():
        return 0

    run = runs.row(0, named=True)
    begin = run[f"min.{spec.order}"]
    end = last_of(run[f"max.{spec.order}"])
    terms = [f"{spec.order} >= {_literal(begin)}", f"{spec.order} <= {_literal(end)}"]
    within = files.filter(may_have(spec.order, begin, end))
    for name in spec.partition_by:
        value = run[f"partition.{name}"]
        terms.append(f"{name} = {_literal(value)}")
        within = within.filter(pl.col(f"partition.{name}").eq_missing(value))

    stored = table.scan_stored(within)
    is_within = pl.col(spec.order).is_between(begin, end)
    rows = stored.filter(is_within).sort(spec.order).collect()
    write(handle, rows, {"action": "compact"}, predicate=" AND ".join(terms))
    return int(run["files"])


def _runs_of_small_files(table: Table, files: pl.DataFrame, small_bytes: int) -> pl.DataFrame:
    """Return the runs of small files that are to be merged: their partition, span and number.

    A large file ends a run, and so does the size that one merge may read.
    """
    spec = table.spec
    first = f"min.{spec.order}"
    last = f"max.{spec.order}"
    keys = [f"partition.{name}" for name in spec.partition_by]
    has_span = pl.col(first).is_not_null() & (pl.col(f"null_count.{spec.order}") == 0)
    in_order = files.filter(has_span).sort(*keys, first, last)

    is_small = pl.col("size_bytes") < small_bytes
    small = in_order.with_columns(large_before=(~is_small).cum_sum()).filter(is_small)

    size = pl.col("size_bytes").cum_sum().over(*keys, "large_before")
    merges = small.with_columns(merge=(size - 1) // (MAX_SMALL * small_bytes))
    runs = merges.group_by(*keys, "large_before", "merge", maintain_order=True).agg(
        pl.col(first).min(), pl.col(last).max(), pl.len().alias("files")
    )

    is_due = pl.col("files") >= table.upkeep.compact_from
    has_days = bool(keys) and files.schema[keys[0]] == pl.Date
    if has_days and small_bytes == SMALL_BYTES:
        newest_day = pl.lit(files.get_column(keys[0]).max(), pl.Date)
        is_due |= (pl.col("files") > 1) & (pl.col(keys[0]) < newest_day)
    return runs.filter(is_due)


def _literal(value: object) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        value = value.isoformat(timespec="microseconds")
    return text_literal(str(value))


def _cut_log(table: Table, handle: DeltaTable) -> None:
    # Both on one handle: only entries that the checkpoint stands for are deleted.
    table.checkpoint(handle)
    handle.cleanup_metadata()


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

# A few are enough: Delta work waits for the disk, and each table serves one call at a time.
_THREADS = 4

_pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="lake")


async def offload(work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking work in the lake's threads and return its result.

    If the caller is cancelled, the work goes on: a commit that has begun is still made.
    """
    return await asyncio.get_running_loop().run_in_executor(_pool, partial(work, *args, **kwargs))


# The calls of `together` that run at once, in threads of their own.
_AT_ONCE = 8


def together(work: Callable[[S], R], arguments: Iterable[S]) -> list[R]:
    """Run blocking work for each item, up to eight at once, and wait for all of it.

    If a call fails, calls that have not begun are skipped, and running calls are awaited.
    """
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="together") as pool:
        return list(pool.map(work, arguments))


def offloaded(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return the asyncio form of a blocking call, for an object with the blocking one as `sync`.

    Arguments, result and errors are the same.
    """

    @wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        work: Callable[P, R] = getattr(self.sync, method.__name__)
        return await offload(work, *args, **kwargs)

    return call
