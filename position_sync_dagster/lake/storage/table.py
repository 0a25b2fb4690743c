"""One Delta table: opened, created, validated, migrated, read, and changed without conflict."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import TypedDict, TypeVar

import polars as pl
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    write_deltalake,
)
from filelock import FileLock, Timeout
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    wait_random_exponential,
)

from position_sync_dagster.errors import (
    LakeError,
    LakeNotWritableError,
    StalledError,
)
from position_sync_dagster.lake.delta_log.commit_log import (
    LOG,
    TRANSACTIONS,
    checkpoint_name,
    entry_name,
)
from position_sync_dagster.lake.delta_log.durability import Disk
from position_sync_dagster.lake.delta_log.torn_commits import refuse_torn
from position_sync_dagster.lake.storage.commit_errors import (
    STORAGE_ERRORS,
    Fault,
    RetryCommit,
    classify,
    explain,
)
from position_sync_dagster.lake.storage.opening import WRITER_LOCK, Place, located
from position_sync_dagster.lake.storage.schemas import TableSpec

T = TypeVar("T")
logger = logging.getLogger(__name__)

REOPEN_EVERY = 10
"""Versions after which a handle is opened anew: it never rebases onto newer checkpoints, so each
of its commits gets slower (3.8 to 42 ms after 560)."""

REOPEN_AFTER_S = 20.0
"""Age at which a handle is opened anew, far below the retention of log and files."""

CHECKPOINT_EVERY = 10
CLEAN_EVERY = 100
COMPACT_EVERY = 200
"""Versions after which small files are merged: each file of a snapshot costs every commit some
microseconds (a claim takes 10 ms at 50 files, 28 at 1,000)."""

FAIR_WAIT_S = ((0.02, 0.002), (0.08, 0.0005), (1.9, 0.0001))
"""How long a writer queues behind others, and how often it asks meanwhile: the longer it waits,
the oftener, since who asks seldom is overtaken by who has just been served. It then goes on
without, as the lock is for fairness and Delta's own check is for safety."""

SUSPECT_AFTER_S = 300.0
"""A commit this long after its snapshot may have met a log that was cleaned under it."""

_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class TableOptions(TypedDict, total=False):
    """What every table takes; see `Table`, where the defaults are."""

    contention_s: float
    storage_options: Mapping[str, str] | None
    fsync: bool


