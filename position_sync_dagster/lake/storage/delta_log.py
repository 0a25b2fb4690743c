"""The log of a local table: read its entries, sync them to the disk, and find torn commits.

With fsync on, only the newest few commits can be torn: those that were written and are not synced
yet, so that they were not acknowledged. With fsync off, or on a disk that confirms what it has not
written, any commit can be torn. Delta readers may accept a torn commit, so this module searches for
torn commits.

Rows of undone commits are kept in a file beside the table until a repair has put them back. The
file is written before any file of the table is moved. While its name says that rows are to be put
back, the repair is not finished: the table cannot be opened, and the next repair continues.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from polars.exceptions import PolarsError

from position_sync_dagster.errors import BrokenTableError, LakeNotWritableError

LOG = "_delta_log"
LAST_CHECKPOINT = "_last_checkpoint"
SET_ASIDE = "_torn"
"""The start of the names of the folders to which a repair moves torn commits."""

TRANSACTIONS = "transactions"
"""The key in a commit's metadata that says how many application transactions it sets."""

ENTRY = re.compile(r"(\d{20})\.json\Z")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet\Z")
"""The names of the files of the log."""

_ADDED = ("num_added_files", "numFilesAdded")
_REMOVED = ("num_removed_files", "numFilesRemoved")
_SETS_SCHEMA = frozenset({"CREATE TABLE", "SET TBLPROPERTIES", "ADD COLUMN"})


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file as the log names it.

    Attributes:
        path: Relative to the table, as the file is called on the disk.
        rows: As the log counts them; None when the log does not say.
    """

    path: str
    size: int
    rows: int | None = None

    @classmethod
    def parse(cls, path: str, size: int, stats: str | None) -> "DataFile":
        """Read the fields of an add action."""
        return cls(unquote(path), int(size), json.loads(stats).get("numRecords") if stats else None)


Files = Mapping[str, tuple[int, DataFile]]
"""Data files by path, each with the version that added it, or that of the checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One version of the log.

    Attributes:
        flaw: What is wrong with it, as a predicate ("is empty"); None for a whole one.
    """

    version: int
    added: tuple[DataFile, ...] = ()
    removed: frozenset[str] = frozenset()
    flaw: str | None = None


def entry_name(version: int) -> str:
    """Return the name of a version's entry."""
    return f"{version:020}.json"


def checkpoint_name(version: int) -> str:
    """Return the name of a version's checkpoint."""
    return f"{version:020}.checkpoint.parquet"


def versions_of(log: Path, names: re.Pattern[str]) -> list[int]:
    """Return the versions that have an ENTRY or a CHECKPOINT, ascending."""
    found = (names.match(name) for name in os.listdir(log))
    return sorted(int(match[1]) for match in found if match)


def read_entry(log: Path, version: int) -> LogEntry:
    """Read the entry of a version; a torn one comes with its flaw and its readable part."""
    try:
        text = (log / entry_name(version)).read_bytes()
    except FileNotFoundError:
        return LogEntry(version=version, flaw="is missing")
    return parse_entry(version, text)


def parse_entry(version: int, text: bytes) -> LogEntry:
    """Parse an entry and check that all of it is there.

    Delta readers accept an empty entry, and one that is cut at the end of a line. Where
    `commitInfo` says how many files the commit added and removed, a missing line is found. Other
    writers may omit `commitInfo`, as the Delta protocol allows. Our entries begin with it, so an
    entry without it is not one of ours that was cut.
    """
    if not text.strip(b"\0 \r\n"):
        return LogEntry(version=version, flaw="is empty")
    actions: list[tuple[str, dict[str, Any]]] = []
    flaw = None
    for line in text.splitlines():
        try:
            actions += json.loads(line).items()
        except (ValueError, AttributeError):
            flaw = "is cut"
            break
    added = tuple(
        DataFile.parse(body["path"], body["size"], body.get("stats"))
        for kind, body in actions
        if kind == "add"
    )
    removed = frozenset(unquote(body["path"]) for kind, body in actions if kind == "remove")
    info = next((body for kind, body in actions if kind == "commitInfo"), {})
    kinds = [kind for kind, _ in actions]
    return LogEntry(
        version=version,
        added=added,
        removed=removed,
        flaw=flaw or _missing_action(info, kinds),
    )


def replay(entries: Iterable[LogEntry], base: Files | None = None) -> Files:
    """Return the files of a version: those of `base`, as the entries after it change them."""
    files = dict(base or {})
    for entry in entries:
        for path in entry.removed:
            files.pop(path, None)
        files |= {file.path: (entry.version, file) for file in entry.added}
    return files


