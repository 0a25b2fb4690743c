"""Commits of a local table on the disk: synced before they are acknowledged; a torn one is refused.

delta-rs does not sync what it writes. After a loss of power, the newest entries of the log, which
were not acknowledged yet, may be torn: empty, cut, or without all of their data files. Delta
readers may accept such an entry, so a process that opens a table checks the last entries.
`position-sync doctor --repair` sets torn ones aside. All else that is damaged is a matter of a
backup, or of the broker's next answer.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from position_sync_dagster.errors import BrokenTableError, LakeNotWritableError

LOG = "_delta_log"
LAST_CHECKPOINT = "_last_checkpoint"
# The start of the names of what a repair set aside in the folder of the table.
SET_ASIDE = "_torn-"
# The name of the lock file; it may be in the folder before the table is.
WRITER_LOCK = ".turn.lock"

# The key in a commit's metadata that says how many application transactions it sets.
TRANSACTIONS = "transactions"

ENTRY = re.compile(r"(\d{20})\.json\Z")
# The names of the files of the log.
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet\Z")

# delta-rs spells these numbers of a commit in two ways, by the operation.
_ADDED = ("num_added_files", "numFilesAdded")
_REMOVED = ("num_removed_files", "numFilesRemoved")
_SETS_SCHEMA = frozenset({"CREATE TABLE", "SET TBLPROPERTIES", "ADD COLUMN"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """The entry of a version in the log.

    Attributes:
        added: The size of each data file that it added, by its path relative to the table.
        flaw: What is wrong with it, as a predicate ("is empty"); None for a whole one.
    """

    added: Mapping[str, int] = field(default_factory=dict)
    flaw: str | None = None


def entry_name(version: int) -> str:
    """Return the name of a version's entry."""
    return f"{version:020}.json"


def checkpoint_name(version: int) -> str:
    """Return the name of a version's checkpoint."""
    return f"{version:020}.checkpoint.parquet"


def versions_of(log: Path, names: re.Pattern[str]) -> list[int]:
    """Return the versions that have an ENTRY or a CHECKPOINT, ascending."""
    matches = (names.match(name) for name in os.listdir(log))
    return sorted(int(match[1]) for match in matches if match)


def read_entry(log: Path, version: int) -> LogEntry:
    """Read the entry of a version; a torn one comes with its flaw and its readable part."""
    try:
        return parse_entry((log / entry_name(version)).read_bytes())
    except FileNotFoundError:
        return LogEntry(flaw="is missing")


def parse_entry(text: bytes) -> LogEntry:
    """Parse an entry and check that all of it is there.

    It is read when a table is opened, and of each commit that is synced, for the files it `added`.
    Delta readers accept an empty entry, and one that is cut at the end of a line. Where
    `commitInfo` says how many files the commit added and removed, a missing line is found. Other
    writers may omit `commitInfo`, as the Delta protocol allows. Our entries begin with it, so an
    entry without it is not one of ours that was cut.
    """
    if not text.strip(b"\0 \r\n"):
        return LogEntry(flaw="is empty")
    actions = []
    flaw = None

    for line in text.splitlines():
        try:
            actions += json.loads(line).items()
        except (ValueError, AttributeError):
            flaw = "is cut"
            break

    info = {}
    added = {}
    for kind, body in actions:
        if kind == "commitInfo":
            info = body
        elif kind == "add":
            added[unquote(body["path"])] = int(body["size"])

    flaw = flaw or _missing_action(info, [kind for kind, _body in actions])
    return LogEntry(added=added, flaw=flaw)


def _missing_action(info: dict[str, Any], kinds: list[str]) -> str | None:
    """Return the flaw of an entry that has fewer actions than its `commitInfo` says, else None.

    A kind of which `commitInfo` says no number is not counted. Some operations always write the
    schema (`metaData`) or the `protocol`.
    """
    metrics = info.get("operationMetrics") or {}
    expected = {
        "add": next((metrics[key] for key in _ADDED if key in metrics), None),
        "remove": next((metrics[key] for key in _REMOVED if key in metrics), None),
        "txn": info.get(TRANSACTIONS),
        "metaData": 1 if info.get("operation") in _SETS_SCHEMA else None,
        "protocol": 1 if info.get("operation") == "CREATE TABLE" else None,
    }
    for kind, count in expected.items():
        if count is not None and kinds.count(kind) < int(count):
            return "is cut"
    return None


@dataclass(frozen=True, slots=True)
class TornFile:
    """A file that makes a last entry a torn one.

    Attributes:
        file: Its path in the table: the entry, or a data file that the entry added.
        flaw: What is wrong with it, as a predicate ("is cut").
    """

    version: int
    file: str
    flaw: str