class Table:
    """A Delta table at a path; every method may be called from any thread.

    Args:
        path: A folder, absolute or relative to the working directory, or an `s3://` URI.
        contention_s: How long a change is tried again while others win, in seconds.
        fsync: Whether a change that was acknowledged is on the disk (local tables only).
    """

    def __init__(
        self,
        path: str | Path,
        spec: TableSpec,
        *,
        storage_options: Mapping[str, str] | None = None,
        contention_s: float = 15.0,
        fsync: bool = True,
    ) -> None:
        self.path = located(path)
        self.spec = spec
        self.options = dict(storage_options) if storage_options else None
        self._place = Place(self.path, spec, self.options)
        self._disk = Disk(Path(self.path), on=fsync and not self._place.remote)
        self._contention_s = contention_s
        self._mutex = RLock()
        self._handle: DeltaTable | None = None
        self._opened_at = 0.0
        self._opened_version = -1
        self._seen: tuple[int, int, int] | None = None
        self._compaction_due = False
        self._generation = 0

    def initialize(self) -> None:
        """Create the table, or check and migrate the one that is there.

        Raises:
            ForeignTableError, NewerTableError, BrokenTableError, LakeNotWritableError,
            CommitContentionError.
        """
        if self.version() == 0:
            with self._mutex:
                self._disk.settle(0)

    def snapshot(self, step: Callable[[DeltaTable], T]) -> T:
        """Read something from the newest version; `step` may run more than once."""
        return self._attempt(step, fair=False)

    def transact(self, step: Callable[[DeltaTable], T]) -> T:
        """Read, decide and commit on one handle; on a conflict all of it runs again.

        The handle that `step` reads is the one it commits with, so that Delta checks the commit
        against exactly what was read.

        Raises:
            CommitContentionError: Others kept winning; nothing was changed.
            LakeNotWritableError, BrokenTableError: Nothing was changed.
            LakeNotWritableError: The change is made, and the disk did not confirm it, as it says.
        """
        return self._attempt(step, fair=True)

    def rows(self, predicate: str | None = None, columns: list[str] | None = None) -> pl.DataFrame:
        """Read rows; `predicate` holds constants or checked literals only."""
        return self.snapshot(lambda handle: scan(handle, self.spec, predicate, columns))

    def version(self) -> int:
        """Give the newest version."""
        return self.snapshot(lambda handle: handle.version())

    def cache_key(self, handle: DeltaTable) -> tuple[int, int]:
        """Give what is the same for the same content: the version, in the table's life.

        A table that was deleted and made anew, or taken back by a repair, lives anew.
        """
        return (self._generation, handle.version())

    def checkpoint(self, handle: DeltaTable) -> None:
        """Write a checkpoint of the handle's version, and sync what it stands for.

        One that is there is left alone: written again it may differ in size, which a reader that
        has it open takes for damage.
        """
        version = handle.version()
        with self._mutex, self._turn(True):
            self._disk.settle(version)
            if self._place.remote or not os.path.exists(
                f"{self.path}/{LOG}/{checkpoint_name(version)}"
            ):
                handle.create_checkpoint()
            self._disk.settle_checkpoint(version)

    def needs_compaction(self) -> bool:
        """Tell, once, that enough commits came for a compaction."""
        with self._mutex:
            due, self._compaction_due = self._compaction_due, False
            return due

    def _attempt(self, step: Callable[[DeltaTable], T], *, fair: bool) -> T:
        for attempt in Retrying(
            retry=retry_if_exception(_worth_retrying),  # `_translated` ends it
            wait=wait_random_exponential(multiplier=0.004, max=0.25),
            reraise=True,
        ):
            with attempt, self._mutex, self._translated(attempt.retry_state):
                # The lock file lies in the table's folder, which must be there first.
                self._ready()
                with self._turn(fair):
                    handle = self._fresh()
                    started, before = time.monotonic(), handle.version()
                    result = step(handle)
                    self._note(handle, before, started)
                if fair:
                    # After the turn: others commit on while the disk works for this one.
                    self._disk.settle(handle.version())
                self._upkeep(handle, before)
                return result
        raise AssertionError("unreachable")  # pragma: no cover

    @contextmanager
    def _translated(self, state: RetryCallState) -> Iterator[None]:
        try:
            yield
        except RetryCommit:
            self._handle = None
            raise
        except STORAGE_ERRORS as error:
            self._handle = None
            if classify(error) in (Fault.CONFLICT, Fault.STALE) and not self._last(state, error):
                raise
            raise explain(error, self.path) from error

    def _last(self, state: RetryCallState, error: Exception) -> bool:
        passed_s = time.monotonic() - state.start_time
        if classify(error) is Fault.STALE:
            return state.attempt_number >= _STALE_ATTEMPTS
        return passed_s >= self._contention_s

    @contextmanager
    def _turn(self, fair: bool) -> Iterator[None]:
        if not fair or self._place.remote:
            yield
            return
        lock = FileLock(f"{self.path}/{WRITER_LOCK}")
        try:
            for wait_s, poll_s in FAIR_WAIT_S:
                with suppress(Timeout):
                    lock.acquire(timeout=wait_s, poll_interval=poll_s)
                    break
        except OSError as error:
            raise explain(error, self.path) from error
        try:
            yield
        finally:
            lock.release()

    def _ready(self) -> DeltaTable:
        if self._handle is None:
            handle = self._place.open(create=self._seen is None)
            if self._replaced() and not self._outlived(handle):
                self._generation += 1
                logger.error(
                    "%s is another table than a moment ago: it was deleted, replaced or repaired "
                    "under this process, which goes on with what is there now",
                    self.path,
                )
                self._disk.forget()
                self._seen = None
            if self._seen is None and not self._place.remote:
                refuse_torn(Path(self.path))
            self._handle = handle
            self._opened_at = time.monotonic()
            self._opened_version = handle.version()
            self._seen = self._seen_now(handle.version())
        return self._handle

    def _fresh(self) -> DeltaTable:
        handle = self._ready()
        aged = time.monotonic() - self._opened_at > REOPEN_AFTER_S or self._replaced()
        if not aged:
            # Between two steps only: an update between plan and commit would hide a conflict.
            if self._behind(handle):
                handle.update_incremental()
            aged = handle.version() - self._opened_version >= REOPEN_EVERY
        if aged:
            self._handle = None
            handle = self._ready()
        self._seen = self._seen_now(handle.version())
        return handle

    def _behind(self, handle: DeltaTable) -> bool:
        # Versions have no gaps, so one look-up tells what listing the log would (1.6 ms).
        following = f"{self.path}/{LOG}/{entry_name(handle.version() + 1)}"
        return self._place.remote or os.path.exists(following)

    def _replaced(self) -> bool:
        # A folder deleted under a running process: a commit would leave a log without a start.
        return self._seen is not None and self._seen != self._seen_now(self._seen[0])

    def _outlived(self, handle: DeltaTable) -> bool:
        # The entry last seen was cleaned away since: the table went on and is the same.
        seen = self._seen
        return seen is not None and handle.version() > seen[0] and not self._seen_now(seen[0])[1]

    def _seen_now(self, version: int) -> tuple[int, int, int]:
        if self._place.remote:
            return (version, 0, 0)
        try:
            found = os.stat(f"{self.path}/{LOG}/{entry_name(version)}")
        except OSError:
            return (version, 0, 0)
        return (version, found.st_ino, found.st_mtime_ns)

    def _note(self, handle: DeltaTable, before: int, started: float) -> None:
        version = handle.version()
        if version == before:
            return
        if time.monotonic() - started > SUSPECT_AFTER_S:
            self._handle = None
            raise StalledError(
                f"This process stood still for minutes inside a commit to {self.path}.",
                remedy="Read the table again before going on; the commit may not count.",
            )
        self._seen = self._seen_now(version)
        if version // COMPACT_EVERY != before // COMPACT_EVERY:
            self._compaction_due = True

    def _upkeep(self, handle: DeltaTable, before: int) -> None:
        version = handle.version()
        if version // CHECKPOINT_EVERY == before // CHECKPOINT_EVERY:
            return
        self._handle = None
        try:
            self.checkpoint(handle)
            if version // CLEAN_EVERY != before // CLEAN_EVERY:
                handle.cleanup_metadata()
        except (*STORAGE_ERRORS, LakeNotWritableError) as error:
            # The commit itself is whole; the next checkpoint or `maintain` makes up for this.
            logger.warning("no checkpoint of %s at version %d: %s", self.path, version, error)