def _missing_action(info: dict[str, Any], kinds: list[str]) -> str | None:
    metrics = info.get("operationMetrics") or {}
    expected = {
        "add": next((metrics[key] for key in _ADDED if key in metrics), None),
        "remove": next((metrics[key] for key in _REMOVED if key in metrics), None),
        "txn": info.get(TRANSACTIONS),
        "metaData": 1 if info.get("operation") in _SETS_SCHEMA else None,
        "protocol": 1 if info.get("operation") == "CREATE TABLE" else None,
    }
    missing = any(
        count is not None and kinds.count(kind) < int(count) for kind, count in expected.items()
    )
    return "is cut" if missing else None


TO_PUT_BACK = "rows_to_put_back.parquet"
"""The name of a file of rows that a repair is to write into the table again."""

KEPT = "rows.parquet"
"""The name of that file afterwards, and of a file whose rows are only kept."""


def keep_rows(folder: Path, rows: pl.DataFrame, *, put_back: bool) -> Path:
    """Write rows atomically to a file in a set-aside folder, and sync it."""
    file = folder / (TO_PUT_BACK if put_back else KEPT)
    partial = folder / f"{KEPT}.part"
    rows.write_parquet(partial)
    sync_paths([partial])
    os.replace(partial, file)
    sync_paths([folder, folder.parent])
    return file


def unfinished_repairs(table: Path) -> list[Path]:
    """Return the files of rows that are still to be put back, oldest first."""
    return sorted(table.glob(f"{SET_ASIDE}-*/{TO_PUT_BACK}"))


def finish_repair(file: Path) -> Path:
    """Rename a file whose rows are back in the table; another process may have done it."""
    kept = file.with_name(KEPT)
    try:
        os.replace(file, kept)
    except FileNotFoundError:
        return kept
    sync_paths([file.parent])
    return kept


def refuse_unfinished(table: Path) -> None:
    """Refuse a table whose repair was interrupted: acknowledged rows are missing in it.

    Raises:
        BrokenTableError: The message names the rows and `position-sync doctor --repair`.
    """
    for file in unfinished_repairs(table):
        raise BrokenTableError(
            f"A repair of the table {table} was interrupted: the rows in {file} are not back yet.",
            remedy="Run `position-sync doctor --repair` again; it goes on where it ended. To go "
            f"on without these rows, rename that file to {KEPT}.",
        )


DOCTOR = (
    "Run `position-sync doctor --tables` to see what is affected, and `position-sync doctor "
    "--repair` to go back to the last whole version."
)