def torn_entries(table: Path) -> list[TornFile]:
    """Return the torn entries that no whole one follows, the newest first; read no data file.

    Entries up to the newest checkpoint are not looked at: it stands for them, and was synced.
    """
    log = table / LOG
    try:
        first = max(versions_of(log, CHECKPOINT), default=-1) + 1
        last = max(versions_of(log, ENTRY), default=-1)
    except FileNotFoundError:
        return []

    torn = []
    for version in range(last, first - 1, -1):
        torn_file = _torn_file(table, version)
        if torn_file is None:
            break
        torn.append(torn_file)
    return torn


def _torn_file(table: Path, version: int) -> TornFile | None:
    """Return the first file of a version that is not whole; None for a whole one."""
    entry = read_entry(table / LOG, version)
    if entry.flaw is not None:
        return TornFile(version, f"{LOG}/{entry_name(version)}", entry.flaw)

    for file, size in entry.added.items():
        try:
            stored = os.stat(table / file).st_size
        except FileNotFoundError:
            return TornFile(version, file, "is missing")
        if stored < size:
            return TornFile(version, file, "is cut" if stored else "is empty")
    return None


def refuse_torn(table: Path) -> None:
    """Refuse a table whose last commit is torn.

    A process calls it when it opens a table: commits that are written while it runs cannot be torn
    by a loss of power that it survived.

    Raises:
        BrokenTableError: The message names the file, and the command that sets the entry aside.
    """
    entries = torn_entries(table)
    if not entries:
        return
    torn = entries[0]
    raise BrokenTableError(
        f"The table {table} is torn at version {torn.version}: {torn.file} {torn.flaw}.",
        remedy="Run `position-sync doctor --repair`: it sets this commit aside, which was not "
        "acknowledged if POSITION_SYNC_FSYNC is on. Otherwise restore a backup.",
    )


def names_besides_log(table: Path) -> list[str]:
    """Return the names in the folder of a table that are not of its log, its lock or set aside.

    If the table has no log, they are in the way of a new one.
    """
    aside = (WRITER_LOCK, LOG, SET_ASIDE)
    return [name for name in sorted(os.listdir(table)) if not name.startswith(aside)]


# Files that are synced at once share one write of the disk's journal: 6 files take 0.5 to 2 ms
# together, and 15 ms one after the other (ext4).
_SYNC_THREADS = 8

_pool = ThreadPoolExecutor(max_workers=_SYNC_THREADS, thread_name_prefix="fsync")


class SyncedCommits:
    """Syncs the commits of one local table, and remembers which are on the disk.

    A commit is only as safe as the commits that it builds on, whoever made them. Therefore all
    versions since the last synced one are synced; at first, all since the last checkpoint, whose
    writer has synced the versions before it.

    `_folders` are those of the data files that were synced last: all folders around them are on
    the disk.

    Args:
        on: Whether to sync at all.
    """

    def __init__(self, table: Path, *, on: bool) -> None:
        self._table = table
        self._log = table / LOG
        self._on = on
        # None: no version is known to be on the disk.
        self._through: int | None = None
        self._folders: set[Path] = set()

    def forget(self) -> None:
        """Start again from the last checkpoint: the table was replaced."""
        self._through = None
        self._folders = set()

    def sync_through(self, version: int) -> None:
        """Sync all versions up to this one that are not known to be on the disk.

        The first time these are all since the newest checkpoint, with the folders around them.

        Raises:
            LakeNotWritableError: The sync failed; the versions exist, and a loss of power may
                remove them.
        """
        if not self._on or (self._through is not None and version <= self._through):
            return

        with self._confirming():  # an error of the disk becomes a LakeNotWritableError
            if self._through is None:
                checkpoints = versions_of(self._log, CHECKPOINT)
                checkpoint = max((v for v in checkpoints if v <= version), default=0)
                paths = {self._table.parent, self._table, self._log / LAST_CHECKPOINT}
                paths.add(self._log / checkpoint_name(checkpoint))
                paths |= self._written_by(range(checkpoint, version + 1))
            else:
                paths = self._written_by(range(self._through + 1, version + 1))
            sync_paths(paths)
        self._through = version
        self._folders = {path.parent for path in paths if path.suffix == ".parquet"}

    def sync_checkpoint(self, version: int) -> None:
        """Sync the checkpoint of a version; entries before it may be deleted only afterwards."""
        if self._on:
            with self._confirming():  # "" is the folder of the log
                sync_paths(
                    self._log / name for name in (checkpoint_name(version), LAST_CHECKPOINT, "")
                )

    def _written_by(self, versions: range) -> set[Path]:
        """Return the paths that versions wrote: entries, files, and folders with new members."""
        paths = {self._log}
        for version in versions:
            paths.add(self._log / entry_name(version))
            for file in read_entry(self._log, version).added:
                steps = file.split("/")  # the folders of partitions, and the file
                folder = self._table.joinpath(*steps[:-1])
                # Of a folder on the disk only it and the file are synced, else those around it too.
                first = len(steps) - 1 if folder in self._folders else 0
                paths |= {
                    self._table.joinpath(*steps[:depth]) for depth in range(first, len(steps) + 1)
                }
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
