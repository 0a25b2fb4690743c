"""The open handle of one table: kept as new as the log, and opened again when it must be."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from deltalake import DeltaTable

from position_sync_dagster.lake.delta_log.commit_log import LOG, entry_name
from position_sync_dagster.lake.delta_log.kept_rows import refuse_unfinished
from position_sync_dagster.lake.delta_log.torn_commits import refuse_torn
from position_sync_dagster.lake.storage.opening import TableLocation

logger = logging.getLogger(__name__)

REOPEN_EVERY = 10
"""Versions after which a handle is opened anew: it never rebases onto newer checkpoints, so each
of its commits gets slower (3.8 to 42 ms after 560)."""

REOPEN_AFTER_S = 20.0
"""Age at which a handle is opened anew, far below the retention of log and files."""

REMOTE_REOPEN_EVERY, REMOTE_REOPEN_AFTER_S = 50, 120.0
"""The same in an object store, where to open a table takes a dozen requests and a new connection:
as long as all commits of a longer time take here."""

_Entry = tuple[int, int, int]
"""Version, inode and modification time of an entry of the log: the identity of the table."""


class TableHandle:
    """Opens a table, and opens it again when the handle is old or the table is another one.

    Args:
        on_replaced: Called when the table was deleted and created again, or repaired, since the
            handle was opened.
        in_repair: Whether to open the table although a repair of it is not finished.

    Attributes:
        generation: Grows by one each time that the table was replaced under this process.
    """

    def __init__(
        self, location: TableLocation, on_replaced: Callable[[], None], *, in_repair: bool = False
    ) -> None:
        self._location = location
        self._in_repair = in_repair
        self._on_replaced = on_replaced
        self._handle: DeltaTable | None = None
        self._opened_at = 0.0
        self._opened_version = -1
        self._last_entry: _Entry | None = None
        self._table_id: str | None = None
        self.generation = 0
        self._was_behind = False
        remote = location.remote
        self._reopen_every = REMOTE_REOPEN_EVERY if remote else REOPEN_EVERY
        self._reopen_after_s = REMOTE_REOPEN_AFTER_S if remote else REOPEN_AFTER_S

    def ready(self) -> DeltaTable:
        """Return the handle, opened if there is none; it may be behind the log."""
        if self._handle is None:
            handle = self._location.open(create=self._last_entry is None)
            if self._is_another(handle):
                self.generation += 1
                logger.error(
                    "%s is another table than a moment ago: it was deleted, replaced or repaired "
                    "under this process, which continues with the table that is there now",
                    self._location.path,
                )
                self._on_replaced()
                self._last_entry = None
            if self._last_entry is None and not self._location.remote:
                refuse_torn(Path(self._location.path))
                if not self._in_repair:
                    refuse_unfinished(Path(self._location.path))
            self._handle, self._table_id = handle, str(handle.metadata().id)
            self._opened_at = time.monotonic()
            self._opened_version = handle.version()
            self.record(handle.version())
        return self._handle

    def newest(self) -> DeltaTable:
        """Return the handle at the newest version."""
        handle = self.ready()
        aged = time.monotonic() - self._opened_at > self._reopen_after_s or self._is_replaced()
        if not aged:
            # Between two steps only: an update between plan and commit would hide a conflict.
            if self._is_behind(handle):
                before = handle.version()
                handle.update_incremental()
                self._was_behind = handle.version() > before
                self._location.refuse_newer(handle)
            aged = handle.version() - self._opened_version >= self._reopen_every
        if aged:
            self._handle = None
            handle = self.ready()
        self.record(handle.version())
        return handle

    def drop(self) -> None:
        """Drop the handle; the next use opens the table anew."""
        self._handle = None

    def record(self, version: int) -> None:
        """Record the newest version that this process read or committed."""
        self._last_entry = self._entry(version)

    def _is_behind(self, handle: DeltaTable) -> bool:
        if self._location.remote:
            # One request; an update takes two, also where there is nothing new. Where others commit
            # all the time there nearly always is.
            return self._was_behind or handle._table.get_latest_version() > handle.version()
        # Versions have no gaps, so one look-up answers it; listing the log takes 1.6 ms.
        following = f"{self._location.path}/{LOG}/{entry_name(handle.version() + 1)}"
        return os.path.exists(following)

    def _is_another(self, handle: DeltaTable) -> bool:
        if self._location.remote:
            return self._table_id not in (None, str(handle.metadata().id))
        return self._is_replaced() and not self._is_cleaned(handle)

    def _is_replaced(self) -> bool:
        # A folder deleted under a running process: a commit would leave a log without a start.
        last = self._last_entry
        return last is not None and last != self._entry(last[0])

    def _is_cleaned(self, handle: DeltaTable) -> bool:
        # The last entry was deleted by a cleanup of the log: the table is the same one.
        last = self._last_entry
        return last is not None and handle.version() > last[0] and not self._entry(last[0])[1]

    def _entry(self, version: int) -> _Entry:
        if self._location.remote:
            return (version, 0, 0)
        try:
            found = os.stat(f"{self._location.path}/{LOG}/{entry_name(version)}")
        except OSError:
            return (version, 0, 0)
        return (version, found.st_ino, found.st_mtime_ns)
