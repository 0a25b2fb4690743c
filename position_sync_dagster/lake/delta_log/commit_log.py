"""The entries of a table's log: their file names, and what the text of an entry says."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LOG = "_delta_log"
LAST_CHECKPOINT = "_last_checkpoint"
SET_ASIDE = "_torn"
"""The start of the names of the folders to which a repair moves torn commits."""

TRANSACTIONS = "transactions"
"""The key in a commit's metadata that says how many application transactions it sets."""

_ENTRY = re.compile(r"(\d{20})\.json\Z")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet\Z")

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


def entry_versions(log: Path) -> list[int]:
    """Return the versions that have an entry, ascending."""
    return _versions(log, _ENTRY)


def checkpoint_versions(log: Path) -> list[int]:
    """Return the versions that have a checkpoint, ascending."""
    return _versions(log, _CHECKPOINT)


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
    writers may leave it out, as the Delta protocol allows; ours begin with it, so that an entry
    without it is none of ours that was cut.
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


def _versions(log: Path, pattern: re.Pattern[str]) -> list[int]:
    found = (pattern.match(name) for name in os.listdir(log))
    return sorted(int(match[1]) for match in found if match)