def scan(
    handle: DeltaTable,
    spec: TableSpec,
    predicate: str | None = None,
    columns: list[str] | None = None,
) -> pl.DataFrame:
    """Read rows of one snapshot, in no particular order."""
    frame = pl.DataFrame(handle.scan(columns=columns, predicate=predicate))
    wanted = columns or list(spec.columns)
    return frame.select(wanted) if frame.width else pl.DataFrame(schema=spec.polars).select(wanted)


def overwrite(
    handle: DeltaTable,
    frame: pl.DataFrame,
    predicate: str,
    commit_info: Mapping[str, str],
    transactions: list[Transaction] | None = None,
) -> None:
    """Replace what matches the predicate; conflicts with whoever changes or adds to the same."""
    write_deltalake(
        handle,
        frame,
        mode="overwrite",
        predicate=predicate,
        commit_properties=_properties(commit_info, transactions),
        post_commithook_properties=_NO_HOOKS,
    )


def append(
    handle: DeltaTable,
    frame: pl.DataFrame,
    commit_info: Mapping[str, str],
    transactions: list[Transaction] | None = None,
) -> None:
    """Add rows; conflicts only with whoever names the same application transaction."""
    write_deltalake(
        handle,
        frame,
        mode="append",
        commit_properties=_properties(commit_info, transactions),
        post_commithook_properties=_NO_HOOKS,
    )


def data_files(handle: DeltaTable) -> pl.DataFrame:
    """Give one row per data file of the snapshot, from the log alone."""
    return pl.DataFrame(handle.get_add_actions(flatten=True))


def _properties(
    commit_info: Mapping[str, str], transactions: list[Transaction] | None
) -> CommitProperties:
    told = {**commit_info, TRANSACTIONS: str(len(transactions or []))}
    return CommitProperties(custom_metadata=told, app_transactions=transactions)


_STALE_ATTEMPTS = 4
"""A file that is gone on fresh handles too was not vacuumed: the table is broken."""


def _worth_retrying(error: BaseException) -> bool:
    return isinstance(error, (*STORAGE_ERRORS, RetryCommit)) and not isinstance(error, LakeError)
