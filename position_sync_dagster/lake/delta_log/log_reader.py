"""The whole log of a local table as it lies on the disk, and what follows from it."""

import json
from functools import cached_property
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from position_sync_dagster.lake.delta_log.commit_log import (
    ASIDE,
    LAST_CHECKPOINT,
    LOG,
    DataFile,
    Entry,
    checkpoint_name,
    checkpoint_versions,
    entry_name,
    entry_versions,
    read_entry,
)
from position_sync_dagster.lake.delta_log.torn_commits import (
    Tear,
    entry_tear,
    file_flaw,
    parquet_flaw,
    replay,
)

Files = dict[str, tuple[int, DataFile]]
"""Data files by path, each with the version that added it, or that of the checkpoint."""

NEVER = -1
"""The whole version of a table whose very creation is torn."""


class DiskLog:
    """The log of one local table as it lies on the disk, read once."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self.log = table / LOG
        self.entries = {v: read_entry(self.log, v) for v in entry_versions(self.log)}
        self.checkpoints = {v: self._checkpoint(v) for v in checkpoint_versions(self.log)}
        self._flaws: dict[DataFile, str | None] = {}

    @cached_property
    def newest(self) -> int:
        """Give the newest version; -1 without any."""
        return max((*self.entries, *self.checkpoints), default=-1)

    def tears(self) -> list[Tear]:
        """Give all that a reader of the newest version meets or should have met."""
        found = [
            Tear(version=version, file=f"{LOG}/{checkpoint_name(version)}", flaw="cannot be read")
            for version, stored in self.checkpoints.items()
            if stored is None
        ]
        if self._lost_pointer():
            pointer = f"{LOG}/{LAST_CHECKPOINT}"
            found.append(Tear(version=self.newest, file=pointer, flaw="cannot be read"))
        base = max((v for v, files in self.checkpoints.items() if files is not None), default=-1)
        recent = [self.entry(version) for version in range(base + 1, self.newest + 1)]
        found += [entry_tear(entry) for entry in recent if entry.flaw]
        for version, file in self._replayed(base, recent).values():
            flaw = self._flaw(file)
            if flaw:
                found.append(Tear(version=version, file=file.path, flaw=flaw, rows=file.rows))
        return sorted(found, key=lambda tear: (tear.version, tear.file))

    def whole_version(self) -> int | None:
        """Give the last version of which log and files are whole."""
        for version in range(self.newest, -1, -1):
            files = self.state(version)
            if files is not None and not any(self._flaw(file) for _, file in files.values()):
                return version
        young = not self.checkpoints and self.entry(0).flaw not in (None, "is missing")
        return NEVER if young else None

    def state(self, version: int) -> Files | None:
        """Give the files of a version; None when its log is not whole."""
        if version < 0:
            return {}
        bases = (v for v in (*sorted(self.checkpoints, reverse=True), -1) if v <= version)
        for base in bases:
            entries = [self.entry(v) for v in range(base + 1, version + 1)]
            whole = base < 0 or self.checkpoints[base] is not None
            if whole and not any(entry.flaw for entry in entries):
                return self._replayed(base, entries)
        return None

    def loose_files(self, whole: int) -> list[Path]:
        """Give the whole data files that commits after a version wrote.

        Of a torn entry nobody knows which they were: then they are those that no entry names,
        written since.
        """
        kept = self.state(whole) or {}
        after = [entry for version, entry in self.entries.items() if version > whole]
        named = {file.path: file for entry in self.entries.values() for file in entry.added}
        paths = [file.path for entry in after for file in entry.added if file.path not in kept]
        if any(entry.flaw for entry in after):
            since = self._written_at(whole)
            paths += [
                name
                for name in self._data_files()
                if name not in named
                and name not in kept
                and (self.table / name).stat().st_mtime_ns >= since
            ]
        found = (self.table / name for name in dict.fromkeys(paths))
        return [path for path in found if path.exists() and parquet_flaw(path) is None]

    def entry(self, version: int) -> Entry:
        """Give the entry of a version, with a flaw when it is missing."""
        return self.entries.get(version) or Entry(version=version, flaw="is missing")

    def _replayed(self, base: int, entries: list[Entry]) -> Files:
        files = dict(self.checkpoints.get(base) or {})
        for entry in entries:
            for path in entry.removed:
                files.pop(path, None)
            files |= replay([entry])
        return files

    def _flaw(self, file: DataFile) -> str | None:
        if file not in self._flaws:
            self._flaws[file] = file_flaw(self.table, file, deep=True)
        return self._flaws[file]

    def _checkpoint(self, version: int) -> Files | None:
        path = self.log / checkpoint_name(version)
        try:
            if path.stat().st_size == 0 or parquet_flaw(path):
                return None
            added = pl.read_parquet(path, glob=False, columns=["add"]).drop_nulls().unnest("add")
            rows = added.select("path", "size", "stats").iter_rows()
            files = [DataFile.named(name, size, stats) for name, size, stats in rows]
        except (PolarsError, OSError):
            return None
        return {file.path: (version, file) for file in files}

    def _lost_pointer(self) -> bool:
        try:
            said = json.loads((self.log / LAST_CHECKPOINT).read_bytes())
            return said["version"] not in self.checkpoints
        except FileNotFoundError:
            return False
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
        return sorted(str(path) for path in found if not path.parts[0].startswith((LOG, ASIDE)))
