"""The whole log of a local table, read once: what is torn, and which version is whole."""

import json
from functools import cached_property
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from position_sync_dagster.lake.delta_log.commit_log import (
    LAST_CHECKPOINT,
    LOG,
    SET_ASIDE,
    DataFile,
    Files,
    LogEntry,
    checkpoint_name,
    checkpoint_versions,
    entry_name,
    entry_versions,
    read_entry,
    replay,
)
from position_sync_dagster.lake.delta_log.torn_commits import (
    TornFile,
    data_file_flaw,
    parquet_flaw,
    torn_files,
)

NO_VERSION = -1
"""The last whole version of a table whose very creation is torn."""

LONGEST_COMMIT_S = 300
"""Seconds from the first file of a commit to its entry: a later entry is not acknowledged (see
`storage/table.py`). It is less than the log is kept, so that replaced files are named by it."""


class LogReader:
    """Reads the log of one local table.

    Writers may go on meanwhile. So the pointer is read before the checkpoints, one of which it
    names, and the entries before the checkpoints, for which they are deleted.

    A checkpoint is read when it is needed, which of most logs is the newest alone: a log that
    keeps hundreds of them costs no more.

    Attributes:
        entries: The entries that are there, by version.
        checkpoints: The versions that have a checkpoint, newest first.
    """

    def __init__(self, table: Path) -> None:
        self.table = table
        self.log = table / LOG
        self._pointer = self._read_pointer()
        self.entries = {v: read_entry(self.log, v) for v in entry_versions(self.log)}
        self.checkpoints = checkpoint_versions(self.log)[::-1]
        self._files_at: dict[int, Files | None] = {}
        self._flaws: dict[DataFile, str | None] = {}

    @cached_property
    def newest(self) -> int:
        """The newest version; -1 without any."""
        return max((*self.entries, *self.checkpoints), default=-1)

    def torn_files(self) -> list[TornFile]:
        """Return all files that are torn and that a reader of the newest version needs."""
        base = next((v for v in self.checkpoints if self.files_at(v) is not None), NO_VERSION)
        unreadable = [(v, checkpoint_name(v)) for v in self.checkpoints if v > base]
        if self._is_pointer_torn():
            unreadable.append((self.newest, LAST_CHECKPOINT))
        found = [
            TornFile(version=version, file=f"{LOG}/{name}", flaw="cannot be read")
            for version, name in unreadable
        ]
        entries = self._entries(base, self.newest)
        found += torn_files(entries, self.files_at(base), self._flaw_of)
        return sorted(found, key=lambda torn: (torn.version, torn.file))

    def whole_version(self) -> int | None:
        """Return the last version whose log and files are whole.

        Returns:
            `NO_VERSION` if even the creation of the table is torn; None if the log does not
            reach back to a whole version.
        """
        for version in range(self.newest, -1, -1):
            files = self.files_of(version)
            if files is not None and not any(self._flaw_of(file) for _, file in files.values()):
                return version
        [creation] = self._entries(-1, 0)
        is_creation_torn = not self.checkpoints and creation.flaw not in (None, "is missing")
        return NO_VERSION if is_creation_torn else None

    def files_at(self, version: int) -> Files | None:
        """Return the files of a checkpoint; None if it cannot be read, or there is none."""
        if version not in self._files_at:
            self._files_at[version] = self._read_checkpoint(version) if version >= 0 else None
        return self._files_at[version]

    def files_of(self, version: int) -> Files | None:
        """Return the files of a version; None if its log is not whole."""
        if version < 0:
            return {}
        for base in (*self.checkpoints, NO_VERSION):
            if base > version:
                continue
            entries = self._entries(base, version)
            if any(entry.flaw for entry in entries):
                continue
            files = self.files_at(base)
            if files is not None or base == NO_VERSION:
                return replay(entries, files)
        return None

    def undone_files(self, whole: int) -> list[Path]:
        """Return the data files that commits after a version wrote and that can be read.

        A torn entry does not name its files. They are then those files that no entry names and
        that were written since.
        """
        kept = self.files_of(whole) or {}
        after = [entry for version, entry in self.entries.items() if version > whole]
        paths = [file.path for entry in after for file in entry.added if file.path not in kept]
        if any(entry.flaw for entry in after):
            named = {file.path for entry in self.entries.values() for file in entry.added}
            since = self._written_at(whole) - LONGEST_COMMIT_S * 1_000_000_000
            paths += [
                name
                for name in self._data_files()
                if name not in named
                and name not in kept
                and (self.table / name).stat().st_mtime_ns >= since
            ]
        found = (self.table / name for name in dict.fromkeys(paths))
        return [path for path in found if path.exists() and parquet_flaw(path) is None]

    def _entries(self, after: int, through: int) -> list[LogEntry]:
        missing = (LogEntry(version=v, flaw="is missing") for v in range(after + 1, through + 1))
        return [self.entries.get(entry.version, entry) for entry in missing]

    def _flaw_of(self, file: DataFile) -> str | None:
        if file not in self._flaws:
            self._flaws[file] = data_file_flaw(self.table, file, deep=True)
        return self._flaws[file]

    def _read_checkpoint(self, version: int) -> Files | None:
        path = self.log / checkpoint_name(version)
        try:
            if path.stat().st_size == 0 or parquet_flaw(path):
                return None
            added = pl.read_parquet(path, glob=False, columns=["add"]).drop_nulls().unnest("add")
            rows = added.select("path", "size", "stats").iter_rows()
            files = [DataFile.parse(name, size, stats) for name, size, stats in rows]
        except (PolarsError, OSError):
            return None
        return {file.path: (version, file) for file in files}

    def _read_pointer(self) -> bytes | None:
        try:
            return (self.log / LAST_CHECKPOINT).read_bytes()
        except FileNotFoundError:
            return None

    def _is_pointer_torn(self) -> bool:
        if self._pointer is None:
            return False
        try:
            return json.loads(self._pointer)["version"] not in self.checkpoints
        except (ValueError, KeyError, TypeError):
            return True

    def _written_at(self, version: int) -> int:
        for name in (entry_name(version), checkpoint_name(version)) if version >= 0 else ():
            path = self.log / name
            if path.exists():
                return path.stat().st_mtime_ns
        return 0

    def _data_files(self) -> list[str]:
        found = (path.relative_to(self.table) for path in self.table.rglob("*.parquet"))
        outside = (LOG, SET_ASIDE)
        return sorted(str(path) for path in found if not path.parts[0].startswith(outside))