_MAGIC = b"PAR1"
_READS = 3
"""Number of reads of a table. A file may be replaced and deleted between two reads; one that is
absent in each read is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TornFile:
    """One file that is not as the log says.

    Attributes:
        version: The version that it belongs to.
        file: Relative to the table.
        flaw: "is missing", "is empty", "is cut" or "cannot be read".
        rows: Rows in it, as the log counts them; None when unknown.
    """

    version: int
    file: str
    flaw: str
    rows: int | None = None


def refuse_torn(table: Path) -> None:
    """Refuse a table of which a commit since its last checkpoint is torn.

    A process calls it when it opens a table: commits that are written while it runs cannot be torn
    by a loss of power that it survived. It compares names and sizes only.

    Raises:
        BrokenTableError: The message names the file and `position-sync doctor`.
    """
    for _ in range(_READS):
        found = _torn_since_checkpoint(table)
        if not found:
            return
    torn = found[0]
    raise BrokenTableError(
        f"The table {table} is torn at version {torn.version}: {torn.file} {torn.flaw}.",
        remedy=DOCTOR,
    )


def torn_files(
    entries: Iterable[LogEntry],
    base: Files | None,
    flaw_of: Callable[[DataFile], str | None],
) -> list[TornFile]:
    """Return the torn entries, and the torn data files of the version of the last entry.

    Args:
        entries: All entries after `base`, ascending.
        base: The files of the checkpoint before them; None without one.
        flaw_of: Returns what is wrong with a data file; None if nothing is.
    """
    listed = list(entries)
    found = [
        TornFile(
            version=entry.version,
            file=f"{LOG}/{entry_name(entry.version)}",
            flaw=entry.flaw,
            rows=sum(file.rows or 0 for file in entry.added) or None,
        )
        for entry in listed
        if entry.flaw
    ]
    for version, file in replay(listed, base).values():
        flaw = flaw_of(file)
        if flaw:
            found.append(TornFile(version=version, file=file.path, flaw=flaw, rows=file.rows))
    return found


def data_file_flaw(table: Path, file: DataFile, *, deep: bool) -> str | None:
    """Return what is wrong with a data file; None if nothing is.

    Args:
        deep: Read the file whole, not only its name and size.
    """
    path = table / file.path
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if size != file.size:
        return "is empty" if size == 0 else "is cut"
    return parquet_flaw(path, file.rows) if deep else None


def parquet_flaw(path: Path, rows: int | None = None) -> str | None:
    """Return what is wrong with a parquet file, by reading all of it; None if nothing is."""
    with path.open("rb") as opened:
        if opened.read(4) != _MAGIC:
            return "cannot be read"
        opened.seek(-4, 2)
        if opened.read(4) != _MAGIC:
            return "is cut"
    try:
        height = pl.read_parquet(path, glob=False, hive_partitioning=False).height
    except (PolarsError, OSError):
        return "cannot be read"
    return "cannot be read" if rows is not None and height != rows else None


def _torn_since_checkpoint(table: Path) -> list[TornFile]:
    log = table / LOG
    try:
        first = max(versions_of(log, CHECKPOINT), default=-1) + 1
        last = max(versions_of(log, ENTRY), default=-1)
    except FileNotFoundError:
        return []
    entries = [read_entry(log, version) for version in range(first, last + 1)]
    found = torn_files(entries, None, partial(data_file_flaw, table, deep=False))
    return sorted(found, key=lambda torn: (torn.version, torn.file))


NO_VERSION = -1
"""The last whole version of a table whose first version is torn."""

LONGEST_COMMIT_S = 300
"""Maximum seconds from the first file of a commit to its log entry; a later commit is not
acknowledged (see `storage/table.py`). It is shorter than the retention of the log, so that the log
still names the files that the commit replaced."""


class LogReader:
    """Reads the log of one local table.

    Others may write meanwhile. Therefore the checkpoints are listed last: the pointer to the last
    checkpoint names one of them, and entries are deleted only after a checkpoint.

    A checkpoint is read when it is needed. For most logs that is the newest one only, however many
    checkpoints they keep.

    Attributes:
        entries: The entries that are there, by version.
        checkpoints: The versions that have a checkpoint, newest first.
    """

    def __init__(self, table: Path) -> None:
        self.table = table
        self.log = table / LOG
        self._pointer = self._read_pointer()
        self.entries = {v: read_entry(self.log, v) for v in versions_of(self.log, ENTRY)}
        self.checkpoints = versions_of(self.log, CHECKPOINT)[::-1]
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

        A torn entry does not name its files. Its files are then those that no entry names and
        that were written since that version.
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


_THREADS = 8
"""Files that are synced at once share one write of the disk's journal: 6 files take 0.5 to 2 ms
together, and 15 ms one after the other (ext4)."""

_MAX_FOLDERS = 1000

_pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="fsync")


class SyncedCommits:
    """Syncs the commits of one local table, and remembers which are on the disk.

    A commit is only as safe as the commits that it builds on, whoever made them. Therefore all
    versions since the last synced one are synced; at first, all since the last checkpoint, whose
    writer has synced the versions before it.

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
        """Start again from the last checkpoint: the table was replaced."""
        self._through = -1
        self._folders.clear()

    def sync_through(self, version: int) -> None:
        """Sync all versions up to this one.

        Raises:
            LakeNotWritableError: The sync failed; the versions exist, and a loss of power may
                remove them.
        """
        if not self._on or version <= self._through:
            return
        with self._confirming():
            paths: set[Path] = set()
            after = self._through
            if after < 0:
                checkpoints = versions_of(self._log, CHECKPOINT)
                checkpoint = max((v for v in checkpoints if v <= version), default=0)
                paths |= {self._table.parent, self._table, self._log / LAST_CHECKPOINT}
                paths.add(self._log / checkpoint_name(checkpoint))
                after = checkpoint - 1
            paths |= self._written_by(range(after + 1, version + 1))
            sync_paths(paths)
        self._through = version
        self._folders |= {path.parent for path in paths if path.suffix == ".parquet"}
        if len(self._folders) > _MAX_FOLDERS:
            self._folders.clear()

    def sync_checkpoint(self, version: int) -> None:
        """Sync the checkpoint of a version; entries before it may be deleted only afterwards."""
        if self._on:
            names = (checkpoint_name(version), LAST_CHECKPOINT, "")
            with self._confirming():
                sync_paths(self._log / name for name in names)

    def _written_by(self, versions: range) -> set[Path]:
        """Return the paths that versions wrote: entries, files, and folders with new members."""
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

    @contextmanager
    def _confirming(self) -> Iterator[None]:
        """Raise an error that calls the change made: it was committed before it is synced."""
        try:
            yield
        except OSError as error:
            raise LakeNotWritableError(
                f"A change of {self._table} is made, but the disk did not confirm it: {error}.",
                remedy="Check the disk; after a loss of power run `position-sync doctor`.",
            ) from error


def sync_paths(paths: Iterable[Path]) -> None:
    """Sync files and folders at once; a path that does not exist is skipped."""
    list(_pool.map(sync_path, paths))


def sync_path(path: Path) -> None:
    """Sync one file or folder; a path that does not exist is skipped."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # superseded and deleted since
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
